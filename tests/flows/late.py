"""Tasks whose code goes on when their attempt is over, and flows that call them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import perdure
from perdure import Retry, StepFailed, task, workflow
from tests.flows.tasks import DONE, echo


async def _deaf(seconds: float) -> None:
    """Sleep this long, whoever says that it is enough."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0:
        try:
            await asyncio.sleep(left)  # work
        except asyncio.CancelledError:
            continue


@task(timeout="10s", retry=Retry(attempts=3, first="5s", jitter=False))
async def slow_at_first(seconds: float, fails: bool) -> str:
    """The first attempt is deaf and ends when it likes, with a result or an error; the others are quick."""
    number = perdure.attempt()
    if number == 1:
        await _deaf(seconds)
    DONE.append(f"attempt {number} ends")
    if fails and number == 1:
        raise ValueError("late trouble")
    return f"from attempt {number}"


@task(timeout="10s")
async def only_once(seconds: float) -> str:
    await _deaf(seconds)
    DONE.append("the only attempt ends")
    return "late"


@workflow
async def takes_the_second(seconds: float, fails: bool, after: float) -> list[Any]:
    found = await slow_at_first(seconds, fails)
    await asyncio.sleep(after)  # durable
    return [found, await echo("on")]


@workflow
async def takes_the_timeout(seconds: float, after: float) -> str:
    try:
        await only_once(seconds)
    except StepFailed as error:
        await asyncio.sleep(after)  # durable
        return await echo(f"{error.failure.kind} {error.failure.attempts}")
    return "in time"


GATE = threading.Event()


@task(timeout="100ms")
def stuck() -> str:
    GATE.wait(20)
    return "late"


@task
def after() -> str:
    return "after"


@workflow
async def takes_a_thread() -> list[str]:
    """The one thread is stuck in an attempt that timed out; the next step begins when it is free."""
    GATE.clear()
    try:
        await stuck()
    except StepFailed as error:
        told = f"{error.failure.kind} {error.failure.attempts}"
    GATE.set()
    return [told, await after()]
