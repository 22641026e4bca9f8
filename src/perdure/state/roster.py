"""The processes that work for a store's owner, in a side file: the next owner begins once they are gone (S16).

An owner that is killed cannot wait for its pool processes. They die with it, but not in the same instant, and what they
started themselves may outlive them; a step that is made again beside them would be made twice at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from perdure.clock import Clock
from perdure.errors import StoreLocked

POLL_S = 0.01
# How long those that die by themselves are given, before they are killed.
PATIENCE_S = 0.5
_PROC = Path("/proc")


class Member(NamedTuple):
    """One process. Shape: `started` tells it from a later one of the same pid; 0 where that cannot be told."""

    pid: int
    started: int


class Roster:
    """Shape: a line of the machine's boot, then a line `pid started` for each process; each leads its own group."""

    def __init__(self, path: str) -> None:
        self.path = Path(f"{path}.pids")
        self._begun = False

    def add(self, pid: int) -> None:
        """Remember a process before it is given work. It need not outlive the machine, so nothing is synced."""
        stat = _stat(pid)
        line = f"{pid} {stat.started if stat else 0}\n"
        if not self._begun:
            self._begun = True
            self.path.write_text(f"{_boot()}\n{line}", "ascii")
        else:
            with self.path.open("a", encoding="ascii") as file:
                file.write(line)

    def clear(self) -> None:
        """All of them are gone."""
        self._begun = False
        self.path.unlink(missing_ok=True)

    async def gone(self, wait_s: float, clock: Clock, waiting: Callable[[int], None] | None = None) -> None:
        """Wait until the processes of the owner before are gone; those that linger are killed, with what they started.

        Raises: `StoreLocked` naming one that does not go away.
        """
        left = self._read()
        begun = clock.monotonic()
        told = False
        while left := [member for member in left if any(_alive(member))]:
            spent = clock.monotonic() - begun
            if spent >= PATIENCE_S:
                for member in left:
                    _kill(member)
                if not told and waiting is not None:
                    waiting(left[0].pid)
                    told = True
            if spent >= max(wait_s, 2 * PATIENCE_S):
                raise StoreLocked(
                    f"process {left[0].pid}, which worked for the engine before, does not end: stop it and start again"
                )
            await asyncio.sleep(POLL_S)
        self.clear()

    def _read(self) -> list[Member]:
        try:
            boot, *lines = self.path.read_text("ascii").splitlines()
        except (OSError, ValueError):
            return []
        if boot != _boot():
            return []
        members = []
        for line in lines:
            pid, _, started = line.partition(" ")
            if pid.isdecimal() and started.isdecimal():  # a line may be cut short by the owner's death
                members.append(Member(int(pid), int(started)))
        return members


class _Stat(NamedTuple):
    state: str
    group: int
    started: int


def _stat(pid: int) -> _Stat | None:
    """What the kernel says of a process; None where there is none, or no such kernel."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[2]), int(fields[19]))


def _alive(member: Member) -> Iterator[int]:
    """The pids of a member and its group that still run. A process that is dead and not yet buried does not count."""
    if not _PROC.is_dir():
        try:
            os.kill(member.pid, 0)
        except OSError:
            return
        yield member.pid
        return
    leader = _stat(member.pid)
    if leader is not None and leader.started != member.started:
        return  # another process has the number now
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            stat = _stat(int(entry.name))
            if stat and stat.group == member.pid and stat.state not in "ZX" and stat.started >= member.started:
                yield int(entry.name)
    if leader is not None and leader.group != member.pid and leader.state not in "ZX":
        yield member.pid


def _kill(member: Member) -> None:
    if not member.started:
        return  # it cannot be told whether it is still the one
    for pid in list(_alive(member)):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "-"
