"""On a terminal: colours, live progress, and a result that stays clean where it is piped on."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import LIMIT_S, Program

pytestmark = [pytest.mark.slow, pytest.mark.crash]

# Called with all that was seen so far, after each part.
Look = Callable[[str, "subprocess.Popen[bytes]"], None]
Terminal = Callable[..., tuple[int, str, str]]


@pytest.fixture
def terminal() -> Terminal:
    """Run `python ARGS` on a terminal: exit code, what the terminal saw, what went to a pipe as stdout."""

    def run(*args: str, piped: bool = False, look: Look | None = None, **env: str) -> tuple[int, str, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if piped else theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40", **env},
        )  # fmt: skip
        os.close(theirs)
        killer = threading.Timer(LIMIT_S, process.kill)
        killer.start()
        seen = b""
        try:
            while part := _read(ours):
                seen += part
                if look is not None:
                    look(seen.decode("utf-8", "replace"), process)
            out = process.communicate()[0]
        finally:
            killer.cancel()
            os.close(ours)
            process.kill()
            process.wait()
        return process.returncode, seen.decode(), (out or b"").decode()

    return run


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("how", ["python", "perdure run"])
def test_a_run_on_a_terminal_shows_what_it_does(terminal: Terminal, ways: Path, how: str) -> None:
    """Goal: a step that takes long is seen with its progress while it runs; the result alone goes to the pipe."""
    Path("main.py").write_text("import perdure\nfrom ways import holds\nprint(perdure.run(holds, 'gate'))\n")
    call = ("main.py",) if how == "python" else ("-m", "perdure", "run", "ways.py:holds", "-p", 'gate="gate"')

    def look(seen: str, _: object) -> None:
        if '{"at":"gate"}' in seen:
            Path("gate").touch()

    code, seen, out = terminal(*call, piped=True, look=look)
    assert (code, out) == (0, "1\n")
    assert "1 done · 1 running · 0 failed" in bare(seen)
    assert re.search(r"hold#1 +\d", bare(seen))
    assert bare(seen).rstrip().splitlines()[-1].startswith("holds-")
    assert "2 done · 0 failed" in bare(seen).rstrip().splitlines()[-1]


def test_lists_are_coloured_on_a_terminal_only(terminal: Terminal, perdure: Program, ways: Path) -> None:
    """Goal: colours where a person looks and wants them; long lines are cut to the width."""
    perdure("run", f"{ways}:bad", "-p", f'text="{"no " * 100}"')
    code, seen, _ = terminal("-m", "perdure", "ps")
    assert code == 0
    assert "\x1b[31mfailed" in seen
    assert max(map(len, bare(seen).splitlines())) <= 100
    assert "…" in seen
    assert "\x1b" not in terminal("-m", "perdure", "ps", NO_COLOR="1")[1]
    assert "\x1b" not in perdure("ps").out
    _, _, piped = terminal("-m", "perdure", "ps", piped=True)
    assert "\x1b" not in piped


def test_ps_watch_shows_changes_until_it_is_stopped(terminal: Terminal, perdure: Program, ways: Path) -> None:
    """Goal: a run that is started meanwhile appears."""
    perdure("run", f"{ways}:good", "-p", "n=1", "--id", "first").good()
    begun: list[bool] = []

    def look(seen: str, process: subprocess.Popen[bytes]) -> None:
        if "first" in seen and not begun:
            begun.append(True)
            perdure("run", f"{ways}:good", "-p", "n=2", "--id", "second").good()
        if "second" in seen and len(begun) == 1:
            begun.append(True)
            process.send_signal(signal.SIGINT)

    code, seen, _ = terminal("-m", "perdure", "ps", "--watch", look=look)
    assert code == 130
    assert len(begun) == 2
    assert "Traceback" not in seen
