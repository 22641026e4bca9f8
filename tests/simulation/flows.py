"""Workflows for the tests of whole machines: sleepers, waiters, steps that take long, steps that kill."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import perdure
from perdure import Retry, task, wait_signal, workflow
from perdure.testing import SimulatedCrash

# What steps did, outside of any engine; a test clears it.
BEGUN: Counter[str] = Counter()
# Runs whose step kills the engine as soon as it begins.
POISON: set[str] = set()


@workflow
async def naps(seconds: float, times: int = 1) -> list[float]:
    """Sleep so often so long; the engine's time at each waking, in seconds since it began."""
    began = perdure.now()
    woken = []
    for _ in range(times):
        await asyncio.sleep(seconds)  # durable
        woken.append((perdure.now() - began).total_seconds())
    return woken


@workflow
async def approval(days: float) -> str:
    """What came first: an answer, or the end of the days."""
    try:
        said: str = await wait_signal("approval", str, timeout=timedelta(days=days))
    except TimeoutError:
        return "too late"
    return said


@workflow
async def approved_nap(seconds: float) -> str:
    """Wait a month for an answer, then sleep."""
    said: str = await wait_signal("approval", str, timeout=timedelta(days=30))
    await asyncio.sleep(seconds)  # durable
    return said


@workflow
async def hears(count: int) -> list[int]:
    return [await wait_signal("n", int) for _ in range(count)]


@task
async def work(n: int) -> int:
    BEGUN[perdure.run_id()] += 1
    return n


@workflow
async def two_steps(n: int) -> int:
    return await work(n) + await work(n)


@task
async def deadly(n: int) -> int:
    """Kill the engine where the run is a poisonous one; else take an hour."""
    run = perdure.run_id()
    BEGUN[run] += 1
    if run in POISON:
        asyncio.get_running_loop().call_soon(_die, run)
    await asyncio.sleep(3600)  # durable
    return n


def _die(run: str) -> None:
    raise SimulatedCrash(f"{run} kills its engine")


@workflow
async def lives_dangerously(n: int) -> int:
    return await deadly(n)


@task(retry=Retry(attempts=3, first="10s", jitter=False))
async def deadly_again(n: int) -> int:
    """Fail once, and kill the engine in the second attempt."""
    run = perdure.run_id()
    BEGUN[run] += 1
    if perdure.attempt() == 1:
        raise RuntimeError("the first attempt fails")
    if run in POISON:
        asyncio.get_running_loop().call_soon(_die, run)
        await asyncio.sleep(3600)  # durable
    return n


@workflow
async def dies_in_a_retry(n: int) -> int:
    return await deadly_again(n)


@workflow
async def sleeps(seconds: float, times: int) -> int:
    """Sleep so often so long, and do nothing else."""
    for _ in range(times):
        await asyncio.sleep(seconds)  # durable
    return times


@workflow
async def naps_and_hears(seconds: float, count: int) -> list[int]:
    """Sleep, and then take one signal, so often."""
    heard = []
    for _ in range(count):
        await asyncio.sleep(seconds)  # durable
        heard.append(await wait_signal("n", int))
    return heard
