"""SQLite as a store: one writing connection, a write-ahead log, one commit a batch.

Row statements run on the caller's thread. COMMIT does too while it is short; when its p99 is measured to be slow, that
one call goes to a thread, and `commit` returns an awaitable (S30).
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import apsw
import msgspec

from perdure.clock import Clock, EngineClock
from perdure.errors import ForkedProcess, StoreLost, StoreUnavailable
from perdure.model.message import Start, decode_message, encode_message
from perdure.model.run import RunRow
from perdure.settings import Settings
from perdure.state.blobs import checked
from perdure.state.lock import FileLock
from perdure.state.mark import Known, Mark
from perdure.state.roster import Roster
from perdure.state.sql import statements
from perdure.state.sqlite_errors import mapped
from perdure.state.sqlite_open import Opened, open_file
from perdure.state.sqlite_read import find_rows, load_runs
from perdure.state.store import Batch, Committed, EpochRow, InboxRow, Loaded, NewRun, Query, Ref

COMMITS_KEPT = 200
LOOK_EVERY = 50
WAL_PAGES = 4_000
HALF, FULL = 1 << 63, 1 << 64
encode = msgspec.json.Encoder().encode


class SqliteStore:
    """Shape: `notices` are texts for the caller to show; `needs_full_check` after a stop by a failed sync.

    `roster` is where an engine names the processes that work for it.
    """

    def __init__(self, opened: Opened, settings: Settings, clock: Clock, *, engine: bool) -> None:
        self.path, self.settings, self.clock, self.engine = opened.path, settings, clock, engine
        self._db, self._reader = opened.writer, opened.reader
        self.notices, self.needs_full_check = opened.notices, opened.needs_full_check
        self.store_id, self._commits = opened.store_id, opened.commits
        self._sql = statements("sqlite", "write")
        self._read = statements("sqlite", "read")
        self.roster: Roster | None = None
        self._lock: FileLock | None = None
        self._mark: Mark | None = None
        self._epoch = 0
        self._version = self._data_version()
        self._lost: StoreLost | None = None
        self._pid = os.getpid()
        self._times: deque[float] = deque(maxlen=COMMITS_KEPT)
        self._counted = 0
        self._slow = False
        self._thread: ThreadPoolExecutor | None = None

    @classmethod
    async def open_engine(
        cls, path: str, settings: Settings, clock: Clock | None = None, waiting: Callable[[int], None] | None = None
    ) -> SqliteStore:
        """For an engine: takes the file's lock. Raises: `StoreLocked`, `NotAStore`, `StoreNewer`, `StoreBehind`, …"""
        clock = clock or EngineClock()
        opened = open_file(path, settings, engine=True)
        lock, mark, roster = FileLock(opened.path), Mark(opened.path), Roster(opened.path)
        try:
            await lock.take(settings.lock_wait_s, clock, waiting)
            await roster.gone(settings.lock_wait_s, clock, waiting)
            opened.prepare(mark.read())
        except BaseException:
            lock.let_go()
            opened.close()
            raise
        store = cls(opened, settings, clock, engine=True)
        store._lock, store._mark, store.roster = lock, mark, roster
        return store

    @classmethod
    async def open_client(cls, path: str, settings: Settings, clock: Clock | None = None) -> SqliteStore:
        """For a client: writes new runs and messages in short transactions of its own, beside an engine or none."""
        opened = open_file(path, settings, engine=False)
        opened.prepare(None)
        return cls(opened, settings, clock or EngineClock(), engine=False)

    # --- commit --------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Committed | Awaitable[Committed]:
        """See `Store.commit`."""
        self._usable()
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise mapped(error, "the store cannot take a write") from error
        try:
            committed = self._write(batch)
        except apsw.Error as error:
            self._roll_back()
            raise self._failed(error, "a batch was not written") from error
        except BaseException:
            self._roll_back()
            raise
        if self._slow:
            return self._commit_beside(committed)
        begun = self.clock.monotonic()
        self._commit_now()
        self._measured(self.clock.monotonic() - begun)
        return committed

    def _commit_now(self) -> None:
        try:
            self._db.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            raise self._failed(error, "a batch was not committed") from error
        self._commits += 1
        if self._mark is not None:
            self._mark.write(Known(self.store_id, self._commits), self.clock.monotonic())

    async def _commit_beside(self, committed: Committed) -> Committed:
        """COMMIT in a thread, for a disk that is slow."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "perdure-commit")
        begun = self.clock.monotonic()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit_now)
        self._measured(self.clock.monotonic() - begun)
        return committed

    def _measured(self, seconds: float) -> None:
        """Move COMMIT to a thread when its p99 is slow, and back when it is not."""
        self._times.append(seconds)
        self._counted += 1
        if self._counted % LOOK_EVERY == 0 and len(self._times) >= LOOK_EVERY:
            ordered = sorted(self._times)
            self._slow = ordered[int(len(ordered) * 0.99)] > self.settings.commit_slow_s

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except apsw.Error as error:
                self._lost = StoreLost(f"a failed batch could not be taken back: {error}")

    def _failed(self, error: apsw.Error, doing: str) -> Exception:
        found = mapped(error, doing)
        if isinstance(found, StoreLost):
            self._lost = found
            open(f"{self.path}.lost", "a").close()  # noqa: PTH123 - an empty note for the next start
        return found

    def _usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedProcess("this store was opened before fork(): open it again in this process")
        if self._lost is not None:
            raise self._lost

    def _write(self, batch: Batch) -> Committed:
        sql, many, one = self._sql, self._db.executemany, self._db.execute
        refused = self._starts(batch.starts) if batch.starts else frozenset()
        facts, updates = batch.facts, batch.updates
        if refused:
            facts = [row for row in facts if row[0].id not in refused]
            updates = [row for row in updates if row[0].id not in refused]
        if facts:
            many(sql["fact"], [(ref.no, seq, body, digest) for ref, seq, body, digest in facts])
        if updates:
            many(sql["update"], [_update(row) for row in updates])
        repeated = frozenset[str]()
        if batch.answers or batch.inbox or batch.inbox_done:
            repeated = self._messages(batch, refused)
        if batch.blobs:
            kept = [blob for blob in batch.blobs if blob[0].id not in refused]
            many(sql["blob"], [(digest, data) for _, digest, data in kept])
            many(sql["blob_ref"], [(ref.no, digest) for ref, digest, _ in kept])
        if batch.snapshots:
            many(sql["snapshot"], [(ref.no, seq, body) for ref, seq, body in batch.snapshots if ref.id not in refused])
        if batch.restart:
            many(sql["restart"], [(ref.no, seq) for ref, seq in batch.restart])
            many(sql["snapshot_drop"], [(ref.no,) for ref, _ in batch.restart])
        if batch.progress:
            many(sql["progress"], [(p.run, p.key, p.attempt, p.at, p.value) for p in batch.progress])
        if batch.progress_done:
            many(sql["progress_done"], [(run,) for run in batch.progress_done])
        if batch.remove:
            self._remove(batch.remove)
        if self.engine:
            one(sql["count"])
            if batch.clock:
                one(sql["clock"], (batch.clock,))
            if batch.note is not None:
                one(sql["note"], (self._epoch, batch.note))
            if batch.clean:
                one(sql["clean"], (self._epoch,))
        return Committed(refused, repeated)

    def _starts(self, starts: list[NewRun]) -> frozenset[str]:
        """Insert the rows of new runs; the ids of those whose id is in use."""
        execute, statement, refused = self._db.execute, self._sql["start_known"], set()
        for start in starts:
            tags = encode(start.tags).decode() if start.tags else "{}"
            found = execute(
                statement,
                (
                    start.ref.id, start.workflow, start.version, start.definition, start.input_hash, tags, start.parent,
                    start.parent_key, start.source, start.created_at,
                ),
            ).fetchone()  # fmt: skip
            if found is None:
                refused.add(start.ref.id)
                continue
            start.ref.no = found[0]
            if start.tags:
                self._db.executemany(self._sql["tag"], [(found[0], key, value) for key, value in start.tags.items()])
            if start.request:
                execute(self._sql["answer"], (start.request, start.ref.id, b'{"seq":1}')).fetchone()
        return frozenset(refused)

    def _messages(self, batch: Batch, refused: frozenset[str]) -> frozenset[str]:
        sql = self._sql
        if batch.inbox:
            kept = [message for message in batch.inbox if not (isinstance(message, Start) and message.run in refused)]
            self._db.executemany(sql["inbox"], [(m.run, m.request or None, encode_message(m)) for m in kept])
        if batch.inbox_done:
            self._db.executemany(sql["inbox_done"], [(no,) for no in batch.inbox_done])
        repeated: set[str] = set()
        for request, run, answer in batch.answers:
            if run not in refused and self._db.execute(sql["answer"], (request, run, answer)).fetchone() is None:
                repeated.add(request)
        return frozenset(repeated)

    def _remove(self, ids: list[str]) -> None:
        sql, one = self._sql, self._db.execute
        for id in ids:
            found = one(self._read["no_of"], (id,)).fetchone()
            if found is None or found[1] not in {"completed", "failed", "cancelled"}:
                continue
            no = found[0]
            one(sql["tombstone"], (id,))
            for name in ("remove_facts", "remove_tags", "remove_refs", "snapshot_drop", "remove_run"):
                one(sql[name], (no,))
            for name in ("remove_requests", "progress_done"):
                one(sql[name], (id,))
        one(sql["remove_blobs"])

    # --- reading ---------------------------------------------------------------------------------------

    def _rows(self, name: str, *bound: Any) -> list[tuple[Any, ...]]:
        self._usable()
        try:
            return list(self._reader.execute(self._statement(name), bound))
        except apsw.Error as error:
            raise mapped(error, "the store cannot be read") from error

    def _statement(self, name: str) -> str:
        text = self._read[name]
        return text.replace("{columns}", self._read["row_columns"]) if "{columns}" in text else text

    async def load(self, ids: Sequence[str], *, whole: bool = False, snapshot: bool = False) -> list[Loaded]:
        """See `Store.load`."""
        self._usable()
        with self._reader:  # rows and facts of one moment, whatever an engine beside us commits
            return load_runs(self._rows, ids, whole=whole, snapshot=snapshot)

    async def find(self, query: Query) -> list[RunRow]:
        """See `Store.find`."""
        self._usable()
        try:
            return find_rows(self._reader, self._read, query)
        except apsw.Error as error:
            raise mapped(error, "the store cannot be read") from error

    async def inbox(self, after: int, limit: int) -> list[InboxRow]:
        return [InboxRow(no, decode_message(body)) for no, body in self._rows("inbox", after, limit)]

    async def answers(self, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        found = self._rows("answers", encode(list(requests)).decode())
        return {id: (run, answer) for id, run, answer in found}

    async def blobs(self, hashes: Sequence[str]) -> dict[str, bytes]:
        return checked(dict(self._rows("blobs", encode(list(hashes)).decode())), list(hashes))  # type: ignore[arg-type]

    async def tombstones(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        return {id: (digest, outcome) for id, digest, outcome in self._rows("tombstones", encode(list(ids)).decode())}

    def _data_version(self) -> int:
        return int(self._db.pragma("data_version"))

    def changed(self) -> bool:
        version = self._data_version()
        if version == self._version:
            return False
        self._version = version
        return True

    # --- upkeep ----------------------------------------------------------------------------------------

    async def claim(self, node: str, pid: int, now: int, note: bytes = b"") -> tuple[int, list[EpochRow], int]:
        """See `Upkeep.claim`."""
        earlier = [
            EpochRow(epoch=e, node=n, pid=p, started_at=s, clean=bool(c), note=bytes(t or b""))
            for e, n, p, s, c, t in self._rows("epochs")
        ]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._epoch = self._db.execute(self._sql["epoch"], (node, pid, now, note)).fetchone()[0]
            self._db.execute(self._sql["count"])
            self._commit_now()
        except apsw.Error as error:
            self._roll_back()
            raise self._failed(error, "the store cannot be claimed") from error
        clock = self._rows("meta", "clock")
        return self._epoch, earlier, clock[0][0] if clock else 0

    async def backup(self, destination: str) -> None:
        """See `Upkeep.backup`. Raises: `StoreUnavailable` when the copy cannot be written."""
        try:
            # A transaction of its own holds one moment: else each commit meanwhile would begin the copy anew.
            with closing(apsw.Connection(self.path)) as source, closing(apsw.Connection(destination)) as target:
                source.execute("BEGIN")
                source.pragma("schema_version")
                with target.backup("main", source, "main") as copy:
                    while not copy.done:
                        copy.step(1_000)
                        await asyncio.sleep(0)
        except apsw.Error as error:
            raise StoreUnavailable(f"backup to {destination}: {error}") from error

    async def check(self) -> list[str]:
        found = [str(row[0]) for row in self._reader.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    async def sizes(self) -> dict[str, int]:
        return dict(self._rows("sizes"))  # type: ignore[arg-type]

    async def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if self._mark is not None:
            if self._lost is None:
                self._mark.write(Known(self.store_id, self._commits), self.clock.monotonic(), force=True)
            self._mark.close()
        self._reader.close()
        self._db.close()
        if self._lock is not None:
            self._lock.let_go()


def _update(row: tuple[Any, ...]) -> tuple[Any, ...]:
    ref: Ref = row[0]
    asked = row[5]
    return (ref.no, *row[1:5], asked if asked < HALF else asked - FULL, *row[6:])
