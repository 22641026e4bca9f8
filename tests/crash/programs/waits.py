"""Runs that wait for a signal between two witnessed steps."""

from __future__ import annotations

import perdure
from perdure import task, wait_signal, workflow
from tests.crash.witness import note


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
