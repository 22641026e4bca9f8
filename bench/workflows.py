"""The workflows that are measured: steps that do nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import perdure

FAN = 10_000
CHAIN = 10_000
LAYERS = WIDTH = 100


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


@perdure.task
async def stamp() -> float:
    """When this step was begun, on the clock that all processes share."""
    return time.monotonic()


@perdure.task
async def mark(path: str) -> None:
    """One byte more in a file that outlives a kill: how often steps were made."""
    with open(path, "ab", buffering=0) as file:  # noqa: ASYNC230, PTH123 - a write of one byte, to be seen after SIGKILL
        file.write(b"x")


@perdure.workflow
async def in_a_row(steps: int) -> None:
    for _ in range(steps):
        await noop()


@perdure.workflow
async def sync_in_a_row(steps: int) -> None:
    for _ in range(steps):
        await sync_noop()


@perdure.workflow
async def long_then_wait(steps: int) -> int:
    for _ in range(steps):
        await noop()
    value: int = await perdure.wait_signal("go", int)
    return value


@perdure.workflow
async def fan(width: int) -> int:
    return sum(await asyncio.gather(*[item(i) for i in range(width)]))


@perdure.workflow
async def sleeper(seconds: float) -> None:
    await asyncio.sleep(seconds)


@perdure.workflow
async def listener() -> int:
    value: int = await perdure.wait_signal("go", int)
    await noop()
    return value


@perdure.workflow
async def chatter(times: int) -> list[float]:
    """For each signal one step; when these were begun."""
    begun = []
    for _ in range(times):
        await perdure.wait_signal("say", int)
        begun.append(await stamp())
    return begun


@perdure.workflow
async def witnessed(path: str) -> None:
    for _ in range(5):
        await mark(path)


def fan_graph() -> Any:
    """10,000 no-op tasks, each a node of its own, gathered by one more."""

    @perdure.graph(name="fan_graph")
    def made() -> Any:
        return total([item(i) for i in range(FAN)])

    return made


def chain(length: int) -> Any:
    """Each node takes the result of the one before."""

    @perdure.graph(name=f"chain_{length}")
    def made() -> Any:
        last: Any = 0
        for _ in range(length):
            last = item(last)
        return last

    return made


def layers(count: int, width: int) -> Any:
    """Layers of no-op tasks, each task behind all of the layer before."""

    @perdure.graph(name=f"layers_{count}_{width}")
    def made() -> Any:
        before: list[Any] = []
        for _ in range(count):
            before = [noop().after(*before) if before else noop() for _ in range(width)]

    return made
