"""An event loop in which waiting takes no time: when nothing is ready, the clock jumps to what is due next."""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from perdure.testing.clock import SimulatedClock

# Tasks that only look whether something has happened; their timers alone are no reason for time to pass.
POLLING = frozenset({"perdure-sweep"})
# How long to wait for a thread before looking at the clock again. Units: seconds, of real time.
AWAY_S = 0.02


class NothingMoves(RuntimeError):
    """Nothing is ready, nothing is due, and nobody waits for that."""


class PollTimer(asyncio.TimerHandle):
    """A timer of a task that polls."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Shape: `away` tells whether work is under way in real threads or processes, for which the loop then waits really;
    `written` counts whatever pollers look for; `hint_us` is when a poller will find something by itself (None: never),
    in microseconds from now.
    """

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.away: Callable[[], bool] = lambda: False
        self.written: Callable[[], int] = lambda: 0
        self.hint_us: Callable[[], int | None] = lambda: None
        self.executing = 0
        self._seen = -1
        self._resting: list[asyncio.Future[None]] = []
        self._selector_ = _Selector(self._idle)
        super().__init__(self._selector_)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.clock.mono_ns / 1e9

    def rest(self) -> asyncio.Future[None]:
        """Done when nothing can happen any more until somebody acts from outside."""
        future = self.create_future()
        self._resting.append(future)
        return future

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        task = asyncio.current_task(self)
        if task is None or task.get_name() not in POLLING:
            return super().call_at(when, callback, *args, context=context)
        timer = PollTimer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = super().run_in_executor(executor, func, *args)
        self.executing += 1
        future.add_done_callback(self._executed)
        return future

    def _executed(self, _: asyncio.Future[Any]) -> None:
        self.executing -= 1

    # --- when nothing is ready -----------------------------------------------------------------------

    def _idle(self, timeout: float | None) -> list[Any]:
        """Wait really while threads are at work, else let time jump. Gives what the selector found."""
        if self.executing or self.away():
            began = time.monotonic_ns()
            found = self._selector_.wait(AWAY_S if timeout is None else min(timeout, AWAY_S))
            self.clock.advance_ns(time.monotonic_ns() - began)
            return found
        target = self._target()
        if target is not None:
            self.clock.advance_ns(max(0, math.ceil(target * 1e9) - self.clock.mono_ns))
            return []
        resting, self._resting = [future for future in self._resting if not future.done()], []
        if not resting:
            raise NothingMoves("nothing is due, and nothing can happen any more")
        for future in resting:
            future.set_result(None)
        return []

    def _target(self) -> float | None:
        """When the next thing happens, on this loop's clock."""
        timers: list[asyncio.TimerHandle] = [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        due = min((timer.when() for timer in timers if not isinstance(timer, PollTimer)), default=math.inf)
        poll = min((timer.when() for timer in timers if isinstance(timer, PollTimer)), default=math.inf)
        written = self.written()
        if written != self._seen:
            if poll <= due:  # the pollers get their turn at what was written
                self._seen = written
            target = min(due, poll)
        else:
            hint = self.hint_us()
            found = math.inf if hint is None or math.isinf(poll) else max(poll, self.time() + hint / 1e6)
            target = min(due, found)
        return None if math.isinf(target) else target


class _Selector(selectors.DefaultSelector):
    """Asks the loop instead of waiting."""

    def __init__(self, idle: Callable[[float | None], list[Any]]) -> None:
        super().__init__()
        self._idle = idle

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        return self._idle(timeout)

    def wait(self, timeout: float) -> list[Any]:
        """Wait really."""
        return super().select(timeout)
