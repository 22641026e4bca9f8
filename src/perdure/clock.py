"""The only reader of the machine's time and randomness.

`EngineClock` never goes back and never stands still (semantics S12): it runs on by the monotonic clock
from the last persisted time and jumps forward when the wall is ahead.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Protocol

DAY_US = 86_400_000_000
CONFIRM_US = 60_000_000


class Clock(Protocol):
    """Time and chance for an engine. Units: microseconds since 1970 UTC; seconds for `monotonic`."""

    def now_us(self) -> int:
        """The engine's time: strictly increasing from call to call."""

    def wall_us(self) -> int:
        """The machine's wall clock, for messages written beside an engine."""

    def monotonic(self) -> float: ...

    def chance(self) -> int:
        """128 random bits."""


class EngineClock:
    """The engine's clock over the machine's, or over two other readings of nanoseconds."""

    __slots__ = ("_ahead_since", "_base_mono", "_base_us", "_last", "_mono_ns", "_wall_ns")

    def __init__(
        self, persisted_us: int = 0, wall_ns: Callable[[], int] = time.time_ns, mono_ns: Callable[[], int] =
        time.monotonic_ns
    ) -> None:  # fmt: skip
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._base_us = persisted_us
        self._base_mono = mono_ns()
        self._last = persisted_us
        self._ahead_since: int | None = None
        wall = self.wall_us()
        if not persisted_us or persisted_us < wall <= persisted_us + 3650 * DAY_US:
            # Away for however long: the first reading after a start is believed within ten years.
            self._base_us = wall

    def wall_us(self) -> int:
        return self._wall_ns() // 1000

    def monotonic(self) -> float:
        return self._mono_ns() / 1e9

    def chance(self) -> int:
        return secrets.randbits(128)

    def now_us(self) -> int:
        mono = self._mono_ns()
        own = self._base_us + (mono - self._base_mono) // 1000
        ahead = self._wall_ns() // 1000 - own
        if ahead > 0 and self._believed(ahead, own):
            own += ahead
            self._base_us, self._base_mono = own, mono
        if own <= self._last:
            own = self._last + 1
        self._last = own
        return own

    def _believed(self, ahead: int, own: int) -> bool:
        """A jump of more than a day counts only when it is still there a minute after it was first seen."""
        if ahead <= DAY_US:
            self._ahead_since = None
            return True
        if self._ahead_since is None:
            self._ahead_since = own
        if own - self._ahead_since < CONFIRM_US:
            return False
        self._ahead_since = None
        return True
