"""W5: SIGKILL in the middle of W2 with 10,000 runs, and what the next engine does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import perdure
from bench import workflows as w
from bench.engine import opened
from bench.figure import Figure, median

FLOWS, STEPS = 10_000, 5


def w5() -> list[Figure]:
    told = [_once() for _ in range(2)]
    again = max((one["again"] for one in told), key=lambda pair: pair[0] - pair[1])
    return [
        Figure("W5", "restart to first new step", f"{median(t['all'] for t in told):.1f} s to finish all",
               median(t["first"] for t in told), "s", 0.3),
        Figure("W5", "runs lost", f"of {FLOWS:,}", sum(t["lost"] for t in told), "", 0),
        Figure("W5", "steps made twice, beyond those in flight", f"{again[0]:,} twice, {again[1]:,} in flight",
               max(0, again[0] - again[1]), "", 0),
    ]  # fmt: skip


def _once() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        marks = Path(folder) / "marks"
        marks.touch()
        engine = subprocess.Popen([sys.executable, "-m", "bench.killed", "begin", folder])
        while marks.stat().st_size < FLOWS * STEPS // 2 and engine.poll() is None:
            time.sleep(0.005)
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait()
        made = marks.stat().st_size
        kept = asyncio.run(_kept(folder))
        told: dict[str, Any] = json.loads(
            subprocess.run(
                [sys.executable, "-m", "bench.killed", "again", folder], check=True, stdout=subprocess.PIPE
            ).stdout
        )
        told["again"] = (marks.stat().st_size - FLOWS * STEPS, made - kept)
        return told


async def _kept(folder: str) -> int:
    """How many steps are recorded: all facts but the start, and the end of those that ended."""
    async with perdure.connect(f"sqlite:///{folder}/bench.db") as client:
        return sum([row.seq - 1 - row.life.ended async for row in client.runs(limit=None) if row.seq])


async def _begin(folder: str) -> None:
    async with opened(folder) as engine:
        path = f"{folder}/marks"
        await asyncio.gather(*[engine.start(w.witnessed, path, id=f"run-{i}") for i in range(FLOWS)])
        await asyncio.sleep(600)


async def _again(folder: str) -> None:
    """Seconds from opening the store until a new step is durable, and until all runs have ended."""
    first: list[float] = []
    made = asyncio.Event()
    begun = time.perf_counter()
    async with opened(folder) as engine:

        def committed(work: Any) -> None:
            if work.attempts and not first:
                first.append(time.perf_counter() - begun)
                made.set()

        engine.node.on_commit.append(committed)
        await made.wait()  # what is asked of it later shall not stand in its way
        waiting = [engine.get(f"run-{i}").result() for i in range(FLOWS)]
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        told = {
            "first": first[0],
            "all": time.perf_counter() - begun,
            "lost": sum(1 for one in ended if one is not None),
        }
        sample = [await engine.verify(f"run-{i}") for i in range(0, FLOWS, FLOWS // 50)]
        assert all(report.ok for report in sample), sample
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run({"begin": _begin, "again": _again}[sys.argv[1]](sys.argv[2]))
