"""Whether the wall may be believed after a start, and the wait until that is known (S12).

An engine that was away for a week and a wall that is wrong by a week look the same from the last persisted time alone.
What tells them apart is who else saw the wall, a minute ago or longer: an earlier engine, since when the machine was
not started anew, or a file that changed today.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from perdure.clock import CONFIRM_US, DAY_US, Clock, Sighting
from perdure.model.message import Message
from perdure.runtime.suspects import note_of
from perdure.state.store import EpochRow

log = logging.getLogger("perdure.engine")
# Where a machine in use changes something every day, its start included.
PLACES = ("/dev", "/dev/pts", "/run", "/var/log", "/var/lib", "~", ".")
ENTRIES_MAX = 200
LOOK_EVERY_S = 0.1


def walls_seen(
    now: Sighting, persisted_us: int, earlier: Iterable[EpochRow], places: Iterable[str] = PLACES
) -> list[int]:
    """Times that the wall showed before this start, moved on to now; none where nothing is in doubt.

    Units: microseconds since 1970 UTC.
    """
    if not persisted_us or now.wall_us - persisted_us <= DAY_US:
        return []
    return [*_by_engines(now, earlier), *_by_files(places)]


def _by_engines(now: Sighting, earlier: Iterable[EpochRow]) -> Iterator[int]:
    """What the wall would have shown a minute ago, had it gone on since earlier engines saw it."""
    for row in earlier:
        seen = Sighting(*note_of(row).seen)
        if seen.boot and seen.boot == now.boot and now.up_us >= seen.up_us:
            yield seen.wall_us + max(0, now.up_us - seen.up_us - CONFIRM_US)


def _by_files(places: Iterable[str]) -> Iterator[int]:
    """When files changed, by the wall of then: of all the times of a file, nobody can set this one."""
    for place in places:
        with suppress(OSError, RuntimeError), os.scandir(Path(place).expanduser()) as entries:
            for entry in islice(entries, ENTRIES_MAX):
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False).st_ctime_ns // 1000


async def doubt_over(clock: Clock) -> None:
    """Wait until the wall is believed, or is right again: a minute at most, while the same is seen."""
    ahead = clock.doubt_us()
    if ahead:
        log.warning(
            "this machine's clock is %.1f days ahead of when the store was last in use, and nothing shows since when: "
            "it is watched for a minute before runs move",
            ahead / DAY_US,
        )
    while clock.doubt_us():  # noqa: ASYNC110 - time tells nobody when it is right
        await asyncio.sleep(LOOK_EVERY_S)


def in_time(clock: Clock, message: Message) -> bool:
    """Whether a message written beside this engine may be folded now; its time is never ahead of the engine's.

    Shape: one from beyond what is believed is left until that is known; if it was a wrong wall, the time is ours.
    """
    if message.at > clock.now_us():
        if clock.doubt_us():
            return False
        message.at = clock.now_us()
    return True
