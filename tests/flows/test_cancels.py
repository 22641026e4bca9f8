"""Cancelling a run: every race has one end, what was in flight is told, and compensations run (F27, F48, F49, S17, S19)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from perdure import RunCancelled, RunFailed
from perdure.errors import WrongState
from perdure.model import fact as f
from perdure.runtime.desk import Handle
from perdure.testing import World
from tests.flows import settling
from tests.flows import talking as flows
from tests.flows.tasks import DONE
from tests.flows.ways import Case, crashes, ended, live, seen

RACES = {
    "a step": flows.waits_for_a_step,
    "a step that does not listen": flows.waits_for_a_stubborn_step,
    "a retry": flows.waits_for_a_retry,
    "a timer": flows.waits_for_a_timer,
    "a child": flows.waits_for_a_child,
    "a signal": flows.waits_for_a_signal,
}
# Before anything began, in the middle, around and at the moment at which something is due, and when all is over.
TIMES = [0, 0.000001, 0.001, 29.999999, 30, 30.000001, 59.999999, 60, 60.000001, 60.001, 61, 999.999999, 1000, 1001]


@pytest.fixture(autouse=True)
def _nothing_done() -> Iterator[None]:
    DONE.clear()
    yield
    DONE.clear()


def _cancel_at(second: float) -> Any:
    def script(world: World, handle: Handle) -> None:
        world.cancel_at(second, handle, "enough")
        world.cancel_at(second, handle, "enough")

    return script


@pytest.mark.simulation
@pytest.mark.parametrize("second", TIMES)
@pytest.mark.parametrize("race", RACES)
def test_f48_a_cancel_in_any_moment_leads_to_one_end(race: str, second: float) -> None:
    """Goal: completed, failed or cancelled, once; what was reserved is released unless the run completed."""
    with World("memory:") as world:
        handle = world.start(RACES[race], id="the-run")
        _cancel_at(second)(world, handle)
        outcome = ended(world)
        found = seen(world, outcome)
        ends = [fact for fact in world.history("the-run") if isinstance(fact, f.ENDS)]
        assert len(ends) == 1
        assert isinstance(world.history("the-run")[-1], f.ENDS)
        assert found.status in {"completed", "failed", "cancelled"}
        released = DONE.count("released one")
        recorded = any(one.startswith("reserve#1") for one in found.steps)
        assert released == (1 if recorded and found.status != "completed" else 0)
        rows = {row.id: row.status for row in world.rows()}
        assert all(status in {"completed", "failed", "cancelled"} for status in rows.values()), rows


@pytest.mark.simulation
@pytest.mark.parametrize("race", [race for race in RACES if "listen" not in race])
def test_f48_a_death_beside_any_commit_of_a_cancelled_run_changes_nothing(race: str) -> None:
    """Goal: the cancel, the settling and the compensation are each carried on where they stood."""
    case = Case(RACES[race], (), _cancel_at(20))
    wanted, commits = live(case)
    assert wanted.status == "cancelled"
    for other in crashes(case, commits):
        assert (other.status, other.outcome) == (wanted.status, wanted.outcome)
        assert [one for one in other.steps if "reserve" in one] == [one for one in wanted.steps if "reserve" in one]


@pytest.mark.simulation
@pytest.mark.parametrize("second", [59, 59.999999, 60, 60.000001, 61, 119, 120, 120.000001, 180, 240])
@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_f27_a_timer_never_fires_in_another_life_of_its_run(second: float, rounds: int) -> None:
    """Goal: timers that are due while the run completes, is cancelled or continues are dropped, and never fire later."""
    with World("memory:") as world:
        handle = world.start(flows.continues_while_a_timer_waits, rounds, id="the-run")
        _cancel_at(second)(world, handle)
        outcome = ended(world)
        seen(world, outcome)
        history = world.history("the-run")
        generation, fired = 1, set()
        for fact in history:
            if isinstance(fact, f.RunContinued):
                generation, fired = fact.generation, set()
            if isinstance(fact, f.TimerFired):
                assert fact.key not in fired, (generation, fact.key)
                fired.add(fact.key)
        facts = len(history)
        world.advance("1h")
        world.restart()
        world.advance("1h")
        assert len(world.history("the-run")) == facts


def test_f49_a_worker_that_ignores_its_cancel_does_not_hold_its_run() -> None:
    """Goal: the run ends at once; what the worker says later is dropped and counted."""
    with World("memory:") as world:
        handle = world.start(flows.waits_for_a_stubborn_step, id="r")
        world.advance(5)
        before = world.engine.clock.now_us()
        world.cancel(handle, "enough")
        with pytest.raises(RunCancelled, match="enough"):
            world.result(handle)
        assert world.engine.clock.now_us() - before < 1_000_000
        facts = len(world.history("r"))
        world.advance(5_000)
        assert "stubborn goes on" in DONE
        assert len(world.history("r")) == facts
        assert world.audit_all() == []


def test_f49_a_run_whose_worker_is_dead_is_cancelled() -> None:
    """Goal: a cancel that comes while nobody is there ends the run at the next start."""
    with World("memory:") as world:
        handle = world.start(flows.waits_for_a_step, id="r")
        world.advance(5)
        world.die()
        world.cancel(handle, "enough")
        with pytest.raises(RunCancelled):
            world.result(handle)
        assert world.audit_all() == []


def test_a_cancel_reaches_tasks_timers_and_children() -> None:
    """Goal: the task is told, the child is cancelled too and cleans up."""
    with World("memory:") as world:
        for flow in (flows.waits_for_a_step, flows.waits_for_a_child):
            handle = world.start(flow, id=flow.name)
            world.advance(5)
            world.cancel(handle)
            with pytest.raises(RunCancelled):
                world.result(handle)
        world.run_to_rest()
        assert "slow was told" in DONE
        assert "child tidied up" in DONE
        assert [row.status for row in world.rows()] == ["cancelled"] * 3
        assert world.audit_all() == []


@pytest.mark.simulation
def test_a_cancelled_flow_cleans_up_with_steps() -> None:
    """Goal: try/finally and asyncio.shield ask for steps while the run ends, through a death beside each commit."""
    case = Case(flows.tidies_up, (), _cancel_at(3600))
    wanted, commits = live(case)
    assert (wanted.status, wanted.outcome) == ("cancelled", "cancelled enough")
    assert DONE[:3] == ["tidied", "left", "right"]
    assert all(other == wanted for other in crashes(case, commits))


def test_a_flow_may_go_on_after_a_cancel() -> None:
    """Goal: a flow that catches the cancellation and returns has completed, as in plain asyncio."""
    case = Case(flows.goes_on_when_cancelled, (), _cancel_at(3600))
    wanted, commits = live(case)
    assert wanted.outcome == 'result "went on"'
    assert all(other == wanted for other in crashes(case, commits))


def test_a_second_cancel_changes_nothing() -> None:
    """Goal: a run that settles is not disturbed; one that has ended says so (S19)."""
    with World("memory:") as world:
        handle = world.start(flows.tidies_for_long, id="r")
        for number in range(3):
            world.advance(10)
            world.cancel(handle, f"cancel {number}")
        with pytest.raises(RunCancelled, match="cancel 0"):
            world.result(handle)
        with pytest.raises(WrongState):
            world.cancel(handle, "late")
        kinds = [type(fact) for fact in world.history("r")]
        assert kinds == [f.RunStarted, f.CancelRequested, f.TimerFired, f.StepCompleted, f.RunCancelled]
        assert world.audit_all() == []


def test_s17_a_success_that_comes_while_the_run_fails_is_refunded() -> None:
    """Goal: gather(charge, reserve): one fails, the other succeeds a second later, and is compensated (S17)."""
    for case in settling.CASES:
        DONE.clear()
        with World("memory:") as world:
            with pytest.raises((RunFailed, RunCancelled)):
                world.run(case.flow, id="r")
            assert [one for one in DONE if one.startswith("undo")] == case.undone, case.flow.name
            assert isinstance(world.history("r")[-1], f.RunFailed | f.RunCancelled)
            assert world.audit_all() == []


@pytest.mark.simulation
@pytest.mark.parametrize("number", range(6))
def test_s17_settling_survives_a_death_beside_any_commit(number: int) -> None:
    """Goal: each success is undone and recorded once, in reverse order, whenever the machine dies (F80)."""
    case = Case(settling.CASES[number].flow)
    wanted, commits = live(case)
    for other in crashes(case, commits):
        assert other.steps == wanted.steps
        assert other.status == wanted.status
