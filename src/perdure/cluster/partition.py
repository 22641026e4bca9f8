"""Which shard a run belongs to, and which shards a node takes and gives so that all hold an even share."""

from __future__ import annotations

import heapq
from collections import Counter
from hashlib import blake2b

import msgspec

from perdure.state.leases import SHARDS, Member, View


def shard_of(run_id: str, shards: int = SHARDS) -> int:
    """The shard of a run: fixed for ever, since it is kept with every row of the run."""
    return int.from_bytes(blake2b(run_id.encode(), digest_size=8).digest()) % shards


class Moves(msgspec.Struct, frozen=True):
    """What one node does now. Shape: `claim` are free shards, `give` some that it holds and lets go of."""

    claim: tuple[int, ...] = ()
    give: tuple[int, ...] = ()


def quotas(view: View) -> dict[int, int]:
    """How many shards each node should hold, by epoch; those that are not named hold none.

    Shape: the counts differ by at most one, and the larger ones are for those that hold most already, so that no shard
           moves for the sake of a remainder. A node that has just come counts only once it has lasted (or holds
           something): one that comes and goes at once moves nothing. Where all have just come, all count.
    """
    held = Counter(view.owners)
    staying = [member for member in view.members if not member.draining]
    counted = [member for member in staying if member.settled or held[member.epoch]] or staying
    if not counted:
        return {}
    least, more = divmod(len(view.owners), len(counted))
    ranked = sorted(counted, key=lambda member: (-held[member.epoch], *_rank(member)))
    return {member.epoch: least + (place < more) for place, member in enumerate(ranked)}


def moves(view: View, me: int) -> Moves:
    """What this node takes and gives, by a view that may be old: the store refuses what is no longer free."""
    wanted = quotas(view)
    mine = [shard for shard, owner in enumerate(view.owners) if owner == me]
    surplus = len(mine) - wanted.get(me, 0)
    if surplus > 0:
        return Moves(give=tuple(mine[-surplus:]))
    return Moves(claim=tuple(_dealt(view, wanted).get(me, ())))


def _dealt(view: View, wanted: dict[int, int]) -> dict[int, list[int]]:
    """The free shards, dealt out: each to the node that holds least, so that no two nodes reach for the same."""
    held = Counter(view.owners)
    dealt: dict[int, list[int]] = {member.epoch: [] for member in view.members}
    hands = [(held[one.epoch], *_rank(one)) for one in view.members if held[one.epoch] < wanted.get(one.epoch, 0)]
    heapq.heapify(hands)
    for shard in view.free():
        if not hands:
            break
        count, started_at, epoch = heapq.heappop(hands)
        dealt[epoch].append(shard)
        if count + 1 < wanted[epoch]:
            heapq.heappush(hands, (count + 1, started_at, epoch))
    return dealt


def _rank(member: Member) -> tuple[int, int]:
    """The older node goes first."""
    return (member.started_at, member.epoch)
