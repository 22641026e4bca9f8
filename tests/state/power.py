"""What a power cut may leave on a disk: recorded writes and syncs, and all the states that they allow at each moment.

A write lasts from the next sync of its file on. Until then each sector of it may be there or not, in any order; of what
was done to the folder (files made and removed) since its last sync, the first so many are there.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
# Neither is anything to a machine that starts: one holds an index in memory, the other names who holds a lock.
PASSING = ("-shm", ".lock", ".pids")
CALLS = "trace=openat,pwrite64,write,fdatasync,fsync,ftruncate,unlink"
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (\d+)(?:<[^>]*>)?$")
_TEXT = re.compile(r'[<"]((?:\\x[0-9a-f]{2})*)[>"]')


class Event(NamedTuple):
    """One thing that was done: `make write cut drop sync` to the file of this name, `folder` synced it, `ack` told."""

    kind: str
    name: str = ""
    offset: int = 0
    data: bytes = b""


class State(NamedTuple):
    """A disk after a power cut. Shape: `acknowledged` commits were told to somebody before; `at` counts events."""

    files: dict[str, bytes]
    acknowledged: int
    at: int


def record(tracer: str, folder: Path, module: str, *args: str, env: dict[str, str]) -> list[Event]:
    """Run a program in this folder, and give what it did to the files in it."""
    trace = folder.parent / f"{folder.name}.trace"
    command = [tracer, "-f", "-qq", "-y", "-xx", "-s", "200000", "-e", CALLS, "-o", str(trace)]
    found = subprocess.run(
        [*command, sys.executable, "-m", module, *args], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **env},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return list(_events(trace.read_text(), str(folder.resolve())))


def _events(trace: str, folder: str) -> Iterator[Event]:
    there: set[str] = set()
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        call, said, _ = found.groups()
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(said)]
        path = (texts[1] if call == "openat" else texts[0]).decode()
        name = path.removeprefix(f"{folder}/")
        if path == folder and call in {"fdatasync", "fsync"}:
            yield Event("folder")
        elif path.startswith(f"{folder}/") and not name.endswith(PASSING):
            yield from _event(call, name, said, texts[-1], there)


def _event(call: str, name: str, said: str, data: bytes, there: set[str]) -> Iterator[Event]:
    last = said.rpartition(", ")[2]
    if call == "openat":
        if "O_CREAT" in said and name not in there:
            there.add(name)
            yield Event("make", name)
    elif call == "write":
        yield Event("ack", name, int(data))
    elif call == "unlink":
        there.discard(name)
        yield Event("drop", name)
    elif call == "pwrite64":
        yield Event("write", name, int(last), data)
    else:
        yield Event("cut", name, int(last)) if call == "ftruncate" else Event("sync", name)


class _File:
    """Shape: `kept` is on the disk for certain; of `since` each part may be, in this order: (offset, sector or None to
    cut there)."""

    def __init__(self) -> None:
        self.kept = b""
        self.since: list[tuple[int, bytes | None]] = []

    def write(self, offset: int, data: bytes) -> None:
        start = 0
        while start < len(data):
            end = start + SECTOR - (offset + start) % SECTOR
            self.since.append((offset + start, data[start:end]))
            start = end

    def after(self, keep: Callable[[], bool]) -> bytes:
        """Its content, when of what is not certain these parts are there."""
        content = bytearray(self.kept)
        for offset, part in self.since:
            if not keep():
                continue
            if part is None:
                del content[offset:]
            else:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(part)] = part
        return bytes(content)


class Disk:
    """A folder as it may be found after a power cut, while one event comes after the other."""

    def __init__(self) -> None:
        self.now: dict[str, _File] = {}
        self.synced: dict[str, _File] = {}
        self.since: list[dict[str, _File]] = []

    def take(self, event: Event) -> None:
        kind, name = event.kind, event.name
        if kind == "make":
            self.now = {**self.now, name: _File()}
            self.since.append(self.now)
        elif kind == "drop":
            self.now = {other: file for other, file in self.now.items() if other != name}
            self.since.append(self.now)
        elif kind == "folder":
            self.synced, self.since = self.now, []
        elif kind == "write":
            self.now[name].write(event.offset, event.data)
        elif kind == "cut":
            self.now[name].since.append((event.offset, None))
        elif kind == "sync":
            file = self.now[name]
            file.kept, file.since = file.after(lambda: True), []

    def left(self, keep: Callable[[], bool], entries: int | None = None) -> dict[str, bytes]:
        """The files, with so many of the changes to the folder; None: all of them."""
        folders = [self.synced, *self.since]
        folder = folders[-1] if entries is None else folders[min(entries, len(folders) - 1)]
        return {name: file.after(keep) for name, file in folder.items()}


def states(events: list[Event], seed: int, *, every: int, chances: int) -> Iterator[State]:
    """What may be left: at each moment without all that is not certain; at every so many also with all of it; and by
    chance, so many times, with some of it. States that came before are left out."""
    disk, acknowledged, chance = Disk(), 0, random.Random(seed)
    seen: set[int] = set()
    for at, event in enumerate(events, 1):
        disk.take(event)
        if event.kind == "ack":
            acknowledged = event.offset
        made = [disk.left(lambda: False, 0), disk.left(lambda: False)]
        if at % every == 0:
            made.append(disk.left(lambda: True))
            for _ in range(chances):
                part = chance.choice((0.1, 0.5, 0.9))
                made.append(disk.left(lambda part=part: chance.random() < part, chance.randrange(4)))  # type: ignore[misc]
        for files in made:
            known = hash((acknowledged, *sorted(files.items())))
            if known not in seen:
                seen.add(known)
                yield State(files, acknowledged, at)
