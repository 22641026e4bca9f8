"""A machine's time and chance that are told what to do."""

from __future__ import annotations

import random
from collections.abc import Iterable

from perdure.clock import EngineClock, Sighting
from perdure.model.duration import Duration, duration_us

BORN_US = 1_767_225_600_000_000  # 2026-01-01, in microseconds


class SimulatedClock(EngineClock):
    """Time that moves only when it is told to, and chance that repeats for a seed.

    Shape: one machine's wall and monotonic clock; `engine_clock` gives an engine's clock over them, as after a start.
           `boots` counts how often the machine itself started.
    Units: `mono_ns` nanoseconds since the world began; `wall_ns` nanoseconds since 1970 UTC.
    """

    __slots__ = ("_chance", "boots", "mono_ns", "wall_ns")

    def __init__(self, seed: int = 0, born_us: int = BORN_US) -> None:
        self.mono_ns = 1_000_000_000
        self.wall_ns = born_us * 1000
        self.boots = 1
        self._chance = random.Random(seed)  # noqa: S311 - a seed's chance is to be repeated
        super().__init__(0, lambda: self.wall_ns, lambda: self.mono_ns, lambda: self.mono_ns)

    def chance(self) -> int:
        return self._chance.getrandbits(128)

    def sighting(self) -> Sighting:
        return Sighting(f"boot-{self.boots}", self.mono_ns // 1000, self.wall_us())

    def reboot(self) -> None:
        """The machine itself starts anew: nobody on it can tell any more how long it was off."""
        self.boots += 1

    def advance(self, duration: Duration) -> None:
        """Let time pass, on both clocks."""
        self.advance_ns(duration_us(duration, "advance") * 1000)

    def advance_ns(self, nanoseconds: int) -> None:
        """Let time pass. Units: nanoseconds."""
        assert nanoseconds >= 0, "a monotonic clock never goes back"
        self.mono_ns += nanoseconds
        self.wall_ns += nanoseconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or a bad NTP answer would; the monotonic clock goes on."""
        self.wall_ns += round(seconds * 1e9)

    def engine_clock(self, persisted_us: int = 0, seen: Iterable[int] = ()) -> EngineClock:
        """The clock of an engine that starts now on this machine."""
        return _OnMachine(self, persisted_us, seen)


class _OnMachine(EngineClock):
    __slots__ = ("_machine",)

    def __init__(self, machine: SimulatedClock, persisted_us: int, seen: Iterable[int]) -> None:
        self._machine = machine
        super().__init__(
            persisted_us, lambda: machine.wall_ns, lambda: machine.mono_ns, lambda: machine.mono_ns, seen=seen
        )

    def sighting(self) -> Sighting:
        return self._machine.sighting()

    def chance(self) -> int:
        return self._machine.chance()
