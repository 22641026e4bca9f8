"""The programs and sessions on the pages run as printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks, commands, matches, name_of, pages

WITH_FILES = [page for page in pages() if any(block.file for block in blocks(page))]
DEADLINE_S = 60


def environment() -> dict[str, str]:
    """No settings of the caller's, no colours, and `python` and `perdure` are those that run this test."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100", "NO_COLOR": "1"}


def printed(command: list[str] | str, folder: Path, *, errors: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), shell=isinstance(command, str), text=True, timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if errors else subprocess.PIPE,
        check=False,
    )  # fmt: skip


def run_program(block: Block, folder: Path, said: str | None) -> str | None:
    """What is wrong with a program; None: nothing."""
    assert block.file
    virtual = [str(Path(__file__).with_name("virtual.py"))] if "virtual" in block.flags else []
    ran = printed([sys.executable, *virtual, block.file], folder, errors=False)
    if ran.returncode:
        return f"{block}: {block.file} ended with {ran.returncode}:\n{ran.stderr}"
    if said is not None and not matches(said, ran.stdout):
        return f"{block}: {block.file} printed\n{ran.stdout}\ninstead of\n{said}"
    return None


def run_session(block: Block, folder: Path) -> str | None:
    """What is wrong with a console session; None: nothing."""
    for command in commands(block):
        ran = printed(command.line, folder, errors=True)
        if not matches(command.printed, ran.stdout):
            return f"{block}: $ {command.line}\nprinted\n{ran.stdout}\ninstead of\n{command.printed}"
    return None


def wrongs(page: Path, folder: Path) -> list[str]:
    """Make the files of a page, and do in order what it shows."""
    found = list(blocks(page))
    spoken = "\n".join(command.line for block in found if block.language == "console" for command in commands(block))
    wrong: list[str | None] = []
    for number, block in enumerate(found):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        if block.language == "python" and block.file and block.file not in spoken:
            after = found[number + 1] if number + 1 < len(found) else None
            said = after.text if after is not None and after.language == "text" else None
            wrong.append(run_program(block, folder, said))
        elif block.language == "console" and "shown" not in block.flags:
            wrong.append(run_session(block, folder))
    return [one for one in wrong if one]


@pytest.mark.parametrize("page", WITH_FILES, ids=name_of)
def test_what_a_page_shows_happens(page: Path, tmp_path: Path) -> None:
    """Goal: every whole program on a page runs, and every session prints what the page says."""
    assert not (wrong := wrongs(page, tmp_path)), "\n\n".join(wrong)


def test_every_python_block_is_python() -> None:
    """Goal: a piece of a program is at least well formed, though only whole ones are run."""
    for page in pages():
        for block in blocks(page):
            if block.language == "python":
                compile(block.text, str(block), "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT


def test_a_page_that_lies_is_found_out(tmp_path: Path) -> None:
    """Goal: the tests above see a program that fails, and one that prints something else."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n# a.py\nprint('one')\n```\n```text\ntwo\n```\n"
        "```python\n# b.py\nraise SystemExit(3)\n```\n"
        "```console\n$ echo three\nfour\n```\n",
        encoding="utf-8",
    )
    assert len(wrongs(page, tmp_path)) == 3
