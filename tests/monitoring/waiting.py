"""Workflows that wait, each for another thing."""

from __future__ import annotations

import asyncio

import perdure
from perdure import Retry, task, wait_signal, workflow


@task
async def long(seconds: float) -> float:
    perdure.heartbeat({"done": "half"})
    await asyncio.sleep(seconds)  # work
    return seconds


@task(concurrency=1)
async def narrow(seconds: float) -> float:
    await asyncio.sleep(seconds)  # work
    return seconds


@task(retry=Retry(attempts=5, first="1h", max="1h", jitter=False))
async def flaky() -> None:
    raise ConnectionError("the bank is away")


@task
async def undo(result: int) -> None:
    await asyncio.sleep(60)  # work


@task(compensate=undo)
async def book() -> int:
    return 1


@task(at_most_once=True)
async def once() -> None:
    raise ConnectionError("no answer")


@workflow
async def asks() -> int:
    return await wait_signal("answer", int)


@workflow
async def sleeps() -> None:
    await asyncio.sleep(3600)  # durable


@workflow
async def works() -> float:
    return await long(60)


@workflow
async def squeezes() -> float:
    return await narrow(60)


@workflow
async def retries() -> None:
    await asyncio.gather(flaky(), asyncio.sleep(7200))  # durable


@workflow
async def many() -> None:
    await asyncio.gather(long(30), long(40), flaky(), wait_signal("go", int), asyncio.sleep(600))  # durable


@workflow
async def parent() -> int:
    return await middle()


@workflow
async def middle() -> int:
    return await asks()


@workflow
async def booked() -> None:
    await book()
    await wait_signal("never", int)


@workflow
async def unsure() -> None:
    await once()


@workflow
async def good() -> int:
    return 1


@workflow
async def nested(depth: int) -> int:
    if depth:
        return await nested(depth - 1)
    return await wait_signal("answer", int)


@workflow
async def wide(count: int) -> None:
    await asyncio.gather(*(asks() for _ in range(count)))


ALL = [asks, sleeps, works, squeezes, retries, many, parent, middle, booked, unsure, good, nested, wide]
