"""How a flow ends and what it leaves: returning, settling, continuing (S17, S18, S20), and what a stop is not (S25)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import perdure
from perdure import RunCancelled, RunFailed, StepFailed, continue_as_new, task, wait_signal, workflow
from perdure.errors import WrongState
from perdure.model import fact as f
from perdure.testing import World
from tests.flows.settling import charge, undo
from tests.flows.tasks import DONE, break_down, double, echo
from tests.flows.ways import Case, crashes, live


@pytest.fixture(autouse=True)
def _nothing_done() -> Iterator[None]:
    DONE.clear()
    yield
    DONE.clear()


# --- S18: a flow that returns ---------------------------------------------------------------------


@workflow
async def returns_early() -> str:
    """A step that goes on, a task that cleans up, and a task whose own step nobody awaits."""

    async def tidies() -> None:
        try:
            await asyncio.sleep(86_400)  # durable
        finally:
            await echo("tidied up")

    left = [asyncio.create_task(tidies())]
    charge("going on", 50)
    await asyncio.sleep(0)
    return f"returned beside {len(left)}"


@workflow
async def returns_beside_a_failure() -> str:
    break_down("unawaited")
    return "returned"


@workflow
async def returns_beside_a_failure_that_it_saw() -> str:
    step = break_down("awaited")
    try:
        await step
    except StepFailed:
        return "saw it"
    return "returned"


@workflow
async def returns_beside_a_cancelled_step() -> str:
    break_down("nobody wants it").cancel()  # type: ignore[attr-defined]
    return "returned"


def test_s18_a_flow_that_returns_waits_for_its_steps_and_lets_its_tasks_clean_up() -> None:
    """Goal: its tasks are cancelled as `asyncio.run` does, what it called is recorded, and then it completes."""
    case = Case(returns_early)
    wanted, commits = live(case)
    assert wanted.outcome == 'result "returned beside 1"'
    assert wanted.steps == ('1.echo#1 "tidied up"', 'charge#1 "got going on"')
    assert not [one for one in DONE if one.startswith("undo")]
    assert all(other == wanted for other in crashes(case, commits))


def test_s18_a_failure_that_nobody_awaited_fails_the_run() -> None:
    """Goal: no failure is lost since nobody looked; one that was awaited, or given up, is no news."""
    with World("memory:") as world:
        with pytest.raises(RunFailed, match="unawaited"):
            world.run(returns_beside_a_failure)
        assert world.run(returns_beside_a_failure_that_it_saw) == "saw it"
        assert world.run(returns_beside_a_cancelled_step) == "returned"
        assert world.audit_all() == []


# --- S17, S20: continuing -------------------------------------------------------------------------


@workflow
async def continues_beside_a_charge(left: int, fails: bool) -> str:
    """The charge is given up by the end of the first generation, and has begun."""
    if left:
        charge("over generations", 100)
        unwanted = asyncio.ensure_future(plain_wait(1000))
        await double(1)
        assert not unwanted.done()
        continue_as_new(left - 1, fails)
    if fails:
        await break_down("later")
    return "went well"


@task
async def plain_wait(seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)  # work
    except asyncio.CancelledError:
        DONE.append("plain was told")
        raise


def test_s17_a_generation_settles_before_the_next_begins() -> None:
    """Goal: what may have begun and can be undone is carried to its outcome, the rest is cancelled; then it continues."""
    with World("memory:") as world:
        assert world.run(continues_beside_a_charge, 1, False, id="r") == "went well"
        kinds = [type(fact) for fact in world.history("r")]
        assert kinds == [f.RunStarted, f.StepCompleted, f.StepCompleted, f.RunContinued, f.RunCompleted]
        assert DONE == ["plain was told"]
        assert world.audit_all() == []


def test_s20_what_is_owed_goes_over_to_the_next_generation() -> None:
    """Goal: a later generation that fails undoes what the earlier one did, once, whatever commit the machine dies beside."""
    case = Case(continues_beside_a_charge, (1, True))
    wanted, commits = live(case)
    assert wanted.status == "failed"
    assert [one for one in wanted.steps if one.startswith("undo")] == ["undo:charge#1@1 null"]
    assert DONE.count("undo over generations got over generations") == 1
    for other in crashes(case, commits):
        assert (other.status, other.steps) == (wanted.status, wanted.steps)


@workflow
async def child_of_generations(left: int) -> str:
    note = await wait_signal("note", str)
    await says_its_key(f"{left} {note}")
    if left:
        continue_as_new(left - 1)
    return "the child's third"


@task
async def says_its_key(text: str) -> None:
    DONE.append(f"{text} {perdure.idempotency_key().rpartition(':')[0]}")


@workflow
async def parent_of_generations() -> str:
    return await child_of_generations(2)


def test_s20_one_id_through_all_generations() -> None:
    """Goal: the parent hears of the child's last generation; keys hold the generation; request ids outlive it."""
    with World("memory:") as world:
        world.start(parent_of_generations, id="p")
        world.run_to_rest()
        child = world.row("p").wait.children[0]
        for number in range(3):
            for _ in range(2):  # said again in the next generation, it is still known
                world.signal(child, "note", f"n{number}", request_id=f"q{number}")
            world.signal(child, "note", f"n{number}", request_id="q0")
            world.run_to_rest()
        assert world.result("p") == "the child's third"
        row = world.row(child)
        assert (row.generation, row.parent, row.status) == (3, "p", "completed")
        expected = [f"2 n0 {child}:1", f"1 n1 {child}:2", f"0 n2 {child}:3"]
        assert expected == DONE
        seqs = [entry.seq for entry in world.play(world.engine.state(child)).history]
        assert seqs == list(range(1, row.seq + 1))
        assert world.audit_all() == []


