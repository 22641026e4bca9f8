"""F81: a result that comes after its attempt's timeout, or after another attempt's success, changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from perdure.model import fact as f
from perdure.testing import World
from tests.flows import late as flows
from tests.flows.tasks import DONE
from tests.flows.ways import Case, crashes, live


@pytest.fixture(autouse=True)
def _nothing_done() -> Iterator[None]:
    DONE.clear()
    yield
    DONE.clear()


# The first attempt times out at 10 s, the second is made at 15 s; the first one's code ends at this second.
BEFORE_THE_RETRY, WITH_THE_RETRY, AFTER_THE_RETRY, AFTER_THE_RUN = 12, 15, 20, 500


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("second", [BEFORE_THE_RETRY, WITH_THE_RETRY, AFTER_THE_RETRY, AFTER_THE_RUN])
def test_f81_the_first_recorded_outcome_wins(second: float, fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: whenever the timed-out attempt ends, with a result or an error: dropped, counted, told in the log, once."""
    with caplog.at_level(logging.INFO, "perdure.pools"), World("memory:") as world:
        assert world.run(flows.takes_the_second, second, fails, 100, id="r") == ["from attempt 2", "on"]
        world.advance("1h")
        assert "attempt 1 ends" in DONE
        outcomes = [fact for fact in world.history("r") if isinstance(fact, f.StepCompleted | f.AttemptFailed)]
        assert [(type(one), one.attempt) for one in outcomes if one.key == "slow_at_first#1"] == [
            (f.AttemptFailed, 1),
            (f.StepCompleted, 2),
        ]
        assert world.engine.node.pools.late == 1
        assert "late, and dropped: attempt 1 of step slow_at_first#1 of run r" in caplog.text
        assert world.audit_all() == []


@pytest.mark.parametrize("second", [10.000001, 11, 60, 60.000001, 500])
def test_f81_a_result_after_the_last_timeout_is_dropped(second: float) -> None:
    """Goal: a step that has failed for good stays failed, whether its run still goes on or has ended."""
    with World("memory:") as world:
        assert world.run(flows.takes_the_timeout, second, 50, id="r") == "timeout 1"
        facts = len(world.history("r"))
        world.advance("1h")
        assert "the only attempt ends" in DONE
        assert (len(world.history("r")), world.engine.node.pools.late) == (facts, 1)
        assert world.audit_all() == []


@pytest.mark.simulation
def test_f81_a_death_beside_any_commit_lets_no_late_result_in() -> None:
    """Goal: an attempt of a dead engine, and one that timed out before it, leave one outcome each way."""
    case = Case(flows.takes_the_second, (20, False, 100))
    wanted, commits = live(case)
    assert wanted.outcome == 'result ["from attempt 2","on"]'
    for other in crashes(case, commits):
        # A first attempt that is made again once the engine is back is the first attempt again.
        assert (other.status, other.outcome) == (wanted.status, wanted.outcome)


def test_f81_a_result_for_a_step_that_a_person_has_resolved_is_dropped() -> None:
    """Goal: what a person said of a step stands, though its attempt ends later."""
    with World("memory:") as world:
        world.start(flows.takes_the_second, 8, False, 1, id="r")
        world.advance(3)
        world.play(world.engine.resolve("r", "slow_at_first#1", "result", "by hand"))
        assert world.result("r") == ["by hand", "on"]
        world.advance("1h")
        assert sorted(DONE) == ["attempt 1 ends", "on"]
        assert world.engine.node.pools.late == 1
        assert world.audit_all() == []


@pytest.mark.slow
def test_f81_a_thread_that_ends_late_is_dropped_and_frees_its_place() -> None:
    """Goal: a thread cannot be stopped: its place is taken until it ends, and what it says then is of no account."""
    with World("memory:", threads="real", threads_max=1) as world:
        assert world.run(flows.takes_a_thread, id="r") == ["timeout 1", "after"]
        assert world.engine.node.pools.late == 1
        assert world.audit_all() == []
