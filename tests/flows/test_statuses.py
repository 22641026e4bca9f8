"""What a run's status says, read from its life and its wait alone (S9, S13)."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Retry, RunFailed, task, wait_signal, workflow
from perdure.testing import World

LATER = Retry(attempts=2, first="1h", max="1h", jitter=False)
TRIES: list[str] = []


@task
async def works() -> None:
    await asyncio.sleep(3600)  # work


@task(retry=LATER)
async def fails_once() -> None:
    TRIES.append("step")
    if TRIES.count("step") == 1:
        raise ValueError("not yet")


@task(retry=LATER)
async def undo(result: None) -> None:
    TRIES.append("undo")
    if TRIES.count("undo") == 1:
        raise ValueError("not yet")


@task(compensate=undo)
async def book() -> None: ...


@workflow
async def child() -> None:
    await wait_signal("go")


@workflow
async def lives() -> None:
    await works()
    await fails_once()
    await asyncio.sleep(3600)  # durable
    await child()
    await book()
    raise RuntimeError("undo it")


def test_s13_a_run_is_running_while_a_step_is_due_or_it_settles_and_waits_otherwise() -> None:
    """Goal: one run seen in each of its states, by its row and by a query for the status, also where no engine runs."""
    TRIES.clear()
    with World("memory:", serve=[lives]) as world:
        world.start(lives, id="r")

        def seen() -> tuple[str, str, int, int, bool]:
            wait = world.row("r").wait
            return (world.status("r"), kind(), wait.open, wait.retrying, wait.settling)

        def kind() -> str:
            wait = world.row("r").wait
            return "child" if wait.children else "time" if wait.due is not None else "nothing"

        world.advance("30m")
        assert seen() == ("running", "nothing", 1, 0, False)
        world.advance("1h")
        assert seen() == ("waiting", "time", 0, 1, False)
        world.advance("1h")
        assert seen() == ("waiting", "time", 0, 0, False)
        world.advance("1h")
        assert seen() == ("waiting", "child", 0, 0, False)
        (called,) = world.row("r").wait.children
        world.signal(called, "go")
        world.advance("30m")
        assert seen() == ("running", "time", 0, 1, True)
        world.restart(kill=False)
        assert seen() == ("running", "time", 0, 1, True)
        with pytest.raises(RunFailed, match="undo it"):
            world.result("r")
        assert seen() == ("failed", "nothing", 0, 0, False)
        assert TRIES == ["step", "step", "undo", "undo"]
        assert world.audit_all() == []
