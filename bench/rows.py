"""Every row of the table, and a process of its own for each: no row sees the memory or the collector of another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict

from bench.asleep import w7
from bench.figure import Figure
from bench.flows import saturated, w1, w2, w4, w8
from bench.graphs import w3, w9
from bench.imports import w6
from bench.killed import w5
from bench.waking import waking

ROWS: dict[str, Callable[[], list[Figure]]] = {
    "w1": w1,
    "w2": w2,
    "w3": w3,
    "w4": w4,
    "w5": w5,
    "signal": waking,
    "latency": saturated,
    "w6": w6,
    "w7": w7,
    "w8": w8,
    "w9": w9,
}


def measured(name: str) -> list[Figure]:
    """A row's figures, from a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.rows", name], check=True, stdout=subprocess.PIPE)
    return [Figure(**one) for one in json.loads(done.stdout)]


if __name__ == "__main__":
    print(json.dumps([asdict(figure) for figure in ROWS[sys.argv[1]]()]))
