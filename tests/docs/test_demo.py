"""The main job, as `make demo` does it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_programs import environment

RUNS = {
    "words": "completed",
    "order-a1": "completed",
    "order-b2": "failed",
    "sky": "completed",
    "sky-killed": "completed",
}


@pytest.mark.crash
@pytest.mark.slow
def test_the_main_job_ends_well_and_says_so(tmp_path: Path) -> None:
    """Goal: all four parts work in real processes, each run is verified, and the killed one kept what it had."""
    ran = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=ROOT, env={**environment(), "DEMO_OUT": str(tmp_path / "out")},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = {
        line.split()[0]: line.split() for line in ran.stdout.splitlines() if re.match(r"[\w-]+ +(?:compl|fail)", line)
    }
    assert {run: row[1] for run, row in rows.items()} == RUNS
    assert all(row[-1] == "yes" for row in rows.values())
    assert 50 <= int(rows["sky-killed"][3]) < 104


def test_the_main_job_fails_when_something_is_not_as_it_must_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Goal: a part that goes wrong is named, the exit code says so, and no process is left."""
    code = (
        "import demo.__main__ as main, demo.process as process\n"
        "def broken():\n"
        "    main.begin_order('order-a1', 250_000)\n"
        "    process.expect(False, 'the sky is green')\n"
        "    yield\n"
        "main.PARTS = (broken,)\n"
        "code = main.main()\n"
        "assert all(one.poll() is not None for one in process._begun) and process._begun\n"
        "raise SystemExit(code)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**environment(), "DEMO_OUT": str(tmp_path / "out")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "the sky is green" in ran.stdout
