"""asyncio's primitives in a flow: the same result live, through a death beside each commit, and out of memory."""

from __future__ import annotations

import msgspec
import pytest

from tests.flows.primitives import CASES
from tests.flows.ways import Case, crashes, evicted, live


@pytest.mark.parametrize("name", CASES)
def test_the_primitive_works_live_and_on_replay(name: str) -> None:
    """Goal: what works in plain asyncio works in a flow, and the replay of its history agrees in every digest."""
    flow, expected = CASES[name]
    seen, _ = live(Case(flow))
    assert seen.outcome == f"result {msgspec.json.encode(expected).decode()}"


@pytest.mark.simulation
@pytest.mark.parametrize("name", CASES)
def test_a_death_beside_any_commit_changes_no_result(name: str) -> None:
    """Goal: a replay in the middle of the primitive goes on as if there had been none (S1, S5, S6)."""
    flow, _ = CASES[name]
    seen, commits = live(Case(flow))
    for other in crashes(Case(flow), commits):
        assert other == seen


@pytest.mark.parametrize("name", CASES)
def test_leaving_memory_changes_no_result(name: str) -> None:
    """Goal: a run that is dropped whenever it only waits comes to the same end (S7, S10)."""
    flow, _ = CASES[name]
    seen, _ = live(Case(flow))
    assert evicted(Case(flow))[0] == seen
