"""W1, W2, W4, W8, latency beside a saturated loop: flows."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import perdure
from bench import workflows as w


def _open(folder: str, **settings: Any) -> Any:
    return perdure.open(f"sqlite:///{folder}/bench.db", workflows=[w], **settings)


async def w1(folder: str) -> dict[str, float]:
    """Seconds a step of one flow with 500 steps in a row."""
    async with _open(folder) as engine:
        await (await engine.start(w.in_a_row, 20)).result()
        begun = time.perf_counter()
        await (await engine.start(w.in_a_row, 500)).result()
        return {"step_s": (time.perf_counter() - begun) / 500}


async def _together(engine: Any, flow: Any, flows: int) -> float:
    """Seconds a step of so many flows with 5 steps, started together."""
    begun = time.perf_counter()
    handles = await asyncio.gather(*[engine.start(flow, 5) for _ in range(flows)])
    await asyncio.gather(*[handle.result() for handle in handles])
    return (time.perf_counter() - begun) / (5 * flows)


async def w2(folder: str) -> dict[str, float]:
    """Steps a second, async and in threads; seconds a step at 2,000 and at 10,000 flows."""
    async with _open(folder) as engine:
        await _together(engine, w.in_a_row, 200)
        small = statistics.median([await _together(engine, w.in_a_row, 2_000) for _ in range(3)])
        await _together(engine, w.sync_in_a_row, 200)
        sync = statistics.median([await _together(engine, w.sync_in_a_row, 2_000) for _ in range(3)])
        large = await _together(engine, w.in_a_row, 10_000)
        return {"async_s": small, "sync_s": sync, "large_s": large}


async def w4(folder: str) -> dict[str, float]:
    """Median seconds from start to result of a one-step flow, 500 times in turn."""
    taken = []
    async with _open(folder) as engine:
        for _ in range(500):
            begun = time.perf_counter()
            await (await engine.start(w.in_a_row, 1)).result()
            taken.append(time.perf_counter() - begun)
    return {"median_s": statistics.median(taken[20:])}


async def w8(folder: str) -> dict[str, float]:
    """One flow of 100,000 steps: seconds of its first and last 1,000; then its replay in a new engine."""
    steps, stamps = 100_000, []
    async with _open(folder) as engine:
        engine.node.on_commit.append(lambda work: stamps.append((time.perf_counter(), len(work.batch.facts))))
        handle = await engine.start(w.in_a_row, steps, id="long")
        await handle.result()
    done, times = 0, {}
    for at, facts in stamps:
        done += facts
        times[done] = at
    marks = sorted(times)

    def at(count: int) -> float:
        return times[min(mark for mark in marks if mark >= count)]

    first, last = at(1_001) - at(1), at(steps + 1) - at(steps - 999)
    async with _open(folder) as engine:
        begun = time.perf_counter()
        report = await engine.verify("long")
        replay = time.perf_counter() - begun
        assert report.ok, report.lines()
        begun = time.perf_counter()
        await engine.fork("long", steps, id="again")
        await engine.get("again").result()
        revive = time.perf_counter() - begun
    return {"first_s": first, "last_s": last, "verify_s": replay, "replay_s": revive}


async def latency(folder: str) -> dict[str, float]:
    """The p99 of a lone run's step beside 1,000 runs that are always ready."""
    taken: list[float] = []
    async with _open(folder) as engine:
        crowd = [await engine.start(w.in_a_row, 100_000) for _ in range(1_000)]
        await asyncio.sleep(0.5)
        before = engine.node.commit_times
        before.clear()
        await asyncio.sleep(3)
        taken = sorted(before)
        for handle in crowd:
            await handle.cancel()
    return {"p99_s": taken[int(len(taken) * 0.99)], "median_s": statistics.median(taken), "count": len(taken)}
