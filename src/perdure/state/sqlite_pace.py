"""Where COMMIT runs: on the loop's own thread while it is short, in another when the disk is slow (S30)."""

from __future__ import annotations

from collections import deque

KEPT = 200
LOOK_EVERY = 50
# What a large batch takes to be written, whatever the disk; a thread would not make it shorter. Units: seconds a row.
ROW_S = 3e-6
# Beside a busy loop a thread waits longer for the interpreter's lock than for the disk, so what it measures tells
# nothing of the disk: after so many commits there, some are made on the loop again, and measured.
BESIDE_MAX = 1_000


class Pace:
    """Shape: `slow` says that the next COMMIT goes to a thread. Units: `limit_s` seconds, against the p99 of COMMIT."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.slow = False
        self._times: deque[float] = deque(maxlen=KEPT)
        self._count = 0

    def took(self, seconds: float, rows: int) -> None:
        """A COMMIT of so many rows was made on the loop's thread."""
        self._times.append(seconds - rows * ROW_S)
        self._count += 1
        if self._count % LOOK_EVERY == 0:
            ordered = sorted(self._times)
            if ordered[int(len(ordered) * 0.99)] > self.limit_s:
                self.slow, self._count = True, 0

    def beside(self) -> None:
        """A COMMIT was made in a thread."""
        self._count += 1
        if self._count >= BESIDE_MAX:
            self.slow, self._count = False, 0
            self._times.clear()
