"""What random programs under a store that refuses single runs have shown, each case by itself (D3, S20, S21)."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

import perdure
from perdure.state.store import Batch, BatchRefused
from perdure.testing import FaultKind, SimulatedCrash, World
from perdure.testing.programs import book, effects, endless, perform
from tests.simulation import flows
from tests.simulation.dislikes import Dislikes


@perdure.task
async def undo_slowly(n: int, result: int) -> None:
    """A compensation that takes an hour."""
    flows.BEGUN[f"undo {n}"] += 1
    await asyncio.sleep(3600)  # durable


@perdure.task(compensate=undo_slowly)
async def take(n: int) -> int:
    return n


@perdure.workflow
async def takes_and_calls(n: int) -> int:
    return await take(n) + await flows.sleeps(60.0, 1)


@perdure.graph
def booked(n: int) -> None:
    """A booking, and a step that goes on until it is cancelled."""
    endless().after(book(n))


pytestmark = pytest.mark.simulation
# Its child fails, and so does it: another generation calls the child again.
FAILS_IN_A_CHILD = [["child", [["step", 1], ["fail", 1]]]]


@pytest.fixture(autouse=True)
def _clean() -> None:
    effects.clear()
    flows.BEGUN.clear()


@pytest.mark.parametrize("how", ["retry", "fork"])
def test_s20_the_children_of_a_revived_run_begin_in_the_commit_that_revives_it(how: str) -> None:
    """Goal: the engine dies beside the commit after the revival: no run waits for a child that was never begun."""
    with World(serve=[perform], batch_facts_max=1) as world:
        world.start(perform, FAILS_IN_A_CHILD, id="r")
        world.run_to_rest()
        assert world.status("r") == "failed"
        world.store.fail_at(world.store.commits + 2, "crash_before")
        with pytest.raises(SimulatedCrash):
            _revived(world, how)
        world.run_to_rest()
        assert len(world.rows()) == (3 if how == "retry" else 4)
        assert {row.status for row in world.rows()} == {"failed"}
        assert world.audit_all() == []


def _revived(world: World, how: str) -> None:
    world.play(world.engine.retry("r") if how == "retry" else world.engine.fork("r", 1, id="again"))
    world.run_to_rest()


def _dislike(world: World, way: str, *runs: str) -> Counter[str]:
    """Let the store refuse this of these runs. Gives what is counted: refusals."""
    dislikes = Dislikes(Random(0), Counter())
    for run in runs:
        dislikes.add(run, way)
    world.store.refuse = dislikes
    return dislikes.done


def test_d3_runs_that_are_revived_together_are_told_apart() -> None:
    """Goal: what writes beside the queue gets a batch of its own too: else both are refused together for ever."""
    with World(serve=[perform]) as world:
        _dislike(world, "ends", "bad", "good")
        for run in ("bad", "good"):
            world.start(perform, [["step", 1], ["step", 2]], id=run)
        world.run_to_rest()
        assert {row.status for row in world.rows()} == {"attention"}
        refused = _dislike(world, "all but attention", "bad")
        commits = world.store.commits
        world.play(_retried(world, "bad", "good"))
        world.run_to_rest()
        assert 1 <= refused["refused"] < 5
        assert world.store.commits - commits < 30
        assert world.status("bad") == "attention"
        assert world.result("good") == 3
        world.store.refuse = lambda _: None
        world.play(_retried(world, "bad"))
        assert world.result("bad") == 3
        assert world.audit_all() == []


async def _retried(world: World, *runs: str) -> None:
    retried = (world.engine.retry(run) for run in runs)
    await asyncio.gather(*retried, return_exceptions=True)


def test_d3_what_is_on_its_way_into_a_run_that_is_set_aside_is_kept() -> None:
    """Goal: the store refuses one of many signals, while another one was looked up and is queued: each counts, later."""
    with World(serve=[flows.hears], batch_facts_max=1) as world:
        world.start(flows.hears, 7, id="r")
        world.store.refuse = _third
        world.play(_signals(world, 7))
        world.run_to_rest()
        assert world.status("r") == "attention"
        world.store.refuse = lambda _: None
        world.play(_retried(world, "r"))
        assert sorted(world.result("r")) == [0, 1, 2, 3, 4, 5, 6]
        assert world.play(world.store.inbox(0, 10)) == []
        assert world.audit_all() == []


def _third(batch: Batch) -> None:
    if any(body.startswith(b'["signal_received"') and b'"n",3' in body for _, _, body, _ in batch.facts):
        raise BatchRefused("it dislikes the third signal")


async def _signals(world: World, count: int) -> None:
    """Signals at once, of which the first may have been said before, so that it is looked up."""
    said = (world.engine.signal("r", "n", n, request_id=None if n else "first") for n in range(count))
    await asyncio.gather(*said)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("shape", ["flow", "graph"])
def test_s19_a_run_that_is_ended_by_force_twice_undoes_twice(shape: str, kill: bool) -> None:
    """Goal: ended without its code, retried, ended so again, the engine killed meanwhile: each booking is cancelled."""
    workflow, argument = (perform, [["book", 3], ["signal", "go"]]) if shape == "flow" else (booked, 3)
    with World(serve=[workflow]) as world:
        world.start(workflow, argument, id="r")
        for time in (1, 2):
            world.run_to_rest()
            world.cancel("r", force=True)
            world.run_to_rest() if not kill else world.restart()
            world.run_to_rest()
            assert world.status("r") == "cancelled"
            done = Counter(kind for kind, _ in effects.elements())
            assert done["cancel_booking"] == done["book"] == time
            world.play(world.engine.retry("r")) if time == 1 else None
        assert world.audit_all() == []


@pytest.mark.parametrize("kind", ["unavailable", "unknown_lost", "unknown_kept"])
def test_s16_what_was_done_once_is_in_doubt_after_a_resumption_of_which_the_answer_was_lost(kind: FaultKind) -> None:
    """Goal: its outcome was refused, the run resumed, and loaded anew in an outage: the probe is asked, all the same."""
    with World(serve=[perform]) as world:
        refused = _dislike(world, "ends", "r")
        world.start(perform, [["once", 3]], id="r")
        world.run_to_rest()
        assert refused["refused"]
        assert world.status("r") == "attention"
        world.store.refuse = lambda _: None
        world.store.fail_next(kind)
        world.play(_retried(world, "r"))
        assert world.result("r") == 3
        assert len(world.store.fired) == 1
        done = Counter(kind for kind, _ in effects.elements())
        assert done == {"send_once": 2, "probe": 1}
        assert world.audit_all() == []


@pytest.mark.parametrize("kind", ["unavailable", "unknown_lost", "unknown_kept"])
def test_d3_an_outcome_of_a_run_that_is_set_aside_in_an_outage_is_kept(kind: FaultKind) -> None:
    """Goal: the commit of its attention fails: the attempt that ended is told again, and attention is tried again."""
    with World(serve=[perform]) as world:
        refused = _dislike(world, "ends", "r")
        world.store.choose = lambda _: kind if refused["refused"] and not world.store.fired else None
        world.start(perform, [["step", 3]], id="r")
        world.run_to_rest()
        assert len(world.store.fired) == 1
        assert world.status("r") == "attention"
        assert refused["refused"] == (1 if kind == "unknown_kept" else 2)
        world.store.refuse = lambda _: None
        world.play(_retried(world, "r"))
        assert world.result("r") == 3
        assert world.audit_all() == []


def test_d3_a_run_that_begins_a_child_in_the_refused_batch_is_found_at_once() -> None:
    """Goal: it is tried with all that was refused, not with what its reload writes by itself: that passed, and cleared it
    of suspicion, again and again, each time with one more intent in its history.
    """
    with World(serve=[perform]) as world:
        refused = _dislike(world, "ends", "r")
        world.start(perform, [["once", 3], ["child", [["tell", 1]]]], id="r")
        world.run_to_rest()
        assert 2 <= refused["refused"] <= 3
        assert world.store.commits < 20
        assert world.status("r") == "attention"
        assert len(world.history("r")) < 6
        assert len(world.rows()) == 1
        world.store.refuse = lambda _: None
        world.play(_retried(world, "r"))
        assert world.result("r") == 4
        assert world.audit_all() == []


def test_s19_a_forced_end_that_needs_attention_goes_on_without_the_code() -> None:
    """Goal: its compensation is refused, and a person resumes it: it does not wait for a child of which it was told."""
    with World(serve=[takes_and_calls]) as world:
        world.start(takes_and_calls, 3, id="r")
        world.advance("1s")
        refused = _dislike(world, "ends", "r")
        world.run_to_rest()
        first = refused["refused"]
        assert world.status("r") == "attention"
        world.cancel("r", force=True)
        world.run_to_rest()
        assert refused["refused"] > first > 0
        assert world.status("r") == "attention"
        world.store.refuse = lambda _: None
        world.play(_retried(world, "r"))
        world.run_to_rest()
        assert world.status("r") == "cancelled"
        assert {row.status for row in world.rows()} <= {"cancelled", "completed"}
        assert flows.BEGUN["undo 3"] == 2
        assert world.audit_all() == []
