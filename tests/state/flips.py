"""A store with something of every kind in it, all that can be read of it, and what a flipped bit makes of that."""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

import perdure
from perdure.errors import PerdureError
from perdure.model import message as m
from perdure.model.run import Wait
from perdure.settings import Settings
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Batch, Loaded, Progress, Query
from perdure.testing.rows import NOON, HandRun, body_of
from tests.crash.harness import until_async
from tests.state import programs

FILE = "s.db"
REQUESTS = ("start", "go", "hand", "late")
BLOB = b"blob " * 400
HIDDEN = sha256(BLOB).hexdigest()


async def make(*, closed: bool) -> dict[str, bytes]:
    """Two runs of real code and two written by hand; the files, after a clean stop or with all in the log."""
    programs.fresh()
    async with perdure.open(f"sqlite:///{FILE}", [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        await engine.start(programs.mixed, 3, id="one", request_id="start")
        await engine.get("one").signal("go", 7, request_id="go")
        assert await engine.get("one").result("60s") == programs.RESULT
        await engine.start(programs.waits, 1, id="two", tags={"region": "eu"})
        await until_async(lambda: waits(engine), "it waits")
    store = await SqliteStore.open_engine(FILE, Settings())
    try:
        _write_by_hand(store)
        if not closed:
            store._keeper._write_mark(store._writer.commits, 0.0)
            return files()
    finally:
        await store.close()
    return files()


async def waits(engine: perdure.Engine) -> bool:
    return bool((await engine.row("two")).wait.signals)


def _write_by_hand(store: SqliteStore) -> None:
    batch = Batch()
    hand, gone = HandRun("hand", request="hand", tags={"k": "v"}), HandRun("gone")
    hand.start(batch).facts(batch, *(body_of(n) for n in range(6))).update(batch, wait=Wait(due=NOON))
    gone.start(batch).facts(batch, body_of(0)).update(batch, "completed", outcome=b"{}")
    store.commit(batch)
    batch = Batch()
    batch.blobs.append((hand.ref, HIDDEN, BLOB))
    batch.restart.append((hand.ref, 3))
    batch.snapshots.append((hand.ref, 4, b"a snapshot"))
    batch.progress.append(Progress("hand", "step", 1, NOON, b'{"done":17}'))
    batch.remove.append("gone")
    batch.inbox.append(m.Signal(run="two", name="go", value=msgspec.Raw(b"5"), request="late", at=NOON))
    store.commit(batch)


def files() -> dict[str, bytes]:
    """The files that make up the store."""
    return {name: Path(name).read_bytes() for name in (FILE, f"{FILE}-wal", f"{FILE}.mark") if Path(name).exists()}


def lay(data: dict[str, bytes]) -> None:
    """Make the folder hold these files and no others."""
    for path in Path().iterdir():
        path.unlink()
    for name, content in data.items():
        Path(name).write_bytes(content)


def flipped(data: bytes, seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """So many times one bit of it flipped, three of four in bytes that are in use; with where it was."""
    chance = random.Random(seed)
    used = [at for at, byte in enumerate(data) if byte]
    for _ in range(count):
        at = chance.choice(used) if chance.random() < 0.75 else chance.randrange(len(data))
        yield at, data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


async def read(store: SqliteStore) -> dict[str, Any]:
    """All that an engine would act upon, and all that is shown; an error stands in the place of what it hides."""
    ids = ("one", "two", "hand")
    asked = {
        "rows": lambda: store.find(Query(order="old")),
        "due": lambda: store.find(Query(order="due")),
        "busy": lambda: store.find(Query(busy=True)),
        "tagged": lambda: store.find(Query(tags={"k": "v"})),
        "loaded": lambda: store.load(ids),
        "children": lambda: children_of(store, "one"),
        "whole": lambda: store.load(ids, whole=True),
        "snapped": lambda: store.load(ids, snapshot=True),
        "inbox": lambda: store.inbox(0, 100),
        "answers": lambda: store.answers(REQUESTS),
        "blobs": lambda: store.blobs([HIDDEN]),
        "tombstones": lambda: store.tombstones(["gone"]),
    }
    found: dict[str, Any] = {}
    for name, ask in asked.items():
        try:
            found[name] = await ask()
        except PerdureError as error:
            found[name] = error
    return found


async def children_of(store: SqliteStore, run: str) -> list[Loaded]:
    return await store.load([row.id for row in await store.find(Query(parent=run))], whole=True)
