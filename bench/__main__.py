"""`python -m bench [ROW…] [--json PATH]`: measure all rows, or these; a table, and JSON."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import apsw

from bench.figure import HEAD, WIDTHS, Figure, as_json, line
from bench.limits import commit_seconds, rows_a_second
from bench.rows import ROWS, measured

JSON = Path("build/bench.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--json", type=Path, default=JSON, help=f"where the JSON goes (default {JSON})")
    asked = parser.parse_args()
    names = [name.lower() for name in asked.rows] or list(ROWS)
    unknown = set(names) - set(ROWS)
    if unknown:
        parser.error(f"no row {min(unknown)}; there are {', '.join(ROWS)}")
    begun = time.perf_counter()
    about = {
        "R rows/s": round(rows_a_second()), "L ms": round(commit_seconds() * 1e3, 3), "cores": os.cpu_count(),
        "python": platform.python_version(), "sqlite": apsw.sqlite_lib_version(),
    }  # fmt: skip
    print(
        "; ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in about.items())
    )
    print(line(HEAD), line(["-" * width for width in WIDTHS]), sep="\n")
    figures: list[Figure] = []
    failed = []
    for name in names:
        try:
            found = measured(name)
        except subprocess.CalledProcessError as error:
            print(f"{name}: failed ({error})", file=sys.stderr)
            failed.append(name)
            continue
        figures += found
        print("\n".join(line(figure.cells()) for figure in found), flush=True)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(as_json(figures, about), encoding="utf-8")
    missed = sum(figure.met is False for figure in figures)
    print(f"{len(figures)} figures, {missed} missed, in {time.perf_counter() - begun:.0f} s; as JSON in {asked.json}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
