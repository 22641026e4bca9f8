"""The lease protocol, explored exhaustively: it holds, and each part of it is needed."""

from __future__ import annotations

import pytest

from tests.cluster.explorer import ALIVE, CLAIM, HELD, ORDER, SENT, WHOLE, Found, Protocol, explore

KINDS = {
    "register", "crash", "stop", "renew", "renewal granted", "renewal refused", "renewal lost", "answer", "fence", "claim",
    "claim, answer lost", "decide", "commit accepted", "commit refused", "commit lost", "release", "tick",
}  # fmt: skip
FAILOVER = frozenset({"copy", "failover"})
RELEASE = frozenset({"release"})
# What is taken out, what else is, which steps are left out, and a step without which the harm cannot be done.
BUGS = [
    pytest.param({ALIVE}, {HELD}, FAILOVER | RELEASE, "fence", id="the fence of the commit"),
    pytest.param({ORDER}, {HELD}, FAILOVER | RELEASE, "claim", id="the order: fence, then claim"),
    pytest.param({CLAIM}, set(), RELEASE, "failover", id="the random claim beside the epoch"),
    pytest.param({HELD}, set(), FAILOVER, "release", id="the shard's own claim in the commit"),
    pytest.param({HELD}, set(), frozenset(), "release", id="the shard's own claim in the commit, with failovers"),
    pytest.param({SENT}, set(), FAILOVER | RELEASE, "answer", id="counting from before the renewal was sent"),
]


def told(found: Found) -> None:
    kinds = ", ".join(f"{name} {count:,}" for name, count in sorted(found.moves.items()))
    print(f"{found.states:,} states, {sum(found.moves.values()):,} steps, depth {found.depth}: {kinds}")
    if found.broken:
        print("  " + " > ".join(found.broken))


@pytest.mark.parametrize(
    "depth, without",
    [
        pytest.param(10, FAILOVER, id="one history of the store"),
        pytest.param(8, frozenset(), id="failovers to an older store"),
        pytest.param(13, FAILOVER, id="one history, deep", marks=pytest.mark.torture),
        pytest.param(11, frozenset(), id="failovers, deep", marks=pytest.mark.torture),
    ],
)
def test_no_interleaving_lets_a_stale_node_write(depth: int, without: frozenset[str]) -> None:
    """Goal: over all states within reach every accepted commit is of whoever claimed last, and none act together."""
    found = explore(Protocol(without=without), depth)
    told(found)
    assert not found.broken
    assert found.depth == depth
    assert found.states > 20_000
    assert (found.moves.keys() | without) == KINDS | FAILOVER
    assert found.accepted > 1_000
    assert found.refused > 500


@pytest.mark.parametrize("out, beside, without, needs", BUGS)
def test_each_part_of_the_protocol_is_needed(
    out: set[str], beside: set[str], without: frozenset[str], needs: str
) -> None:
    """Goal: the explorer finds the harm when a part is taken out, and none where only that is put back (F34-F38)."""
    broken = explore(Protocol(WHOLE - out - beside, without), 11)
    told(broken)
    assert broken.broken
    assert needs in broken.broken
    with_it = explore(Protocol(WHOLE - beside, without), broken.depth)
    assert not with_it.broken
