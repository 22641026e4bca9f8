"""Memory and SQLite are given the same random operations and must give the same answers (K5)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import PerdureError
from perdure.model import message as m
from perdure.model.run import STATUSES, Life, RunRow, Wait
from perdure.runtime.node import done
from perdure.settings import Settings
from perdure.state.memory import MemoryStore
from perdure.state.postgres import PostgresStore
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Batch, Loaded, Progress, Query, Ref
from perdure.testing.rows import NOON, HandRun, body_of
from tests.postgres.server import Server

IDS = [f"run-{n}" for n in range(8)]
REQUESTS = ["", *(f"r{n}" for n in range(6))]
HOSTILE = ["' OR 1=1 --", "a", "%", "\x00", "{columns}", "é\u2028", '"'*2]  # fmt: skip
DATA = [b"blob %d" % n for n in range(3)]
SIZES = ("runs", "facts", "inbox", "requests", "blobs", "blob_bytes", "snapshots", "tombstones")


class Twin:
    """Makes one random operation after another. Each store gets batches and refs of its own, made alike."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.runs: dict[str, HandRun] = {}
        self.parents: dict[str, str] = {}
        self.number = 0

    def batch(self) -> list[Callable[[Batch, Callable[[str], Ref]], None]]:
        """What one batch writes: functions that are applied to each store's own batch."""
        kinds = [
            self.start,
            self.start,
            self.move,
            self.move,
            self.move,
            self.messages,
            self.answers,
            self.attach,
            self.tell,
            self.remove,
        ]
        return [made for kind in self.random.choices(kinds, k=self.random.randint(1, 4)) for made in kind()]

    def start(self) -> list[Any]:
        pick, id = self.random.choice, self.random.choice(IDS)
        fields: dict[str, Any] = {
            "request": pick(REQUESTS), "workflow": pick(HOSTILE), "source": pick(HOSTILE), "drawn": self.random.random() < 0.2,
            "tags": {pick(HOSTILE): pick(HOSTILE) for _ in range(self.random.randint(0, 2))},
            "parent": pick(["", "", *IDS]), "created_at": NOON + self.random.randint(0, 9),
        }  # fmt: skip
        if fields["parent"] == id:
            fields["parent"] = ""
        if fields["drawn"]:
            self.number += 1
            id = f"drawn-{self.number}"
        return [("start", id, fields)]

    def move(self) -> list[Any]:
        pick, number = self.random.choice, self.random.randint
        wait = Wait(
            due=pick([None, NOON + number(0, 5)]), signals=pick([(), ("s",)]), children=pick([(), ("c",)]),
            open=pick([0, 0, 2]), settling=pick([False, False, True]),
        )  # fmt: skip
        life = pick(["live", "live", "live", "attention", "completed", "failed", "cancelled"])
        return [("move", pick(IDS), number(0, 3), life, wait, NOON + number(0, 9), number(0, 2**64 - 1))]

    def messages(self) -> list[Any]:
        self.number += 1
        value = msgspec.Raw(b"%d" % self.number)
        signal = m.Signal(
            run=self.random.choice(IDS), name="s", value=value, request=self.random.choice(REQUESTS), at=NOON
        )
        return [("inbox", signal), ("done", self.random.randint(1, 30))]

    def answers(self) -> list[Any]:
        request = self.random.choice(REQUESTS[1:])
        return [("answer", request, self.random.choice(IDS), b"%d" % self.random.randint(0, 9))]

    def attach(self) -> list[Any]:
        pick = self.random.choice
        kind = pick(["blob", "snapshot", "restart"])
        return [(kind, pick(IDS), pick(DATA), self.random.randint(0, 5))]

    def tell(self) -> list[Any]:
        pick = self.random.choice
        return [pick([("progress", pick(IDS), pick(HOSTILE)), ("progress_done", pick(IDS))])]

    def remove(self) -> list[Any]:
        return [("remove", self.random.choice(IDS))]


