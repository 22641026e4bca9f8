"""Runs that wait for a signal between two witnessed steps."""

from __future__ import annotations

import threading

import perdure
from perdure import task, wait_signal, workflow
from tests.crash.witness import folder, note


@task
async def mark(what: str, number: int) -> int:
    note("marks", perdure.run_id(), what, number)
    return number


@workflow
async def waits(number: int) -> int:
    await mark("before", number)
    added = await wait_signal("go", int)
    return await mark("after", number + added)


@workflow
async def busy(number: int) -> int:
    return await mark("busy", number)


@workflow
async def counts(number: int) -> list[int]:
    """The values of so many signals, in the order in which they came."""
    return [await wait_signal("go", int) for _ in range(number)]


@task
def stubborn(number: int) -> int:
    """A thread cannot be stopped: it goes on until the test lets it, whatever became of its run."""
    note("marks", perdure.run_id(), "stubborn", number)
    gate = folder() / "gate"
    while not gate.exists():
        threading.Event().wait(0.01)
    note("marks", perdure.run_id(), "freed", number)
    return number


@workflow
async def ignores(number: int) -> int:
    return await stubborn(number)
