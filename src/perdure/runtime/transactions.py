"""Attempts that commit with the user's own data: what they did and its outcome become durable together, or not at all.

Whether an attempt commits is decided once: its own code seals it, or a timeout, a cancellation or a stop revokes it. A
sealed one is waited for, a revoked one can have no effect any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from perdure.authoring.transaction import POSTGRES, SQLITE
from perdure.errors import BadCall, PerdureError
from perdure.runtime import served
from perdure.runtime.hold import hold_of, key_of, settled_before
from perdure.state.gate import Place
from perdure.state.outcomes import NotYet, StepKey
from perdure.state.sqlite_outcomes import SqliteDatabase, SqliteTransaction

if TYPE_CHECKING:
    from perdure.model.task import TaskSpec
    from perdure.runtime.attempt import Attempt
    from perdure.runtime.pools import Pools

# How often a thread that waits for its turn looks whether it is still wanted, and how often a busy file is tried.
LOOK_S: Final = 0.1
AGAIN_S: Final = 0.01
# How long a statement on the loop may wait for readers of a file that keeps no write-ahead log.
LOOP_WAIT_MS: Final = 500
NO_OWN = "transaction=True: this store keeps no database that a task could write to: give the address of one"


class Transactions:
    """The databases that steps of this node commit with. Shape: `own` is the store's, where it can be used so."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.own: Any = None
        self._databases: dict[str, Any] = {}

    # --- which database --------------------------------------------------------------------------------

    def prepare(self, attempt: Attempt) -> None:
        """On the loop, before it begins: from now on the store's commits take turns with steps in its file."""
        if attempt.spec.transaction is True and self.own is not None:
            self.own.used = True

    def database(self, spec: TaskSpec) -> Any:
        """Raises: `BadCall` where there is none for this task."""
        address = spec.transaction
        if address is True:
            if self.own is None:
                raise BadCall(f"task {spec.name}: {NO_OWN}")
            found = self.own
        else:
            assert isinstance(address, str)
            found = self._databases.get(address)
            if found is None:
                found = self._databases.setdefault(address, self._open(address))
        if found.kind != "sqlite" and spec.pool != "async":
            raise BadCall(f"task {spec.name}: a transaction on PostgreSQL needs an async task: write async def")
        return found

    def _open(self, address: str) -> Any:
        if address.startswith(POSTGRES):
            return self._served(address)
        made = SqliteDatabase(address.removeprefix(SQLITE), busy_wait_s=self.pools.settings.busy_wait_s)
        # The store's own file under its own address is the store's own file.
        return self.own if self.own is not None and getattr(self.own, "path", "") == made.path else made

    def _served(self, address: str) -> Any:
        try:
            room = import_module("perdure.state.postgres_outcomes")  # its driver is an optional dependency
        except ImportError as error:
            raise BadCall('a transaction on PostgreSQL needs asyncpg: pip install "perdure[postgres]"') from error
        return room.PostgresDatabase.at(address, self.pools.settings.transactions_max)

    # --- making attempts -------------------------------------------------------------------------------

    def in_thread(self, attempt: Attempt) -> None:
        """Make a sync attempt. Raises: what its code raises; nothing of it is kept then."""
        hold, database = hold_of(attempt), self.database(attempt.spec)
        place = database.gate.ask(Place())
        hold.place = database.gate, place
        transaction = None
        try:
            while not place.mine.wait(LOOK_S):
                if hold.over:
                    return
            transaction = self._begin(database, attempt)
            if transaction is not None and not self._known(attempt, transaction):
                attempt.succeed(attempt.call(), self.pools.payload_max)
                self._commit(attempt, transaction)
        finally:
            if transaction is not None:
                _close(attempt, transaction)
            database.gate.leave(place)

    async def on_loop(self, attempt: Attempt, driven: Awaitable[Any]) -> None:
        """Make an async attempt. Raises: as `in_thread`."""
        hold, database = hold_of(attempt), self.database(attempt.spec)
        if database.kind != "sqlite":
            await served.make(attempt, database, driven, self.pools.payload_max)
            return
        place = await database.gate.turn()
        hold.place = database.gate, place
        transaction = None
        try:
            while transaction is None:
                transaction = self._try(database, attempt, LOOP_WAIT_MS)
                if transaction is None:
                    await asyncio.sleep(AGAIN_S)
            if not self._known(attempt, transaction):
                attempt.succeed(await driven, self.pools.payload_max)
                self._commit(attempt, transaction)
        finally:
            if transaction is not None:
                _close(attempt, transaction)
            database.gate.leave(place)

    def _begin(self, database: SqliteDatabase, attempt: Attempt) -> SqliteTransaction | None:
        """Begin, in a thread, as soon as no other process writes; None: the attempt was over first."""
        pause, hold = threading.Event(), hold_of(attempt)
        while not hold.over:
            transaction = self._try(database, attempt, None)
            if transaction is not None:
                return transaction
            pause.wait(AGAIN_S)
        return None

    def _try(self, database: SqliteDatabase, attempt: Attempt, wait_ms: int | None) -> SqliteTransaction | None:
        hold = hold_of(attempt)
        try:
            transaction = database.begin(wait_ms)
        except NotYet:
            return None
        if not hold.take(transaction):
            transaction.close()
            return None
        if database.own:
            bound = round(self.pools.settings.transaction_max_s * 1e6)
            self.pools.loop.call_soon_threadsafe(self.pools.expiries.add, bound, attempt, "held")
        return transaction

    def _known(self, attempt: Attempt, transaction: SqliteTransaction) -> bool:
        """Whether nothing is to be run; else its code may have the connection."""
        if settled_before(attempt, transaction.look(key_of(attempt))):
            return True
        hold_of(attempt).connection = transaction.connection
        return False

    def _commit(self, attempt: Attempt, transaction: SqliteTransaction) -> None:
        """Commit what the attempt did with its outcome, if it still counts."""
        result, key = attempt.result, key_of(attempt)
        if result is None:
            return
        attempt.result = None
        transaction.keep(key, attempt.number, result, self.pools.clock.now_us())
        if not hold_of(attempt).seal():
            return
        try:
            transaction.commit()
        except PerdureError:
            if not self._took_place(transaction.database, key):
                raise
        attempt.result = result

    @staticmethod
    def _took_place(database: SqliteDatabase, key: StepKey) -> bool:
        """What became of a commit that failed."""
        again: SqliteTransaction | None = None
        while again is None:
            with suppress(NotYet):
                again = database.begin()
        try:
            return again.look(key) is not None
        finally:
            again.close()

    # --- ending ----------------------------------------------------------------------------------------

    def revoke(self, attempt: Attempt) -> bool:
        """See to it that the attempt has no effect any more. False: its commit is under way."""
        hold = hold_of(attempt)
        if hold.over:
            return True
        if not hold.revoke():
            return False
        if hold.transaction is not None:
            hold.transaction.revoke(hold.let_go)
        return True

    async def close(self) -> None:
        """Let go of all databases."""
        for database in self._databases.values():
            if database is not self.own:
                closing = database.close()
                if closing is not None:
                    await closing


def _close(attempt: Attempt, transaction: SqliteTransaction) -> None:
    """The code has ended, and the connection goes with it."""
    hold_of(attempt).connection = None
    transaction.close()