class Side:
    """One store, with the refs and runs that it was given."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.runs: dict[str, HandRun] = {}

    async def apply(self, writes: list[Any]) -> Any:
        """Commit the batch; what came of it, or the error's class."""
        batch = Batch()
        fresh: dict[str, HandRun] = {}
        for write in writes:
            self._add(batch, fresh, *write)
        before = {id: (run.seq, run.head) for id, run in self.runs.items()}
        try:
            committed = await done(self.store.commit(batch))
        except PerdureError as error:
            for id, run in self.runs.items():
                if id in before:
                    run.seq, run.head = before[id]
            return type(error).__name__
        numbers = {}
        for id, run in fresh.items():
            if id not in committed.refused:
                self.runs[id] = run
                numbers[id] = run.ref.no
        await self._forget_removed()
        return committed.refused, committed.repeated, numbers

    async def _forget_removed(self) -> None:
        there = {row.id for row in await self.store.find(Query(ids=tuple(self.runs)))}
        self.runs = {id: run for id, run in self.runs.items() if id in there}

    def _add(self, batch: Batch, fresh: dict[str, HandRun], kind: str, *said: Any) -> None:
        if kind == "start":
            id, fields = said
            run = HandRun(id, **fields)
            if id not in fresh:
                fresh[id] = run
            run.start(batch)
        elif kind == "move":
            self._move(batch, fresh, said)
        elif kind in {"inbox", "done", "answer"}:
            field = {"inbox": batch.inbox, "done": batch.inbox_done, "answer": batch.answers}[kind]
            field.append(said[0] if kind != "answer" else said)  # type: ignore[arg-type]
        elif kind in {"blob", "snapshot", "restart"}:
            self._attach(batch, kind, *said)
        elif kind == "progress":
            batch.progress.append(Progress(said[0], said[1], 1, NOON, b"1"))
        else:
            getattr(batch, kind).append(said[0])

    def _move(self, batch: Batch, fresh: dict[str, HandRun], said: Any) -> None:
        id, facts, life, wait, at, asked = said
        run = fresh.get(id) or self.runs.get(id)
        if run is None or any(row[0] is run.ref for row in batch.updates):
            return
        run.facts(batch, *(body_of(run.seq + n) for n in range(facts)))
        run.update(batch, life, wait=wait, at=at, asked_h=asked, outcome=b"{}" if life != "live" else None)

    def _attach(self, batch: Batch, kind: str, id: str, data: bytes, seq: int) -> None:
        run = self.runs.get(id)
        if run is None:
            return
        if kind == "blob":
            batch.blobs.append((run.ref, sha256(data).hexdigest(), data))
        elif kind == "snapshot" and seq <= run.seq:
            batch.snapshots.append((run.ref, seq, data if seq else b""))
        elif kind == "restart" and 1 <= seq <= run.seq:
            batch.restart.append((run.ref, seq))

    async def look(self, queries: list[Query]) -> Any:
        """All that can be read of the store."""
        store = self.store
        return (
            [await store.find(query) for query in queries],
            await store.load(IDS),
            await store.load(IDS[::-1], whole=True),
            await store.load(IDS, snapshot=True),
            await store.inbox(0, 100),
            await store.answers(REQUESTS),
            await store.tombstones(IDS),
            {name: size for name, size in (await store.sizes()).items() if name in SIZES},
        )


def queries(pick: random.Random) -> list[Query]:
    """Some random queries, and one that gives all."""
    made = [Query(order=order) for order in ("new", "old", "due")]
    for _ in range(4):
        fields: dict[str, Any] = {
            "ids": tuple(pick.sample(IDS, 3)), "status": tuple(pick.sample(STATUSES, 3)), "life": tuple(pick.sample(list(Life), 2)),
            "workflow": pick.choice(HOSTILE), "tags": {pick.choice(HOSTILE): pick.choice(HOSTILE)},
            "parent": pick.choice(["", *IDS]), "source": pick.choice(HOSTILE), "due_before": NOON + pick.randint(0, 5),
            "due_after": NOON + pick.randint(0, 5), "busy": True, "ended_before": NOON + pick.randint(0, 9), "roots": True,
            "order": pick.choice(["new", "old", "due"]), "limit": pick.randint(0, 5),
        }  # fmt: skip
        made.append(Query(**{name: fields[name] for name in pick.sample(list(fields), pick.randint(1, 3))}))
    return made


async def compare(seed: int, steps: int, other: Any, plain: Callable[[Any], Any] = lambda seen: seen) -> None:
    """Give memory and another store the same stream and compare all that they say, after each operation."""
    twin = Twin(seed)
    sides = [Side(MemoryStore()), Side(other)]
    try:
        for side in sides:
            await side.store.claim("node", 1, NOON)
        for step in range(steps):
            writes = twin.batch()
            answers = [await side.apply(writes) for side in sides]
            assert plain(answers[0]) == plain(answers[1]), (seed, step, writes)
            asked = queries(twin.random)
            seen = [await side.look(asked) for side in sides]
            assert plain(seen[0]) == plain(seen[1]), (seed, step, writes)
            assert [await side.store.blobs([]) for side in sides] == [{}, {}]
    finally:
        await other.close()


async def compare_sqlite(seed: int, steps: int, path: Path) -> None:
    await compare(seed, steps, await SqliteStore.open_engine(str(path), Settings(durability="relaxed")))


def unnumbered(seen: Any) -> Any:
    """What was seen, but for the store's own numbers of runs: a batch that is rolled back uses some up in PostgreSQL."""
    if isinstance(seen, RunRow):
        return msgspec.structs.replace(seen, no=0)
    if isinstance(seen, Loaded):
        return msgspec.structs.replace(seen, row=unnumbered(seen.row))
    if isinstance(seen, list | tuple) and not isinstance(seen, str):
        return [unnumbered(one) for one in seen]
    if isinstance(seen, dict) and seen and all(isinstance(one, int) for one in seen.values()) and "runs" not in seen:
        return list(seen)
    return seen


async def compare_postgres(seed: int, steps: int, address: str) -> None:
    await compare(seed, steps, await PostgresStore.open(address, Settings()), unnumbered)


@pytest.mark.parametrize("seed", range(8))
def test_k5_memory_and_postgres_agree_after_every_operation(
    seed: int, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: what the reference store says is what PostgreSQL says; no text of it holds a NUL, which that has none of."""
    monkeypatch.setattr("tests.state.test_differential.HOSTILE", [text for text in HOSTILE if text != "\x00"])
    asyncio.run(compare_postgres(seed, 60, postgres.address()))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_k5_memory_and_sqlite_agree_after_every_operation(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Goal: what the reference store says is what SQLite says, refusals, pages and sizes included."""
    asyncio.run(compare_sqlite(seed, 60, tmp_path_factory.mktemp("k5") / "s.db"))


@pytest.mark.torture
@pytest.mark.timeout(1800)
@settings(max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_k5_memory_and_sqlite_agree_on_long_streams(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Goal: the same, longer."""
    asyncio.run(compare_sqlite(seed, 200, tmp_path_factory.mktemp("k5") / "s.db"))
