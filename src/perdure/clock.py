"""The only reader of the machine's time and randomness.

`EngineClock` never goes back and never stands still (semantics S12): it runs on by the time that the machine is up
from the last persisted time and jumps forward when the wall is ahead, by more than a day only once that was seen a
minute ago too, by itself or by what had seen the wall before it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

DAY_US = 86_400_000_000
CONFIRM_US = 60_000_000
# On Linux this clock goes on while the machine is suspended; elsewhere the monotonic one has to do.
_UP = getattr(time, "CLOCK_BOOTTIME", None)


class Sighting(NamedTuple):
    """What the wall said, and since when the machine was up.

    Shape: `boot` is empty where the machine's starts cannot be told apart.
    Units: microseconds since that start; since 1970 UTC.
    """

    boot: str = ""
    up_us: int = 0
    wall_us: int = 0


class Clock(Protocol):
    """Time and chance for an engine. Units: microseconds since 1970 UTC; seconds for `monotonic`."""

    def now_us(self) -> int:
        """The engine's time: strictly increasing from call to call."""

    def wall_us(self) -> int:
        """The machine's wall clock, for messages written beside an engine."""

    def doubt_us(self) -> int:
        """How far the wall is ahead while that is not believed; else 0."""

    def sighting(self) -> Sighting: ...

    def monotonic(self) -> float: ...

    def chance(self) -> int:
        """128 random bits."""


def up_ns() -> int:
    """How long the machine is up. Units: nanoseconds, from any origin that lasts until it starts anew."""
    return time.monotonic_ns() if _UP is None else time.clock_gettime_ns(_UP)


class EngineClock:
    """The engine's clock over the machine's, or over other readings of nanoseconds.

    Shape: `seen` are times that the wall showed before, moved on to now: one that lies within the day before what it
           says now, and a minute back, confirms it at once.
    """

    __slots__ = ("_ahead", "_base_up", "_base_us", "_last", "_mono_ns", "_since", "_up_ns", "_wall_ns")

    def __init__(
        self,
        persisted_us: int = 0,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        up_ns: Callable[[], int] = up_ns,
        *,
        seen: Iterable[int] = (),
    ) -> None:
        self._wall_ns, self._mono_ns, self._up_ns = wall_ns, mono_ns, up_ns
        self._base_us = self._last = persisted_us
        self._base_up = up_ns()
        self._ahead, self._since = 0, 0
        wall = self.wall_us()
        if not persisted_us:
            self._base_us = wall
        elif wall - persisted_us > DAY_US:
            self._ahead = wall - persisted_us
            self._since = persisted_us - max((wall - one for one in seen if 0 <= wall - one <= DAY_US), default=0)

    def wall_us(self) -> int:
        return self._wall_ns() // 1000

    def monotonic(self) -> float:
        return self._mono_ns() / 1e9

    def chance(self) -> int:
        return secrets.randbits(128)

    def sighting(self) -> Sighting:
        boot = ""
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return Sighting(boot, self._up_ns() // 1000, self.wall_us())

    def now_us(self) -> int:
        up = self._up_ns()
        own = self._base_us + (up - self._base_up) // 1000
        ahead = self._wall_ns() // 1000 - own
        if ahead > DAY_US:
            if self._confirmed(ahead, own):
                own += ahead
                self._base_us, self._base_up, self._ahead = own, up, 0
        else:
            self._ahead = 0
            if ahead > 0:
                own += ahead
                self._base_us, self._base_up = own, up
        if own <= self._last:
            own = self._last + 1
        self._last = own
        return own

    def doubt_us(self) -> int:
        self.now_us()
        return self._ahead

    def _confirmed(self, ahead: int, own: int) -> bool:
        """A jump of more than a day counts only when the same one, within a day, was seen a minute ago."""
        if not self._ahead or abs(ahead - self._ahead) > DAY_US:
            self._ahead, self._since = ahead, own
        return own - self._since >= CONFIRM_US
