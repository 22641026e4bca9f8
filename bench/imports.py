"""W6: what `import perdure` costs, in time and in distributions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import requires

from bench.figure import Figure, median

TIMED = "import time; begun = time.perf_counter(); import perdure; print(time.perf_counter() - begun)"


def w6() -> list[Figure]:
    taken = [_timed() for _ in range(11)][1:]
    core = distributions("perdure", set())
    return [
        Figure("W6", "import perdure", f"best {min(taken) * 1e3:.0f} ms", median(taken) * 1e3, "ms", 120),
        Figure("W6", "core distributions", ", ".join(sorted(core)), len(core), "", 6),
    ]


def _timed() -> float:
    """Seconds, in a process of its own, with byte code kept as every installation keeps it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", TIMED], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )  # fmt: skip
    return float(done.stdout)


def distributions(name: str, found: set[str]) -> set[str]:
    """What a plain install brings along, without extras."""
    for text in requires(name) or []:
        needed = re.match(r"[\w.-]+", text)
        if needed and "extra ==" not in text and "platform_system" not in text and needed[0] not in found:
            found.add(needed[0])
            distributions(needed[0], found)
    return found