# --- S25: a stop cancels nothing ------------------------------------------------------------------


@task
async def minds_its_cancel(seconds: float) -> str:
    DONE.append(f"attempt {perdure.attempt()}")
    try:
        await asyncio.sleep(seconds)  # work
    except asyncio.CancelledError:
        DONE.append("told")
        return "what a cancelled attempt says"
    return "done"


@workflow
async def steps_beside_a_cleanup(seconds: float) -> str:
    try:
        return await minds_its_cancel(seconds)
    except asyncio.CancelledError:
        DONE.append("the flow was told")
        raise


def test_s25_a_stop_leaves_attempts_without_a_fact() -> None:
    """Goal: whatever CancelledError passes through at a stop, nothing is recorded, and the attempt is made again."""
    with World("memory:", stop_grace_s=1) as world:
        world.start(steps_beside_a_cleanup, 100, id="r")
        world.advance(10)
        world.restart(kill=False)
        assert DONE == ["attempt 1", "told"]
        assert [type(fact) for fact in world.history("r")] == [f.RunStarted]
        assert world.result("r") == "done"
        assert DONE == ["attempt 1", "told", "attempt 1"]
        kinds = [type(fact) for fact in world.history("r")]
        assert kinds == [f.RunStarted, f.StepCompleted, f.RunCompleted], "a clean stop is no crash"
        assert world.audit_all() == []


def test_s25_what_ends_within_the_grace_is_recorded() -> None:
    """Goal: an attempt that ends while the engine stops counts, and no new one begins."""
    with World("memory:", stop_grace_s=30) as world:
        world.start(two_steps, 20, id="r")
        world.advance(10)
        world.restart(kill=False)
        assert DONE == ["attempt 1"]
        assert [type(fact) for fact in world.history("r")] == [f.RunStarted, f.StepCompleted]
        assert world.result("r") == "done"
        assert DONE == ["attempt 1", "attempt 1"]
        assert world.audit_all() == []


@workflow
async def two_steps(seconds: float) -> str:
    await minds_its_cancel(seconds)
    return await minds_its_cancel(seconds)


def test_s25_a_stop_beside_a_cancel_that_settles_goes_on_settling() -> None:
    """Goal: a run that settles when the engine stops is settled by the next, and undone in reverse order."""
    with World("memory:", stop_grace_s=1) as world:
        world.start(pays_twice, id="r")
        world.advance(20)
        world.cancel("r", "enough")
        world.advance(1)
        world.restart(kill=False)
        assert not [one for one in DONE if one.startswith("undo")]
        with pytest.raises(WrongState, match="has not ended"):
            world.play(world.engine.retry("r"))
        with pytest.raises(RunCancelled, match="enough"):
            world.result("r")
        assert [one for one in DONE if one.startswith("undo")] == ["undo b got b", "undo a got a"]
        assert world.audit_all() == []


@workflow
async def pays_twice() -> None:
    await charge("a", 1)
    await charge("b", 1000)
    await undo.fn("never", 0, None)
