"""Shards of runs, and the even share: one owner each, counts within one, no move without need."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.cluster.partition import moves, quotas, shard_of
from perdure.state.leases import NOBODY, SHARDS, Member, View

CLAIM = UUID(int=1)


def seen(members: list[Member], owners: list[int]) -> View:
    return View(tuple(members), tuple(owners), tuple(CLAIM if owner else None for owner in owners))


def turn(members: list[Member], owners: list[int], views: dict[int, View]) -> int:
    """Let every node act on what it saw, the store refusing what is no longer free: how many shards moved."""
    live, moved = {member.epoch for member in members}, 0
    for member in members:
        view = views[member.epoch]
        wanted = moves(view, member.epoch)
        assert not (wanted.claim and wanted.give)
        for shard in wanted.give:
            if owners[shard] == member.epoch:
                owners[shard] = NOBODY
        for shard in wanted.claim:
            if owners[shard] == view.owners[shard] and owners[shard] not in live:
                owners[shard] = member.epoch
                moved += 1
    return moved


def settle(members: list[Member], owners: list[int]) -> int:
    """Turns until nothing is wanted any more: how many shards moved."""
    moved = 0
    for _ in range(4):
        view = seen(members, owners)
        if not any((found := moves(view, one.epoch)).claim or found.give for one in members):
            return moved
        moved += turn(members, owners, {one.epoch: view for one in members})
    raise AssertionError(f"no rest after 4 turns: {Counter(owners)}")


@st.composite
def clusters(draw: st.DrawFn, shards: int = 16) -> tuple[list[Member], list[int]]:
    """Live nodes, some draining or new, and owners some of which are dead."""
    count = draw(st.integers(1, 7))
    members = [
        Member(
            epoch,
            started_at=draw(st.integers(0, 3)),
            draining=draw(st.integers(0, 4)) == 0,
            settled=draw(st.integers(0, 4)) != 0,
        )
        for epoch in draw(st.lists(st.integers(1, 40), min_size=count, max_size=count, unique=True))
    ]
    holders = [NOBODY, 41, 42, *(one.epoch for one in members)]
    return members, draw(st.lists(st.sampled_from(holders), min_size=shards, max_size=shards))


@pytest.mark.parametrize(
    "run_id, shard",
    [("", 52), ("r", 49), ("order-1001", 39), ("01J8ZQ5T9GZC1V9Q8N0X6K3M2A", 19), ("kinderzüge", 54), ("a" * 128, 26)],
)
def test_the_shard_of_a_run_is_fixed_for_ever(run_id: str, shard: int) -> None:
    """Goal: nobody changes the hash: rows in stores of users hold what it gave."""
    assert shard_of(run_id) == shard


def test_runs_spread_evenly_over_the_shards() -> None:
    """Goal: no shard gets twice its part of many runs."""
    counts = Counter(shard_of(f"run-{number}") for number in range(64_000))
    assert len(counts) == SHARDS
    assert max(counts.values()) < 1_200
    assert {shard_of(f"run-{number}", 5) for number in range(100)} == set(range(5))


@given(clusters())
def test_every_shard_gets_one_owner_and_all_hold_an_even_share(cluster: tuple[list[Member], list[int]]) -> None:
    """Goal: from any state, nodes that act on the same view come to rest evenly, and no two want the same shard."""
    members, owners = cluster
    view = seen(members, owners)
    claims = [shard for member in members for shard in moves(view, member.epoch).claim]
    assert len(claims) == len(set(claims))
    assert set(claims) <= set(view.free())
    settle(members, owners)
    staying = [one for one in members if not one.draining]
    held = Counter(owners)
    if not staying:
        assert not any(held[one.epoch] for one in members)
        return
    counts = [held[one.epoch] for one in staying if one.settled or held[one.epoch]]
    assert sum(counts) == len(owners)
    assert max(counts) - min(counts) <= 1


@given(clusters(shards=12))
def test_no_shard_moves_without_need(cluster: tuple[list[Member], list[int]]) -> None:
    """Goal: the shards that stay are as many as in the best even share that there is, by trying all of them."""
    members, owners = cluster
    before = list(owners)
    counted = sorted(quotas(seen(members, owners)))
    held = Counter(owners)
    settle(members, owners)
    stayed = sum(was == now for was, now in zip(before, owners, strict=True) if was in counted)
    if not counted:
        return
    least, more = divmod(len(owners), len(counted))
    best = max(
        sum(min(held[epoch], least + (epoch in larger)) for epoch in counted) for larger in combinations(counted, more)
    )
    assert stayed == best


@given(clusters(), st.data())
def test_nodes_with_old_views_never_share_a_shard_and_come_to_rest(
    cluster: tuple[list[Member], list[int]], data: st.DataObject
) -> None:
    """Goal: whatever each node saw last, once all see the same they come to rest within two turns more."""
    members, owners = cluster
    history = [seen(members, owners)]
    for _ in range(data.draw(st.integers(1, 4))):
        views = {one.epoch: data.draw(st.sampled_from(history)) for one in members}
        turn(members, owners, views)
        history.append(seen(members, owners))
    settle(members, owners)


def test_a_join_moves_only_what_the_newcomer_gets_and_a_leave_only_what_was_left() -> None:
    """Goal: 64 shards on three nodes, then four, then three: 16 moves and 16 again."""
    members = [Member(epoch, started_at=epoch) for epoch in (1, 2, 3)]
    owners = [NOBODY] * SHARDS
    assert settle(members, owners) == SHARDS
    assert sorted(Counter(owners).values()) == [21, 21, 22]
    members.append(Member(4, started_at=4))
    assert settle(members, owners) == 16
    assert set(Counter(owners).values()) == {16}
    assert settle([one for one in members if one.epoch != 2], owners) == 16
    assert settle([one for one in members if one.epoch != 2], owners) == 0


def test_a_node_that_has_just_come_moves_nothing() -> None:
    """Goal: a node that connects and is gone at once costs nobody a shard (F43); where all are new, all count."""
    old, new = Member(1, started_at=1), Member(2, started_at=2, settled=False)
    owners = [1] * SHARDS
    assert settle([old, new], owners) == 0
    assert settle([old, Member(2, started_at=2)], owners) == SHARDS // 2
    owners = [NOBODY] * SHARDS
    settle([Member(1, settled=False), new], owners)
    assert set(Counter(owners).values()) == {32}
    assert settle([Member(1), new], owners) == 0


def test_more_nodes_than_shards() -> None:
    """Goal: nodes beyond the number of shards hold none, and nothing moves for them."""
    members = [Member(epoch, started_at=epoch) for epoch in range(1, 101)]
    owners = [NOBODY] * SHARDS
    assert settle(members, owners) == SHARDS
    assert set(Counter(owners).values()) == {1}
    assert settle(members, owners) == 0
