"""Ends a test's PostgreSQL and removes its folder as soon as the process that started it is gone, however it went.

Run as a program with the folder as its argument. Its standard input is a pipe that the test's process holds open: the
end of the pipe is the end of that process, be it by `close`, Ctrl-C or SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 10.0


def running(folder: Path) -> int | None:
    """The pid of the server that works in this folder; None when there is none."""
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    told = Path(f"/proc/{pid}/cmdline")
    if told.exists() and str(folder) not in told.read_text():
        return None  # the number belongs to another process by now
    return pid


def end(folder: Path) -> None:
    for way in (signal.SIGQUIT, signal.SIGKILL):
        tries_until = time.monotonic() + PATIENCE_S
        while (pid := running(folder)) is not None and time.monotonic() < tries_until:
            with suppress(ProcessLookupError):
                os.kill(pid, way)
            time.sleep(0.02)  # work: no child of ours, so there is nothing to wait on
    for _ in range(5):  # a child of the server may write its last file while the folder goes
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.read()
    end(Path(sys.argv[1]))
