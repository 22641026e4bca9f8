"""SQLite as a store: one writing connection, a write-ahead log, one commit a batch.

Row statements run on the caller's thread. COMMIT does too while it is short; when its p99 is measured to be slow, that
one call goes to a thread, and `commit` returns an awaitable (S30).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import apsw

from perdure.clock import Clock, EngineClock
from perdure.errors import ForkedProcess, StoreLost
from perdure.model.run import RunRow
from perdure.settings import Settings
from perdure.state.gate import Gate, Place
from perdure.state.lock import FileLock
from perdure.state.mark import Mark
from perdure.state.roster import Roster
from perdure.state.sqlite_errors import mapped
from perdure.state.sqlite_keep import Keeper
from perdure.state.sqlite_open import Opened, note_lost, open_file
from perdure.state.sqlite_outcomes import SqliteDatabase
from perdure.state.sqlite_pace import Pace
from perdure.state.sqlite_read import Reader
from perdure.state.sqlite_upkeep import SqliteUpkeep
from perdure.state.sqlite_write import BatchWriter
from perdure.state.store import Batch, Committed, EpochRow, InboxRow, Loaded, Query


class SqliteStore(SqliteUpkeep):
    """Shape: `notices` are texts for the caller to show; `needs_full_check` after a stop by a failed sync.

    `roster` is where an engine names the processes that work for it; `database` lets steps write to this file in
    transactions of their own; once that is used, commits take turns with them.
    """

    def __init__(self, opened: Opened, settings: Settings, clock: Clock, *, engine: bool) -> None:
        self.path, self.settings, self.clock, self.engine = opened.path, settings, clock, engine
        self.notices, self.needs_full_check = opened.notices, opened.needs_full_check
        # Called when the full check after a failed sync is done; until then each start begins it anew.
        self.audited = opened.audited
        self.store_id = opened.store_id
        self._db, self._read = opened.writer, Reader(opened.reader)
        self._writer = BatchWriter(opened.writer, engine=engine)
        self._writer.commits = opened.commits
        self._keeper = Keeper(opened, clock, relaxed=settings.durability != "full", engine=engine)
        self.roster: Roster | None = None
        self._lock: FileLock | None = None
        self._version = self._data_version()
        self._lost: StoreLost | None = None
        self._pid = os.getpid()
        self._pace = Pace(settings.commit_slow_s)
        self._away = self._closed = False
        self._thread: ThreadPoolExecutor | None = None
        wait, durability = settings.busy_wait_s, settings.durability
        self.database = SqliteDatabase(opened.path, busy_wait_s=wait, own=True, durability=durability)

    @classmethod
    async def open_engine(
        cls, path: str, settings: Settings, clock: Clock | None = None, waiting: Callable[[int], None] | None = None
    ) -> SqliteStore:
        """For an engine: takes the file's lock. Raises: `StoreLocked`, `NotAStore`, `StoreNewer`, `StoreBehind`, …"""
        clock = clock or EngineClock()
        opened = open_file(path, settings, engine=True)
        lock, roster = FileLock(opened.path), Roster(opened.path)
        try:
            await lock.take(settings.lock_wait_s, clock, waiting)
            await roster.gone(settings.lock_wait_s, clock, waiting)
            await opened.ready(Mark(opened.path).read(), clock)
            store = cls(opened, settings, clock, engine=True)
        except BaseException:
            opened.close()
            lock.let_go()
            raise
        store._lock, store.roster = lock, roster
        return store

    @classmethod
    async def open_client(cls, path: str, settings: Settings, clock: Clock | None = None) -> SqliteStore:
        """For a client: writes new runs and messages in short transactions of its own, beside an engine or none."""
        opened = open_file(path, settings, engine=False)
        try:
            clock = clock or EngineClock()
            await opened.ready(None, clock)
            return cls(opened, settings, clock, engine=False)
        except BaseException:
            opened.close()
            raise

    # --- commit --------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Committed | Awaitable[Committed]:
        """See `Store.commit`."""
        if not self.database.used:
            return self._commit(batch)
        place = self.database.gate.free()
        if place is None or self._pace.slow:
            return self._commit_in_turn(self.database.gate, batch, place)
        try:
            return self._commit(batch)
        finally:
            self.database.gate.leave(place)

    async def _commit_in_turn(self, gate: Gate, batch: Batch, place: Place | None) -> Committed:
        """A step has its transaction in this file: wait for its end on the loop, and for no lock."""
        place = place or await gate.turn(first=True)
        try:
            answer = self._commit(batch)
            return answer if isinstance(answer, Committed) else await answer
        finally:
            gate.leave(place)

    def _commit(self, batch: Batch) -> Committed | Awaitable[Committed]:
        self._usable()
        try:
            committed = self._write(batch, careful=False)
        except apsw.ConstraintError:
            if not batch.starts:
                raise
            # A drawn id was in use after all, however that came about: look them all up.
            committed = self._write(batch, careful=True)
        if self._pace.slow:
            return self._commit_beside(committed)
        begun = self.clock.monotonic()
        self._sync()
        ended = self.clock.monotonic()
        self._pace.took(ended - begun, len(batch.facts))
        if self._keeper.due(ended):
            # Nobody who waits for this batch waits for the emptying of the log too: it comes when the loop goes on.
            asyncio.get_running_loop().call_soon(self._tidy_later)
        return committed

    def _write(self, batch: Batch, *, careful: bool) -> Committed:
        self._begin()
        try:
            return self._writer.write(batch, careful=careful)
        except apsw.ConstraintError as error:
            self._roll_back()
            if not careful and batch.starts:
                raise
            raise mapped(error, "a batch was not written") from error
        except apsw.Error as error:
            self._roll_back()
            raise self._failed(error, "a batch was not written") from error
        except BaseException:
            self._roll_back()
            raise

    def _begin(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise self._failed(error, "the store cannot take a write") from error

    def _commit_now(self) -> None:
        self._sync()
        self._tidy()

    def _sync(self) -> None:
        try:
            self._db.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            raise self._failed(error, "a batch was not committed") from error
        self._writer.done()

    def _tidy_later(self) -> None:
        """Between two batches. A store that is lost by it says so at its next call."""
        if not (self._away or self._closed or self._lost is not None):
            with suppress(StoreLost):
                self._tidy()

    def _tidy(self) -> None:
        """Raises: `StoreLost` when a sync fails, what was committed before is durable; or when the file has gone."""
        try:
            self._keeper.committed(self._writer.commits)
        except StoreLost as error:
            self._lost = error
            raise
        except apsw.Error as error:
            found = self._failed(error, "the store cannot be tidied")
            if isinstance(found, StoreLost):
                raise found from error

    async def _commit_beside(self, committed: Committed) -> Committed:
        """COMMIT in a thread, for a disk that is slow."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "perdure-commit")
        self._away = True
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit_now)
        finally:
            self._away = False
        self._pace.beside()
        return committed

    def _roll_back(self) -> None:
        self._writer.undo()
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except apsw.Error as error:
                self._lost = StoreLost(f"a failed batch could not be taken back: {error}")

    def _failed(self, error: apsw.Error, doing: str) -> Exception:
        """The error for the caller; after a failed sync nothing is acknowledged any more (S27)."""
        found = mapped(error, doing)
        if isinstance(found, StoreLost):
            self._lost = found
            note_lost(self.path)
        return self._lost or found

    def _usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedProcess("this store was opened before fork(): open it again in this process")
        if self._lost is not None:
            raise self._lost

    # --- reading ---------------------------------------------------------------------------------------

    async def load(self, ids: Sequence[str], *, whole: bool = False, snapshot: bool = False) -> list[Loaded]:
        """See `Store.load`."""
        self._usable()
        return self._read.load(ids, whole=whole, snapshot=snapshot)

    async def find(self, query: Query) -> list[RunRow]:
        """See `Store.find`."""
        self._usable()
        return self._read.find(query)

    async def inbox(self, after: int, limit: int, shards: Sequence[int] | None = None) -> list[InboxRow]:  # noqa: ARG002
        """See `Store.inbox`."""
        self._usable()
        return self._read.inbox(after, limit)

    async def answers(self, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """See `Store.answers`."""
        self._usable()
        return self._read.answers(requests)

    async def blobs(self, hashes: Sequence[str]) -> dict[str, bytes]:
        """See `Store.blobs`."""
        self._usable()
        return self._read.blobs(hashes)

    def _data_version(self) -> int:
        return int(self._db.pragma("data_version"))

    def changed(self) -> bool:
        """See `Store.changed`."""
        if self._away or self._lost is not None:
            return False
        self._usable()
        try:
            version = self._data_version()
        except apsw.Error as error:
            raise mapped(error, "the store cannot be read") from error
        if version == self._version:
            return False
        self._version = version
        return True

    # --- upkeep ----------------------------------------------------------------------------------------

    async def claim(self, node: str, pid: int, now: int, note: bytes = b"") -> tuple[int, list[EpochRow], int]:
        """See `Upkeep.claim`."""
        self._usable()
        earlier = self._read.epochs()
        self._begin()
        try:
            epoch = self._writer.claim(node, pid, now, note)
        except apsw.Error as error:
            self._roll_back()
            raise self._failed(error, "the store cannot be claimed") from error
        self._commit_now()
        return epoch, earlier, self._read.rows("pulse")[0][1]

    async def close(self) -> None:
        """See `Store.close`."""
        if os.getpid() != self._pid:
            return  # all of it belongs to the process that opened it
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        self.database.close()
        self._keeper.close(self._writer.commits, lost=self._lost is not None)
        for connection in (self._read.db, self._db):
            with suppress(apsw.Error):  # what was acknowledged is in the log already
                connection.close()
        if self._lock is not None:
            self._lock.let_go()
