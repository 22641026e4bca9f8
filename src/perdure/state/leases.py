"""The Leases protocol: what a store of many nodes promises about who holds what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

# The shards of a store unless it was made with another number; a number that is fixed when the store is made.
SHARDS = 64
NOBODY = 0


class Fence(NamedTuple):
    """What a node shows with every write: its number in the table of nodes, and the random word given with it.

    Shape: a store that went back in time may give a number again, never a claim.
    """

    epoch: int
    claim: UUID


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself when it joins. Shape: `serves` are (workflow, version)."""

    name: str
    pid: int = 0
    host: str = ""
    version: str = ""
    serves: tuple[tuple[str, str], ...] = ()
    queues: tuple[str, ...] = ()


class Member(msgspec.Struct, frozen=True):
    """A live node as the store saw it at one moment.

    Shape: `settled`: it has lasted long enough that shards are moved for it.
    Units: `started_at` microseconds since 1970 UTC, by the store's clock; `left_s` seconds until its lease ends,
           negative when it has.
    """

    epoch: int
    started_at: int = 0
    left_s: float = 0.0
    draining: bool = False
    settled: bool = True


class View(msgspec.Struct, frozen=True):
    """Nodes and shards at one moment.

    Shape: `members` are the live nodes by epoch; `owners` and `claims` have one entry a shard, `NOBODY` and None where
           none holds it. An owner that is no member is dead or stopped, for ever.
    """

    members: tuple[Member, ...] = ()
    owners: tuple[int, ...] = (NOBODY,) * SHARDS
    claims: tuple[UUID | None, ...] = (None,) * SHARDS

    def free(self) -> list[int]:
        """The shards that nobody holds who lives."""
        live = {member.epoch for member in self.members}
        return [shard for shard, owner in enumerate(self.owners) if owner not in live]

    def of(self, epoch: int) -> dict[int, UUID]:
        """The shards of one node, with the claim that each was taken by."""
        pairs = zip(self.owners, self.claims, strict=True)
        return {shard: claim for shard, (owner, claim) in enumerate(pairs) if owner == epoch and claim is not None}


class Leases(Protocol):
    """Who is a node, and who holds which shard. Every call is one transaction, timed by the store's own clock.

    Raises: each `StoreUnavailable` when it cannot be told whether it took place; all may be repeated as they are.
    """

    async def register(self, claim: UUID, node: Registration, lease_s: float) -> Fence:
        """Join as a live node. Shape: the same claim again gives the same epoch."""

    async def renew(self, fence: Fence, lease_s: float, load: Mapping[str, Any], *, draining: bool) -> bool:
        """Let the lease last `lease_s` from now; False: this node is fenced, and may do nothing any more."""

    async def look(self) -> View:
        """Nodes and shards as of one moment."""

    async def fence(self, epoch: int) -> bool:
        """Declare a node dead whose lease is over; waits for its commit in flight, and every later one is refused.

        Shape: False when its lease is not over (any more), or it was no live node.
        """

    async def claim(self, fence: Fence, wanted: Mapping[int, int], claim: UUID) -> Sequence[int]:
        """Take the shards whose owner is still the one seen ({shard: owner}), and is not live: those that are ours now.

        Shape: none when this node is fenced itself.
        """

    async def release(self, fence: Fence, held: Mapping[int, UUID]) -> None:
        """Hand over shards cleanly, those that are still held by that claim; waits for our own commits in flight."""

    async def leave(self, fence: Fence, *, clean: bool) -> None:
        """Be no node any more: cleanly, or dead at once; all shards are free then."""
