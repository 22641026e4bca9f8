"""When attempts are to be looked at, since their time may be over: a timeout, a deadline, a heartbeat that is missed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

from perdure.clock import Clock
from perdure.runtime.attempt import Attempt

Kind = Literal["timeout", "deadline", "heartbeat"]
# A timer of the loop may be so much ahead of the engine's clock: what is over then, is over. Units: microseconds.
EARLY_US = 500
# Below so many entries, those of attempts that have ended are not worth sorting out.
KEPT_MIN = 1_024


class _Queue:
    """Shape: `entries` in the order of their times; `bound` is the length at which those that have ended are taken out."""

    __slots__ = ("bound", "entries")

    def __init__(self) -> None:
        self.entries: deque[tuple[float, Attempt, Kind]] = deque()
        self.bound = KEPT_MIN

    def sort_out(self) -> None:
        self.entries = deque(entry for entry in self.entries if not (entry[1].done or entry[1].left))
        self.bound = max(KEPT_MIN, 2 * len(self.entries))


class Expiries:
    """One queue for each duration, with one timer of the loop: tasks have few durations, and attempts are many.

    Shape: `queues` by duration. Units: microseconds.
    """

    def __init__(self, clock: Clock, look: Callable[[Attempt, Kind], None]) -> None:
        self.queues: dict[int, _Queue] = {}
        self._clock, self._look = clock, look
        self._loop = asyncio.get_running_loop()

    def add(self, micros: int, attempt: Attempt, kind: Kind) -> None:
        """Look at the attempt when this much time is over, unless it has ended by then."""
        queue = self.queues.get(micros)
        if queue is None:
            queue = self.queues[micros] = _Queue()
            self._loop.call_later(micros / 1e6, self._due, micros)
        queue.entries.append((self._clock.monotonic() + micros / 1e6, attempt, kind))
        if len(queue.entries) > queue.bound:
            queue.sort_out()

    def _due(self, micros: int) -> None:
        entries, now = self.queues[micros].entries, self._clock.monotonic()
        due: list[tuple[Attempt, Kind]] = []
        while entries and (entries[0][0] <= now + EARLY_US / 1e6 or entries[0][1].done):
            due.append(entries.popleft()[1:])
        if entries:
            self._loop.call_later(entries[0][0] - now, self._due, micros)
        else:
            del self.queues[micros]
        for attempt, kind in due:  # which may be added anew
            if not attempt.done and not attempt.left:
                self._look(attempt, kind)
