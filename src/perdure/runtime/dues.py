"""When the runs in memory are due: one alarm of the loop for all of them (S9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from perdure.clock import Clock
from perdure.model.run import Life
from perdure.runtime.live import LiveRun
from perdure.runtime.work import Tick

# Below so many notes of when runs are due, those that are out of date are not worth sorting out.
KEPT_MIN = 1_024
# Units: seconds.
ALARM_MAX_S = 3600.0


class Dues:
    """Shape: `times` are a heap of (time, run id); one counts while the run itself says so. Units: microseconds."""

    def __init__(self, runs: dict[str, LiveRun], clock: Clock, post: Callable[[Tick], None]) -> None:
        self.times: list[tuple[int, str]] = []
        self._runs, self._clock, self._post = runs, clock, post
        self._bound = KEPT_MIN
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0
        self._loop = asyncio.get_running_loop()

    def note(self, due: int, run_id: str) -> None:
        """A run is due then, as far as is known now."""
        heappush(self.times, (due, run_id))
        if len(self.times) > self._bound:
            self._sort_out()

    def _sort_out(self) -> None:
        """Forget the times at which nobody is due any more: a run notes one with every commit."""
        self.times = [(run.due, run_id) for run_id, run in self._runs.items() if run.due is not None]
        heapify(self.times)
        self._bound = max(KEPT_MIN, 2 * len(self.times))

    def set_alarm(self) -> None:
        """Wake when the earliest run is due."""
        times = self.times
        while times:
            due, run_id = times[0]
            run = self._runs.get(run_id)
            if run is not None and run.due == due:
                break
            heappop(times)
        if not times:
            return
        due = times[0][0]
        if self._alarm is not None:
            if self._alarm_at <= due:
                return
            self._alarm.cancel()
        self._alarm_at = due
        delay = max(0.0, (due - self._clock.now_us()) / 1e6)
        self._alarm = self._loop.call_later(min(delay, ALARM_MAX_S), self.ring)

    def overdue(self, now: int) -> bool:
        """Whether some run was due before, and no alarm has told."""
        return bool(self.times) and self.times[0][0] <= now

    def ring(self) -> None:
        """Queue a tick for every run that is due now."""
        self._alarm = None
        now, times = self._clock.now_us(), self.times
        while times and times[0][0] <= now:
            due, run_id = heappop(times)
            run = self._runs.get(run_id)
            if run is not None and run.due == due and run.life is Life.LIVE:
                self._post(Tick(run))
        self.set_alarm()

    def stop(self) -> None:
        """No alarm rings any more."""
        if self._alarm is not None:
            self._alarm.cancel()
