"""The workflows that are measured: steps that do nothing."""

from __future__ import annotations

import asyncio

import perdure


@perdure.task
async def noop() -> None:
    """Nothing, on the loop."""


@perdure.task
def sync_noop() -> None:
    """Nothing, in a thread."""


@perdure.task
async def item(number: int) -> int:
    return number


@perdure.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@perdure.workflow
async def in_a_row(steps: int) -> None:
    for _ in range(steps):
        await noop()


@perdure.workflow
async def sync_in_a_row(steps: int) -> None:
    for _ in range(steps):
        await sync_noop()


@perdure.workflow
async def fan(width: int) -> int:
    return sum(await asyncio.gather(*[item(i) for i in range(width)]))


@perdure.workflow
async def sleeper(seconds: float) -> None:
    await asyncio.sleep(seconds)


@perdure.workflow
async def listener() -> int:
    value = await perdure.wait_signal("go", int)
    await noop()
    return value


@perdure.workflow
async def chatter() -> int:
    count = 0
    while await perdure.wait_signal("say", int) >= 0:
        await noop()
        count += 1
    return count


@perdure.workflow
async def witnessed(path: str) -> None:
    for _ in range(5):
        await mark(path)


@perdure.task
async def mark(path: str) -> None:
    """One byte more in a file that outlives a kill: how often steps were made."""
    with open(path, "ab", buffering=0) as file:  # noqa: ASYNC230, PTH123 - a write of one byte, to be seen after SIGKILL
        file.write(b"x")
