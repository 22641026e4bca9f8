"""The high-water mark: how many commits were acknowledged, in a side file of its own (F16, S27).

A write-ahead log that was cut, or an old copy, is a consistent older state and looks sound from inside; only
something outside the file can tell.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

EVERY_S = 1.0
_WIDTH = 96


class Known(NamedTuple):
    """What the side file says. `relaxed`: a power cut was allowed to take back the last of these commits."""

    store_id: str
    commits: int
    relaxed: bool = False


class Mark:
    """Shape: one line, `store-id commits durability`, padded so that it is overwritten in place."""

    def __init__(self, path: str) -> None:
        self.path = Path(f"{path}.mark")
        self._file: int | None = None
        self._written_s: float | None = None

    def read(self) -> Known | None:
        """None where there is no file, or none that can be read."""
        try:
            name, commits, durability = self.path.read_text("ascii").split()[:3]
            return Known(name, int(commits), durability == "relaxed")
        except (OSError, ValueError):
            return None

    def due(self, now_s: float) -> bool:
        """Whether it was not written within the last second."""
        return self._written_s is None or now_s - self._written_s >= EVERY_S

    def write(self, known: Known, now_s: float) -> None:
        """Write it and sync it. Raises: OSError."""
        self._written_s = now_s
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        durability = "relaxed" if known.relaxed else "full"
        line = f"{known.store_id} {known.commits} {durability}".ljust(_WIDTH).encode() + b"\n"
        os.pwrite(self._file, line, 0)
        os.fdatasync(self._file)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
