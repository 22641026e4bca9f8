"""What is built: a wheel and a source distribution that hold what they need."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.docs.pages import ROOT


def test_the_wheel_and_the_source_hold_what_they_need(tmp_path: Path) -> None:
    """Goal: an installed perdure has its SQL and its types; the source can set itself up, and holds nothing of a run."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "perdure"
    needed = {f"perdure/{path.relative_to(package).as_posix()}" for path in package.rglob("*.sql")} | {
        "perdure/py.typed"
    }
    assert len(needed) > 3
    assert needed <= inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not [name for name in inside if not name.startswith(("perdure/", "perdure-"))]
    with tarfile.open(source) as packed:
        files = {name.partition("/")[2] for name in packed.getnames()}
    assert {"Makefile", "scripts/setup", "requirements/dev.txt", "README.md", "LICENSE", "demo/__main__.py"} <= files
    kept = [name for name in files if not name.startswith("tests/compat/")]
    assert not [name for name in kept if name.startswith("demo/out") or name.endswith((".db", ".pyc"))]
