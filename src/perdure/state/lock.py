"""One engine a file: a lock on a side file, never on the database itself (S24)."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from perdure.clock import Clock
from perdure.errors import StoreLocked

POLL_S = 0.05


class FileLock:
    """Shape: the side file holds the holder's pid."""

    def __init__(self, path: str) -> None:
        self.path = Path(f"{path}.lock")
        self._file: int | None = None

    async def take(self, wait_s: float, clock: Clock, waiting: Callable[[int], None] | None) -> None:
        """Raises: `StoreLocked` naming the holder, when it was not let go in time."""
        until = clock.monotonic() + wait_s
        tries = 0
        while not self._try():
            pid, tries = self.holder(), tries + 1
            if tries == 2 and waiting is not None:  # the first may have met somebody who only looked
                waiting(pid)
            if tries > 1 and clock.monotonic() >= until:
                raise StoreLocked(
                    f"another engine holds this store (pid {pid}): stop it, name another store with --store, "
                    "or ask it for runs as a client with perdure.connect(...)"
                )
            await asyncio.sleep(POLL_S)

    def _try(self) -> bool:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return True

    def holder(self) -> int:
        """The pid of the engine that holds the lock, 0 where it cannot be told."""
        try:
            return int(self.path.read_text("ascii").strip() or 0)
        except (OSError, ValueError):
            return 0

    def held(self) -> bool:
        """Whether somebody holds it now."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def held_by(path: str) -> int:
    """The pid of the engine that holds the store of this path: 0 when none does, -1 when it cannot be told which."""
    lock = FileLock(path)
    return (lock.holder() or -1) if lock.held() else 0
