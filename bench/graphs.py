"""W3 and W9: wide, deep and dense graphs, and the same width in a flow."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import workflows as w
from bench.engine import fresh, opened, peak, peak_begins
from bench.figure import Figure, median
from bench.limits import Beside, rows_a_second


def w3() -> list[Figure]:
    rates = {name: Beside(rows_a_second) for name in W3}
    grown: dict[str, list[float]] = {name: [] for name in W3}
    for _ in range(3):
        for name, beside in rates.items():
            # In a process of its own: what an earlier part left free would hide how much this one takes.
            done = subprocess.run(
                [sys.executable, "-m", "bench.graphs", name], check=True, stdout=subprocess.PIPE
            )  # fmt: skip
            seconds, megabytes = json.loads(done.stdout)
            beside.take(lambda seconds=seconds: w.FAN / seconds)
            grown[name].append(megabytes)
    return [
        figure
        for name, beside in rates.items()
        for figure in (
            Figure(
                "W3", f"{w.FAN:,} tasks in {name}", f"{beside.value:,.0f} tasks/s", beside.ratio, "R", 0.12, most=False
            ),
            Figure("W3", f"memory of {name}", "peak growth", max(grown[name]), "MB", 100),
        )
    ]  # fmt: skip


W3: dict[str, Callable[[], Any]] = {"a graph": w.fan_graph, "a flow with gather": lambda: None}


async def _w3(folder: str, made: Any) -> tuple[float, float]:
    """Seconds from start to result, and by how many MB the process grew at most."""
    async with opened(folder, *([made] if made is not None else [])) as engine:
        await (await engine.start(w.fan, 50)).result()
        before = peak_begins()
        begun = time.perf_counter()
        handle = await (engine.start(made) if made is not None else engine.start(w.fan, w.FAN))
        assert await handle.result() == sum(range(w.FAN))
        taken = time.perf_counter() - begun
        return taken, peak() - before


def w9() -> list[Figure]:
    short, long = w.chain(w.CHAIN // 10), w.chain(w.CHAIN)
    begun = time.perf_counter()
    dense = w.layers(w.LAYERS, w.WIDTH)
    defined = time.perf_counter() - begun
    growth, chained = [], []
    for _ in range(2):
        one, ten = (fresh(functools.partial(_run, made=graph)) for graph in (short, long))
        growth.append(ten / (10 * one))
        chained.append(ten)
    taken = median([fresh(functools.partial(_run, made=dense)) for _ in range(3)])
    edges = (w.LAYERS - 1) * w.WIDTH**2
    return [
        Figure("W9", "chain of 10,000: an edge, against 1,000", f"{median(chained):.2f} s", median(growth), "x", 1.5),
        Figure("W9", f"100 x 100 layers, {edges:,} edges", f"{edges / taken:,.0f} edges/s", taken, "s", 5),
        Figure("W9", "tracing its definition", f"{edges / defined:,.0f} edges/s", defined, "s"),
    ]  # fmt: skip


async def _run(folder: str, made: Any) -> float:
    """Seconds from start to result."""
    async with opened(folder, made) as engine:
        await (await engine.start(w.fan, 50)).result()
        begun = time.perf_counter()
        await (await engine.start(made)).result()
        await asyncio.sleep(0)
        return time.perf_counter() - begun


if __name__ == "__main__":
    print(json.dumps(fresh(functools.partial(_w3, made=W3[sys.argv[1]]()))))
