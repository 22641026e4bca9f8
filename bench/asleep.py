"""W7: 100,000 runs asleep, half on timers, half on signals."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench import workflows as w
from bench.engine import opened, peak, peak_begins
from bench.figure import Figure, median
from bench.limits import Beside, rows_a_second

RUNS = 100_000
CHUNK = 1_000
DAY_S = 86_400.0


def w7() -> list[Figure]:
    beside, grown, ready = Beside(rows_a_second), [], []
    for _ in range(2):
        with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
            made = _part("make", folder)
            beside.take(lambda made=made: RUNS / made["seconds"])
            woken = _part("wake", folder)
            grown.append(max(made["megabytes"], woken["megabytes"]))
            ready.append(woken["ready"])
    return [
        Figure("W7", "100,000 runs asleep: memory", "peak growth", max(grown), "MB", 120),
        Figure("W7", "made", f"{beside.value:,.0f} runs/s", beside.ratio, "R", 0.016, most=False),
        Figure("W7", "restart until it runs new work and wakes old", "", median(ready), "s", 1),
    ]


def _part(name: str, folder: str) -> dict[str, float]:
    """A part in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.asleep", name, folder], check=True, stdout=subprocess.PIPE
    )  # fmt: skip
    told: dict[str, float] = json.loads(done.stdout)
    return told


async def _make(folder: str) -> None:
    before = peak_begins()
    async with opened(folder) as engine:
        begun = time.perf_counter()
        for start in range(0, RUNS, CHUNK):
            await asyncio.gather(*[_one(engine, i) for i in range(start, start + CHUNK)])
        seconds = time.perf_counter() - begun
        megabytes = peak() - before
    print(json.dumps({"seconds": seconds, "megabytes": megabytes}))


async def _one(engine: Any, number: int) -> None:
    if number % 2:
        await engine.start(w.sleeper, DAY_S, id=f"run-{number}")
    else:
        await engine.start(w.listener, id=f"run-{number}")


async def _wake(folder: str) -> None:
    before, begun = peak_begins(), time.perf_counter()
    async with opened(folder) as engine:
        await (await engine.start(w.in_a_row, 1)).result()
        await engine.get("run-0").signal("go", 5)
        assert await engine.get("run-0").result() == 5
        ready = time.perf_counter() - begun
        await asyncio.sleep(2)
        megabytes = peak() - before
    print(json.dumps({"ready": ready, "megabytes": megabytes}))


if __name__ == "__main__":
    asyncio.run({"make": _make, "wake": _wake}[sys.argv[1]](sys.argv[2]))
