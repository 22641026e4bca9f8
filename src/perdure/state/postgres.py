"""PostgreSQL as a store: one batch is one call of one function, one round trip, one transaction (D4).

The writing connection is its own; reads come from a small pool, so that no reader stands in front of a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from perdure.clock import Clock, EngineClock
from perdure.errors import BadCall, PerdureError, StoreLost
from perdure.settings import Settings
from perdure.state import postgres_read as read
from perdure.state import postgres_write as write
from perdure.state.postgres_errors import BROKEN, mapped
from perdure.state.postgres_open import STATEMENT_S, Address, address_of, connected, prepare, session
from perdure.state.postgres_outcomes import PostgresDatabase
from perdure.state.postgres_upkeep import PostgresUpkeep
from perdure.version import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from perdure.model.run import RunRow
    from perdure.state.store import Batch, Committed, EpochRow, InboxRow, Loaded, Query

CANNOT = "the store cannot be read"
READERS_MAX = 4
LEASE_S = 6.0
# How long a connection may take to close. Units: seconds.
CLOSE_S = 5.0


class PostgresStore(PostgresUpkeep):
    """Shape: `fence` is by which this node's commits are checked, a client has none; `hears` are called when somebody has
    written, a hint; a number that a transaction drew for a message is seen within `settles_s`, or never.
    """

    # Longer than any statement or idle transaction of ours may last.
    settles_s = 2.0 * STATEMENT_S

    def __init__(self, address: Address, settings: Settings, clock: Clock) -> None:
        self.address, self.settings, self.clock = address, settings, clock
        self.fence = write.Fence()
        self._pool: asyncpg.Pool[Any] | None = None
        self._db: asyncpg.Connection[Any] | None = None
        self._listener: asyncpg.Connection[Any] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._changed = True
        self._telling: asyncio.Task[None] | None = None
        self._to_tell = False
        self.hears: list[Callable[[], None]] = []
        self._lost: StoreLost | None = None
        self._told: set[int] = set()
        self.database = PostgresDatabase.of(address, settings.transactions_max)

    @classmethod
    async def open(cls, address: str, settings: Settings, clock: Clock | None = None) -> PostgresStore:
        """For an engine or a client. Raises: `StoreUnavailable`, `NotAStore`, `StoreNewer`."""
        store = cls(address_of(address), settings, clock or EngineClock())
        try:
            await store._writer()
        except BaseException:
            await store.close()
            raise
        return store

    async def _writer(self) -> asyncpg.Connection[Any]:
        """The connection that writes; a new one where the one before broke."""
        if self._db is None or self._db.is_closed():
            db = await connected(self.address, "writer")
            try:
                await prepare(db, self.address, self.settings)
            except BaseException as error:
                db.terminate()
                raise mapped(error, "the store cannot be opened") from error
            self._db = db
        return self._db

    # --- commit --------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Awaitable[Committed]:
        """See `Store.commit`."""
        if self._lost is not None:
            raise self._lost
        return self._commit(batch, write.bound(batch, self.fence))

    async def _commit(self, batch: Batch, bound: list[Any]) -> Committed:
        async with self._writing:
            db = await self._writer()
            try:
                nos, repeated = await self._write(db, batch, bound)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, (*BROKEN, asyncio.CancelledError)):
                    db.terminate()
                if isinstance(error, asyncio.CancelledError):
                    raise
                found = mapped(error, "a batch was not written", sent=True)
                if isinstance(found, StoreLost):
                    self._lost = found
                raise found from error
        write.numbered(batch, nos)
        done = write.committed(batch, nos, repeated)
        if batch.inbox:
            self._tell()
        return done

    async def _write(self, db: asyncpg.Connection[Any], batch: Batch, bound: list[Any]) -> tuple[list[int], list[str]]:
        if write.plain(batch):
            row = await db.fetchrow(write.SQL["commit"], *bound)
            assert row is not None
            return row["nos"], row["repeated"]
        async with db.transaction():
            row = await db.fetchrow(write.SQL["commit"], *bound)
            assert row is not None
            await write.attach(db, batch, row["nos"])
        return row["nos"], row["repeated"]

    # --- hints ---------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Tell the nodes that there is something for them: a hint, which may be lost; one for all that came meanwhile."""
        self._to_tell = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._notify(), name="perdure-notify")

    async def _notify(self) -> None:
        with suppress(PerdureError, *BROKEN, asyncpg.PostgresError):
            while self._to_tell:
                self._to_tell = False
                async with self._reading() as db:  # outside the transactions that matter: it takes a lock of its own
                    await db.execute(write.SQL["notify"], self.channel, "")

    @property
    def channel(self) -> str:
        return f"perdure_{self.address.schema}"

    def changed(self) -> bool:
        """See `Store.changed`."""
        changed, self._changed = self._changed, False
        return changed

    def _heard(self, *_: Any) -> None:
        self._changed = True
        for told in self.hears:
            told()

    async def _listen(self) -> None:
        """Hear of what others write; where the connection breaks, the sweep finds it all the same."""
        while True:
            with suppress(PerdureError, *BROKEN, asyncpg.PostgresError):
                self._listener = await connected(self.address, "listener")
                gone = asyncio.Event()
                self._listener.add_termination_listener(lambda _, gone=gone: gone.set())
                await self._listener.add_listener(self.channel, self._heard)
                self._changed = True
                await gone.wait()
            await asyncio.sleep(1.0)

    # --- reading -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Any]:
        """A connection for reads. Raises: what went wrong, in the words of the protocol."""
        try:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self.address.dsn, min_size=0, max_size=READERS_MAX, command_timeout=STATEMENT_S * 2,
                    server_settings=session(self.address, "reader"),
                )  # fmt: skip
            async with self._pool.acquire() as db:
                yield db
        except PerdureError:
            raise
        except (*BROKEN, asyncpg.PostgresError) as error:
            raise mapped(error, CANNOT) from error

    async def load(self, ids: Sequence[str], *, whole: bool = False, snapshot: bool = False) -> list[Loaded]:
        """See `Store.load`."""
        if not ids:
            return []
        async with self._reading() as db, db.transaction(isolation="repeatable_read", readonly=True):
            return await read.load(db, ids, whole=whole, snapshot=snapshot)

    async def find(self, query: Query) -> list[RunRow]:
        """See `Store.find`."""
        async with self._reading() as db:
            return await read.find(db, query)

    async def inbox(self, after: int, limit: int, shards: Sequence[int] | None = None) -> list[InboxRow]:
        """See `Store.inbox`."""
        async with self._reading() as db:
            return await read.inbox(db, after, limit, None if shards is None else list(shards), told=self._told)

    async def answers(self, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """See `Store.answers`."""
        async with self._reading() as db:
            return await read.answers(db, requests)

    async def blobs(self, hashes: Sequence[str]) -> dict[str, bytes]:
        """See `Store.blobs`."""
        async with self._reading() as db:
            return await read.blobs(db, hashes)

    async def tombstones(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        """See `Upkeep.tombstones`."""
        async with self._reading() as db:
            return await read.tombstones(db, ids)

    # --- upkeep ----------------------------------------------------------------------------------------

    async def claim(self, node: str, pid: int, now: int, note: bytes = b"") -> tuple[int, list[EpochRow], int]:
        """See `Upkeep.claim`."""
        claim = UUID(int=self.clock.chance())
        async with self._writing:
            db = await self._writer()
            try:
                epoch = await db.fetchval(write.SQL["claim"], node, pid, claim, VERSION, now, note, LEASE_S)
                earlier = await read.epochs(db, epoch)
                clock = await db.fetchval(read.SQL["clock"])
            except (*BROKEN, asyncpg.PostgresError) as error:
                raise mapped(error, "the store cannot be claimed") from error
        self.fence = write.Fence(epoch, claim)
        self._listening = asyncio.create_task(self._listen(), name="perdure-listener")
        return epoch, earlier, clock

    async def backup(self, destination: str) -> None:
        """Raises: `BadCall`: PostgreSQL has its own ways."""
        raise BadCall(f"a PostgreSQL store is not copied to {destination} by perdure: use pg_basebackup or pg_dump")

    async def check(self) -> list[str]:
        """See `Upkeep.check`."""
        async with self._reading() as db:
            rows = await db.fetch(read.SQL["unheld"])
        return [row["wrong"] for row in rows]

    async def sizes(self) -> dict[str, int]:
        """See `Upkeep.sizes`."""
        async with self._reading() as db:
            return {row["name"]: row["rows"] for row in await db.fetch(read.SQL["sizes"])}

    async def close(self) -> None:
        """See `Store.close`."""
        for task, ends in ((self._telling, True), (self._listening, False)):
            if task is not None:
                if not ends:
                    task.cancel()
                await asyncio.wait([task], timeout=CLOSE_S)
                task.cancel()
        await self.database.close()
        for db in (self._listener, self._db):
            if db is not None and not db.is_closed():
                with suppress(*BROKEN, asyncpg.PostgresError):
                    await db.close(timeout=CLOSE_S)
        if self._pool is not None:
            self._pool.terminate()
