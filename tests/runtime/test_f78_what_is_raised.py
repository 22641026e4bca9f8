"""F78: whatever a task or a flow raises is its failure, recorded, cut to a bound, and nobody else's trouble."""

from __future__ import annotations

from typing import Literal

import pytest

import perdure
from perdure import NeedsAttention, PerdureError, RunFailed
from perdure.model import fact as f
from perdure.runtime.attempt import Attempt
from perdure.testing import World
from tests.runtime import raising as flows
from tests.runtime.raising import KINDS

# No failure is larger, as it is recorded. Units: bytes.
BODY_MAX = 200_000


def _sizes(world: World, run: str) -> list[int]:
    return [len(f.encode_fact(fact)) for fact in world.history(run)]


def test_there_are_forty_kinds() -> None:
    """Goal: the tests below look at what they should."""
    assert len(KINDS) >= 38


@pytest.mark.parametrize("where", ["loop", "thread"])
@pytest.mark.parametrize("name", KINDS)
def test_f78_what_a_task_raises_fails_its_step_alone(name: str, where: str) -> None:
    """Goal: recorded as a failure of its type with what it says, within a bound; the engine goes on, the run can be told."""
    with World("memory:", serve=[flows.goes_on]) as world:
        with pytest.raises(RunFailed) as caught:
            world.run(flows.raises, where, name, id="r")
        failure = caught.value.failure
        assert failure.type
        assert failure.step.startswith("on_loop" if where == "loop" else "in_thread")
        assert failure.attempts == 1
        assert max(_sizes(world, "r")) < BODY_MAX
        assert world.run(flows.goes_on) == 1
        world.play(world.engine.state("r"))
        assert world.audit_all() == []


@pytest.mark.parametrize("name", KINDS)
def test_f78_what_a_task_declares_comes_back_or_is_a_failure(name: str) -> None:
    """Goal: a task that declares every exception: each is rebuilt from data or is StepFailed, and never unpickled."""
    with World("memory:", serve=[flows.goes_on]) as world:
        with pytest.raises(RunFailed):
            world.run(flows.raises, "declared", name, id="r")
        world.restart()
        with pytest.raises(RunFailed):
            world.result("r")
        assert world.run(flows.goes_on) == 1
        assert max(_sizes(world, "r")) < BODY_MAX
        assert world.audit_all() == []


@pytest.mark.parametrize("name", [name for name in KINDS if "KeyboardInterrupt" not in name])
def test_f78_what_a_flow_raises_ends_its_run_alone(name: str) -> None:
    """Goal: the run fails or needs attention; the engine, and a replay of it, go on."""
    with World("memory:", serve=[flows.goes_on]) as world:
        with pytest.raises((RunFailed, NeedsAttention)):
            world.run(flows.raises_itself, name, id="r")
        assert max(_sizes(world, "r")) < BODY_MAX
        assert world.run(flows.goes_on) == 1
        world.restart()
        assert world.status("r") in {"failed", "attention"}
        assert world.audit_all() == []


def test_s25_ctrl_c_in_a_flow_ends_the_program_and_not_the_run() -> None:
    """Goal: whatever instruction it hits, the interrupt goes out, and the turn is folded again at the next start."""
    flows.CTRL_C.add("now")
    with World("memory:", serve=[flows.interrupted, flows.goes_on]) as world:
        with pytest.raises(KeyboardInterrupt):
            world.run(flows.interrupted, id="r")
        assert [row.status for row in world.rows() if row.id == "r"] in ([], ["running"])
        flows.CTRL_C.clear()
        world.restart()
        assert world.run(flows.interrupted, id="r") == 1
        assert world.run(flows.goes_on) == 1
        assert world.audit_all() == []


@pytest.mark.slow
async def test_f78_what_a_task_raises_in_a_process_ends_no_process() -> None:
    """Goal: every kind in turn through one process, which makes a good step at last."""
    async with perdure.open("memory:", workflows=[flows], processes_max=1) as engine:
        pids: set[int] = set()
        for number, name in enumerate(KINDS):
            run = await engine.start(flows.raises, "process", name, id=f"r{number}")
            with pytest.raises(RunFailed) as caught:
                await run.result("60s")
            assert caught.value.failure.step == "in_process#1", name
            pids.update(engine.node.pools.processes.pids())
        assert len(pids) == 1
        for number in range(len(KINDS)):
            try:
                assert (await engine.verify(f"r{number}")).ok
            except PerdureError as error:
                raise AssertionError(list(KINDS)[number]) from error


@pytest.mark.parametrize("threads", ["real", "simulated"])
@pytest.mark.parametrize("where", ["odd on the loop", "odd in a thread"])
def test_f78_a_failure_that_cannot_be_judged_is_still_one(where: str, threads: Literal["real", "simulated"]) -> None:
    """Goal: where asking what is to be retried raises, the attempt ends with what it was; the only thread goes on."""
    with World("memory:", threads=threads, threads_max=1, serve=[flows.goes_on, flows.goes_on_in_thread]) as world:
        with pytest.raises(RunFailed) as caught:
            world.run(flows.fails_oddly, where, id="r")
        assert caught.value.failure.type == "ValueError"
        assert caught.value.failure.attempts == 2
        assert world.run(flows.goes_on) == 1
        assert world.run(flows.goes_on_in_thread) == 1
        assert world.audit_all() == []


@pytest.mark.parametrize("threads", ["real", "simulated"])
def test_f78_a_thread_outlives_what_nobody_foresaw(
    threads: Literal["real", "simulated"], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: a fault of our own beside the task's code ends the attempt as failed and is logged; the thread goes on."""

    def broken(*_: object) -> None:
        raise KeyError("ours")

    with World("memory:", threads=threads, threads_max=1, serve=[flows.goes_on_in_thread]) as world:
        with monkeypatch.context() as patch:
            patch.setattr(Attempt, "succeed", broken)
            patch.setattr(Attempt, "fail", broken)
            with pytest.raises(RunFailed) as caught:
                world.run(flows.goes_on_in_thread, id="r")
        assert caught.value.failure.type == "KeyError"
        assert "attempt 1 of step good_in_thread#1 of run r" in caplog.text
        assert world.run(flows.goes_on_in_thread) == 1
        assert world.audit_all() == []
