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
    """What the side file says."""

    store_id: str
    commits: int


class Mark:
    """Shape: one line, `store-id commits`, padded so that it is overwritten in place."""

    def __init__(self, path: str) -> None:
        self.path = Path(f"{path}.mark")
        self._file: int | None = None
        self._written_s = 0.0

    def read(self) -> Known | None:
        """None where there is no file, or none that can be read."""
        try:
            name, commits = self.path.read_text("ascii").split()[:2]
            return Known(name, int(commits))
        except (OSError, ValueError):
            return None

    def write(self, known: Known, now_s: float, *, force: bool = False) -> None:
        """At most once a second, or when forced (a clean stop)."""
        if not force and now_s - self._written_s < EVERY_S:
            return
        self._written_s = now_s
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.pwrite(self._file, f"{known.store_id} {known.commits}".ljust(_WIDTH).encode() + b"\n", 0)
        os.fdatasync(self._file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
