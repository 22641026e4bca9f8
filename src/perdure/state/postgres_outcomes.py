"""Transactions of steps in a PostgreSQL database, each with the step's outcome beside the user's rows.

A transaction begins with a lock that is named by its step, so that two attempts of a step never overlap, on whatever
nodes they are; one that finds an older attempt's there ends that one's session first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg

from perdure.errors import BadCall, OutcomeUnknown, PerdureError
from perdure.state.outcomes import NotYet, StepKey
from perdure.state.postgres_errors import BROKEN
from perdure.state.postgres_open import CONNECT_S, Address, address_of
from perdure.state.sql import statements

TABLE = "perdure_outcomes"
# How long an older attempt of the same step may take to go before its session is ended. Units: seconds.
OTHER_S, AGAIN_S = 2.0, 0.02
# How long a commit may take before it is asked elsewhere what became of it; how long the rest at an end. Units: seconds.
COMMIT_S, END_S = 30.0, 5.0
# SQLSTATE classes that pass by themselves: connection, resources, not in that state, operator, system.
_LATER = {"08", "53", "55", "57", "58"}
_Errors = (*BROKEN, asyncpg.PostgresError, ValueError)


class PostgresDatabase:
    """A database in which steps have transactions. Shape: `schema` where its table stands; empty: by the search path."""

    kind = "postgres"

    def __init__(self, dsn: str, schema: str, bound: int) -> None:
        self.dsn, self.bound, self.used = dsn, bound, False
        self.table = f'"{schema}".{TABLE}' if schema else TABLE
        self.sql = {
            name: text.replace("{table}", self.table) for name, text in statements("postgres", "outcomes").items()
        }
        self._pool: asyncpg.Pool[Any] | None = None
        self._there = False

    @classmethod
    def at(cls, text: str, bound: int) -> PostgresDatabase:
        """By an address. Shape: `?schema=` names where the table of outcomes stands."""
        address = address_of(text)
        given = "schema" in dict(parse_qsl(urlsplit(text).query))
        return cls(address.dsn, address.schema if given else "", bound)

    @classmethod
    def of(cls, address: Address, bound: int) -> PostgresDatabase:
        """The database that the store is in, with the table beside the store's own."""
        return cls(address.dsn, address.schema, bound)

    async def begin(self, key: StepKey) -> PostgresTransaction:
        """Begin one for this step. Raises: `NotYet` while the server cannot be had; `PerdureError`."""
        connection: Any = None
        try:
            connection = await self._connection()
            if not self._there:
                await self._make(connection)
            return await self._locked(connection, key)
        except BaseException as error:
            if connection is not None:
                await self._drop(connection)
            self._there = self._there and not isinstance(error, asyncpg.UndefinedTableError)
            if isinstance(error, _Errors):
                raise refusal(error, "no transaction can begin") from error
            raise

    async def _connection(self) -> Any:
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                self.dsn, min_size=0, max_size=self.bound, timeout=CONNECT_S,
                server_settings={"application_name": "perdure step"},
            )  # fmt: skip
        await self._pool
        return await self._pool.acquire()

    async def _make(self, connection: Any) -> None:
        """See to it that the table is there, whoever else does so now."""
        if not await connection.fetchval(self.sql["there"], self.table):
            async with connection.transaction():
                await connection.execute(self.sql["making"])
                await connection.execute(self.sql["table"])
        self._there = True

    async def _locked(self, connection: Any, key: StepKey) -> PostgresTransaction:
        loop = asyncio.get_running_loop()
        until, number = loop.time() + OTHER_S, key.number()
        while True:
            # What is looked up after the lock must be seen, so never by an older snapshot.
            began = connection.transaction(isolation="read_committed")
            await began.start()
            if await connection.fetchval(self.sql["lock"], number, str(number)):
                return PostgresTransaction(self, connection, began)
            await began.rollback()
            if loop.time() > until:
                await connection.execute(self.sql["end_other"], number)
            await asyncio.sleep(AGAIN_S)

    async def _drop(self, connection: Any) -> None:
        """Give back a connection that may be at anything."""
        connection.terminate()
        await self.give_back(connection)

    async def give_back(self, connection: Any) -> None:
        assert self._pool is not None
        with suppress(*_Errors):
            await self._pool.release(connection, timeout=END_S)

    async def close(self) -> None:
        """Let go of all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(END_S):
                    await pool.close()
            except (TimeoutError, *_Errors):
                pool.terminate()


class PostgresTransaction:
    """Shape: `connection` is the task's."""

    def __init__(self, database: PostgresDatabase, connection: Any, began: Any) -> None:
        self.database, self.connection = database, connection
        self._began = began
        self._ended = False

    async def look(self, key: StepKey) -> bytes | None:
        """The outcome that an earlier attempt left."""
        try:
            found: bytes | None = await self.connection.fetchval(self.database.sql["look"], *key)
        except _Errors as error:
            raise refusal(error, "no outcome could be looked up") from error
        return found

    async def keep(self, key: StepKey, attempt: int, result: bytes) -> None:
        """Write the outcome. Raises: `BadCall` when the task ended the transaction itself; what the server says."""
        kept = await self.connection.execute(self.database.sql["keep"], *key, attempt, result, str(key.number()))
        if not kept.endswith(" 1"):
            raise BadCall(f"step {key.step} ended its transaction itself: leave COMMIT and ROLLBACK to its return")

    async def commit(self) -> None:
        """Make all of it durable. Raises: `OutcomeUnknown` where that is to be looked up; what the server says."""
        try:
            async with asyncio.timeout(COMMIT_S):
                await self._began.commit()
        except _Errors as error:
            self.connection.terminate()
            if isinstance(error, BROKEN) or (getattr(error, "sqlstate", None) or "")[:2] in _LATER:
                raise OutcomeUnknown(f"the commit was not answered: {str(error) or type(error).__name__}") from error
            raise
        except BaseException:
            self.connection.terminate()
            raise
        self._ended = True

    async def close(self) -> None:
        """Give back the connection; what was not committed is rolled back."""
        if not self._ended:
            self._ended = True
            try:
                async with asyncio.timeout(END_S):
                    await self._began.rollback()
            except (*_Errors, asyncio.CancelledError):
                self.connection.terminate()
        await self.database.give_back(self.connection)

    def revoke(self, then: Callable[[], None]) -> None:
        """The attempt is being cancelled: where its code takes no notice of that, it loses its connection."""
        asyncio.get_running_loop().call_later(1.0, self._cut)
        then()

    def _cut(self) -> None:
        if not self._ended:
            with suppress(asyncpg.InterfaceError):
                self.connection.terminate()


def refusal(error: BaseException, doing: str) -> PerdureError:
    """The error for a step. Shape: `NotYet` where the server cannot be had now."""
    text, code = f"{doing}: {str(error) or type(error).__name__}", getattr(error, "sqlstate", None) or ""
    if isinstance(error, ValueError):
        return BadCall(f"{text}: postgresql://USER@HOST/DATABASE")
    if isinstance(error, BROKEN) or code[:2] in _LATER:
        return NotYet(text)
    if code == "42501":
        text += f": let its owner make the table {TABLE}, and give this user the right to read and insert"
    return BadCall(text)
