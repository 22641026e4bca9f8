"""Where dead engines lie: what was in their memory must not act any more, not even while it is thrown away."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.errors import StoreLost
from perdure.runtime.engine import Engine
from perdure.testing.loop import VirtualLoop

# Coroutines of attempts that were in flight. Closing one would run its task's `finally`, which SIGKILL does not do.
_graves: list[Any] = []


def bury(loop: VirtualLoop, engine: Engine | None) -> None:
    """End a loop without letting user code on it run, and let go of what lies outside of it (threads, sockets)."""
    loop.set_exception_handler(lambda *_: None)
    in_flight = _silence(engine) if engine is not None else set()
    tasks = asyncio.all_tasks(loop)
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        if task in in_flight:
            _graves.append(task)
        else:
            _close(task.get_coro())


def _silence(engine: Engine) -> set[asyncio.Task[None]]:
    """Stop threads and processes, let go of flows. Gives the tasks in which attempts are under way."""
    node = engine.node
    node.lost = node.lost or StoreLost("this engine is dead")
    node.watchdog.stop()
    attempts = list(node.pools.running.values())
    for attempt in attempts:
        attempt.left = True
    node.pools.stopping = True
    node.pools.threads.stop()
    node.pools.processes.stop()
    for run in list(node.advance.runs.values()):
        run.decider.drop()
    engine.loader.drop()
    return {attempt.task for attempt in attempts if attempt.task is not None}


def _close(coro: Any) -> None:
    """Close a coroutine of the engine; what it does then reaches nobody."""
    try:
        coro.close()
    except BaseException:  # noqa: BLE001 - its loop is closed: whatever it tries fails, and is meant to
        return
