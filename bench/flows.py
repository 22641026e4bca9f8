"""W1, W2, W4, W8, commits beside a saturated loop: flows."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from typing import Any

from bench import workflows as w
from bench.engine import fresh, opened
from bench.figure import Figure, median, quantile
from bench.limits import Beside, commit_seconds, rows_a_second


def w1() -> list[Figure]:
    beside = Beside(commit_seconds)
    for _ in range(5):
        beside.take(lambda: fresh(_w1))
    return [Figure("W1", "500 no-op steps in a row, a step", f"{beside.value * 1e3:.3f} ms", beside.ratio, "L", 1.5)]


async def _w1(folder: str) -> float:
    """Seconds a step."""
    async with opened(folder) as engine:
        await (await engine.start(w.in_a_row, 50)).result()
        begun = time.perf_counter()
        await (await engine.start(w.in_a_row, 500)).result()
        return (time.perf_counter() - begun) / 500


# --- many flows together -----------------------------------------------------------------------------


def w2() -> list[Figure]:
    small, sync, large = (Beside(rows_a_second) for _ in range(3))
    growth = []
    for _ in range(3):
        one = small.take(lambda: 1 / fresh(functools.partial(_w2, flow=w.in_a_row, flows=2_000)))
        sync.take(lambda: 1 / fresh(functools.partial(_w2, flow=w.sync_in_a_row, flows=2_000)))
        many = large.take(lambda: 1 / fresh(functools.partial(_w2, flow=w.in_a_row, flows=10_000)))
        growth.append(one / many)
    return [
        Figure("W2", "2,000 flows x 5 async steps", f"{small.value:,.0f} steps/s", small.ratio, "R", 0.06, most=False),
        Figure("W2", "2,000 flows x 5 sync steps", f"{sync.value:,.0f} steps/s", sync.ratio, "R", 0.05, most=False),
        Figure("W2", "10,000 flows: time a step", f"{large.value:,.0f} steps/s", median(growth), "x", 1.3),
    ]


async def _w2(folder: str, flow: Any, flows: int) -> float:
    """Seconds a step of so many flows with 5 steps, started together."""
    async with opened(folder) as engine:
        await _together(engine, flow, 200)
        return await _together(engine, flow, flows)


async def _together(engine: Any, flow: Any, flows: int) -> float:
    begun = time.perf_counter()
    handles = await asyncio.gather(*[engine.start(flow, 5) for _ in range(flows)])
    await asyncio.gather(*[handle.result() for handle in handles])
    return (time.perf_counter() - begun) / (5 * flows)


# --- latency -----------------------------------------------------------------------------------------


def w4() -> list[Figure]:
    beside = Beside(commit_seconds)
    for _ in range(3):
        beside.take(lambda: fresh(_w4))
    return [Figure("W4", "start to result, 500 times, p50", f"{beside.value * 1e3:.3f} ms", beside.ratio, "L", 3)]


async def _w4(folder: str) -> float:
    """Median seconds from start to result of a one-step flow, in turn."""
    taken = []
    async with opened(folder) as engine:
        for _ in range(520):
            begun = time.perf_counter()
            await (await engine.start(w.in_a_row, 1)).result()
            taken.append(time.perf_counter() - begun)
    return median(taken[20:])


def saturated() -> list[Figure]:
    beside, starts = Beside(commit_seconds), []
    for _ in range(3):
        p99s = fresh(_saturated)
        beside.take(lambda p99s=p99s: p99s[0])
        starts.append(p99s[1] / beside.limits[-1])
    return [
        Figure("latency", "commit beside 1,000 ready runs, p99", f"{beside.value * 1e3:.2f} ms", beside.ratio, "L", 30),
        Figure("latency", "a start acknowledged beside them, p50", "", median(starts), "L"),
    ]


async def _saturated(folder: str) -> tuple[float, float]:
    """Seconds from handing a batch to the store until it is durable, p99; and median seconds of a start beside it."""
    commits: list[float] = []
    async with opened(folder) as engine:
        commit = engine.store.commit

        def timed(batch: Any) -> Any:
            begun = time.perf_counter()
            answer = commit(batch)
            if hasattr(answer, "add_done_callback") or hasattr(answer, "__await__"):
                answer = asyncio.ensure_future(answer)
                answer.add_done_callback(lambda _: commits.append(time.perf_counter() - begun))
            else:
                commits.append(time.perf_counter() - begun)
            return answer

        engine.store.commit = timed
        crowd = await asyncio.gather(*[engine.start(w.in_a_row, 1_000_000) for _ in range(1_000)])
        await asyncio.sleep(0.5)
        commits.clear()
        starts, until = [], time.perf_counter() + 3
        while time.perf_counter() < until:
            begun = time.perf_counter()
            await engine.start(w.in_a_row, 1)
            starts.append(time.perf_counter() - begun)
        p99 = quantile(commits, 0.99)
        await asyncio.gather(*[handle.cancel() for handle in crowd])
        return p99, median(starts)


# --- one long flow -------------------------------------------------------------------------------------

LONG = 100_000


def w8() -> list[Figure]:
    first, last, replay = fresh(_w8)
    return [
        Figure(
            "W8", "100,000 steps: last 1,000 to first 1,000", f"{last * 1e6:.0f} µs a step", last / first, "x", 1.2
        ),
        Figure("W8", "replay of its history", f"{LONG / replay:,.0f} facts/s", replay, "s", 2),
    ]  # fmt: skip


async def _w8(folder: str) -> tuple[float, float, float]:
    """Median seconds of the first and of the last 1,000 steps; seconds of its replay and end in a new engine."""
    stamps: list[float] = []
    async with opened(folder) as engine:
        await (await engine.start(w.in_a_row, 2_000)).result()
        engine.node.on_commit.append(lambda work: stamps.extend([time.perf_counter()] * len(work.batch.facts)))
        await engine.start(w.long_then_wait, LONG, id="long")
        while len(stamps) <= LONG:  # noqa: ASYNC110 - not to burden each step with an event
            await asyncio.sleep(0.05)
    steps = [after - before for before, after in itertools.pairwise(stamps)]
    first, last = median(steps[:1_000]), median(steps[LONG - 1_000 : LONG])
    async with opened(folder) as engine:
        await asyncio.sleep(0.1)
        begun = time.perf_counter()
        await engine.get("long").signal("go", 7)
        assert await engine.get("long").result() == 7
        replay = time.perf_counter() - begun
    return first, last, replay
