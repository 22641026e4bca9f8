"""What an engine does at one moment: its attempts and their places. Engines tell it in their epoch's note."""

from __future__ import annotations

from typing import Final

import msgspec

# An attempt that begins and ends within this time is in no note. Units: microseconds.
LONG_US: Final = 1_000_000
# So many attempts that run, and as many that wait for a place, are in a note; a note is written at most once a second.
NOTED_MAX: Final = 64


class Doing(msgspec.Struct, array_like=True, frozen=True):
    """One attempt. Shape: `since` is 0 while it waits for a place. Units: microseconds since 1970 UTC."""

    run: str
    key: str
    attempt: int
    task: str
    pool: str
    asked: int
    since: int = 0


class Activity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Shape: `attempts` are those that run, the longest first, then those that wait for a place; `pools` gives (used, bound)
    by pool, `tasks` by task that has a bound of its own; `live` of at most `live_max` runs move.

    Units: `at` microseconds since 1970 UTC, on the engine's clock.
    """

    at: int = 0
    attempts: list[Doing] = []
    pools: dict[str, tuple[int, int]] = {}
    tasks: dict[str, tuple[int, int]] = {}
    live: int = 0
    live_max: int = 0

    def of(self, run: str) -> list[Doing]:
        """The attempts of a run."""
        return [one for one in self.attempts if one.run == run]
