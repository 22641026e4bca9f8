"""Runs with a step of every kind, for stores whose disk fails; what their code did is counted in this process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import perdure
from perdure import task, wait_signal, workflow

# How often the code of each step was begun: (run, step, argument).
made: Counter[tuple[str, str, int]] = Counter()
gate = threading.Event()
# The signals that a flow's code has gone on from.
heard: list[int] = []


def fresh() -> None:
    """Forget what was made."""
    made.clear()
    heard.clear()
    gate.clear()


@task
async def look(number: int) -> int:
    made[perdure.run_id(), "look", number] += 1
    return number * 2


@task
def slow(number: int) -> int:
    """Under way until the last step of all has begun."""
    made[perdure.run_id(), "slow", number] += 1
    assert gate.wait(60)
    return number


@task
def add(left: int, right: int) -> int:
    made[perdure.run_id(), "add", left + right] += 1
    gate.set()
    return left + right


@workflow
async def inner(number: int) -> str:
    """Its result is a blob, where `blob_min` is small."""
    return "x" * 5_000 if await look(number) else ""


@workflow
async def mixed(count: int) -> dict[str, int]:
    """Steps side by side, a timer, a signal, a child, a thread."""
    beside = slow(count)
    one, two = await asyncio.gather(look(count), look(count + 1))
    await asyncio.sleep(0.001)  # durable
    go = await wait_signal("go", int)
    text = await inner(5)
    return {"sum": await add(one, two), "go": go, "length": len(text), "slow": await beside}


@workflow
async def waits(number: int) -> int:
    """A step, a wait, and a step."""
    before = await look(number)
    return await look(before + await wait_signal("go", int))


@workflow
async def hears(count: int) -> list[int]:
    values = []
    for _ in range(count):
        values.append(await wait_signal("go", int))
        heard.append(values[-1])
    return values


RESULT = {"sum": 14, "go": 7, "length": 5_000, "slow": 3}
# A small bound, so that the child's result is a blob in few pages; quick looks, so that a test takes no time.
SETTINGS = {"blob_min": 2_000, "sweep_every_s": 0.05}
