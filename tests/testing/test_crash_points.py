"""`run_with_crashes`: every place where an engine may die is tried and counted, and what is not durable is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.errors import BadCall
from perdure.model import fact as f
from perdure.state.memory import MemoryStore
from perdure.state.store import Batch, Committed
from perdure.testing import CrashDifference, World, run_with_crashes
from perdure.testing.machine import Machine
from perdure.testing.programs import perform
from tests.testing import shop


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    shop.MEMORY.clear()


@pytest.mark.simulation
@pytest.mark.parametrize(
    "prepare, status, said",
    [
        (shop.approve, "completed", "paid 5, reserved 5, BOX"),
        (shop.refuse, "failed", ("RuntimeError", "refused: no")),
        (lambda world, run: world.cancel_at("1h", run, "changed my mind"), "cancelled", "changed my mind"),
        (None, "failed", ("TimeoutError", "")),
    ],
    ids=["approved", "refused", "cancelled", "late"],
)
def test_f02_a_flow_ends_alike_whichever_commit_its_engine_dies_beside(
    prepare: Callable[[World, str], None] | None, status: str, said: Any
) -> None:
    """Goal: steps, a retry, a child, a signal, a timer, compensation: before and after each commit, all counted."""
    explored = run_with_crashes(shop.order, 5, prepare=prepare)
    assert (explored.expected.status, explored.expected.value) == (status, said)
    assert explored.commits >= 6
    assert explored.crashes["crash_before"] == explored.crashes["crash_after"] == explored.commits
    assert explored.worlds == 1 + 2 * explored.commits


@pytest.mark.simulation
def test_f02_a_graph_ends_alike_whichever_commit_its_engine_dies_beside() -> None:
    """Goal: a map, a join and a retry survive a death before and after each commit."""
    explored = run_with_crashes(shop.tally, 4)
    assert (explored.expected.status, explored.expected.value) == ("completed", 20)
    assert explored.crashes["crash_before"] == explored.crashes["crash_after"] == explored.commits > 4


@pytest.mark.simulation
@pytest.mark.parametrize("depth, worlds", [(2, 30), (3, 150)])
def test_f04_recovery_that_is_killed_and_killed_again_comes_to_the_same_end(depth: int, worlds: int) -> None:
    """Goal: a death beside each commit of a recovery, and of that one's recovery, to depth 3."""
    explored = run_with_crashes(shop.two_steps, 3, crash_depth=depth)
    assert (explored.expected.status, explored.expected.value) == ("completed", 14)
    assert explored.worlds > worlds
    assert explored.crashes.total() > depth * worlds / 2


@pytest.mark.simulation
def test_f04_compensation_that_is_killed_twice_is_done_once() -> None:
    """Goal: with two nested deaths a run that fails undoes what it owes, once, and in order."""
    program = [["book", 1], ["book", 2], ["fail", 3]]
    explored = run_with_crashes(perform, program, crash_depth=2, check=_undone_once)
    assert explored.expected.status == "failed"
    assert explored.worlds > 70


def _undone_once(world: World, run: str) -> None:
    keys = [one.key for one in world.history(run) if isinstance(one, f.StepCompleted) and one.key.startswith("undo:")]
    assert keys == ["undo:book#2", "undo:book#1"]


@pytest.mark.parametrize("flow", [shop.counts_in_memory, shop.asks_by_memory, shop.withdraws])
def test_a_workflow_that_is_not_durable_is_found(flow: Any) -> None:
    """Goal: a flow or a task that rests on its process's memory ends otherwise after a crash, and that is told."""
    with pytest.raises(CrashDifference, match="after a crash"):
        run_with_crashes(flow, 3)


def test_a_store_that_acknowledges_before_it_writes_is_found() -> None:
    """Goal: a start that was acknowledged and is gone after a crash is told with the crash that led to it."""
    with pytest.raises(CrashDifference, match=r"commit \d: the start was acknowledged, and is lost"):
        run_with_crashes(shop.two_steps, 3, store=_Forgetful)


class _Forgetful:
    """A disk whose last write is lost when its machine dies."""

    def __init__(self) -> None:
        self.disk: MemoryStore = MemoryStore()

    async def __call__(self, _: Machine) -> Any:
        return _Delayed(self.disk)


class _Delayed:
    """Acknowledges a batch with a start at once, and writes it with the next batch."""

    def __init__(self, disk: MemoryStore) -> None:
        self._disk = disk
        self._held: list[Batch] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def commit(self, batch: Batch) -> Committed:
        held, self._held = self._held, []
        for one in held:
            self._disk.commit(one)
        if batch.starts:
            self._held.append(batch)
            return Committed()
        return self._disk.commit(batch)


def test_an_end_that_differs_may_be_allowed() -> None:
    """Goal: a user may say which other end is right, and no more than that is let pass."""
    explored = run_with_crashes(shop.withdraws, 3, allow=lambda ended: ended.status == "completed")
    assert explored.crashes.total() == 2 * explored.commits
    with pytest.raises(CrashDifference):
        run_with_crashes(shop.withdraws, 3, allow=lambda ended: ended.status == "attention")


def test_too_many_worlds_are_refused() -> None:
    """Goal: a depth that would take for ever is told before anybody waits for it."""
    with pytest.raises(BadCall, match="worlds: crash_depth=9 is too much for perform"):
        run_with_crashes(perform, [["step", n] for n in range(12)], crash_depth=9)


def test_a_store_that_is_not_empty_is_refused() -> None:
    """Goal: a file that all worlds would share is no place for them."""
    with pytest.raises(BadCall, match="each world needs an empty one"):
        run_with_crashes(shop.two_steps, 3, store="sqlite:///shared.db")
