"""When attempts are to be looked at, since their time may be over: a timeout, a deadline, a heartbeat that is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Literal

from perdure.clock import Clock
from perdure.runtime.attempt import Attempt

Late = Literal["timeout", "deadline", "heartbeat"]
Kind = Late | Literal["held"]
# A timer of the loop may be so much ahead of the engine's clock: what is over then, is over. Units: microseconds.
EARLY_US = 500
# Below so many entries, those of attempts that have ended are not worth sorting out.
KEPT_MIN = 1_024


class Expiries:
    """One timer of the loop for all attempts.

    Shape: `entries` are a heap by time, then in the order in which they came; those of attempts that have ended are
           taken out when there are more than `bound`.
    """

    def __init__(self, clock: Clock, look: Callable[[Attempt, Kind], None]) -> None:
        self.entries: list[tuple[float, int, Attempt, Kind]] = []
        self.bound = KEPT_MIN
        self._clock, self._look = clock, look
        self._loop = asyncio.get_running_loop()
        self._next = count().__next__
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def add(self, micros: int, attempt: Attempt, kind: Kind) -> None:
        """Look at the attempt when this much time is over, unless it has ended by then."""
        now = self._clock.monotonic()
        at = now + micros / 1e6
        heappush(self.entries, (at, self._next(), attempt, kind))
        if len(self.entries) > self.bound:
            self._sort_out()
        if self._alarm is None or at < self._alarm_at:
            self._arm(at, now)

    def _arm(self, at: float, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_later(at - now, self._due)

    def _sort_out(self) -> None:
        """Forget those that have ended."""
        self.entries = [entry for entry in self.entries if not (entry[2].done or entry[2].left)]
        heapify(self.entries)
        self.bound = max(KEPT_MIN, 2 * len(self.entries))

    def _due(self) -> None:
        self._alarm = None
        entries, now = self.entries, self._clock.monotonic()
        due: list[tuple[Attempt, Kind]] = []
        while entries and (entries[0][0] <= now + EARLY_US / 1e6 or entries[0][2].done or entries[0][2].left):
            due.append(heappop(entries)[2:])
        if entries:
            self._arm(entries[0][0], now)
        for attempt, kind in due:  # which may be added anew
            if not attempt.done and not attempt.left:
                self._look(attempt, kind)
