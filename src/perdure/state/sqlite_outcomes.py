"""Transactions of steps in a SQLite file, each with the step's outcome beside the user's rows.

A transaction has a connection of its own and the file's write lock from its begin, so two attempts of a step never
overlap. Nothing commits but `commit`: neither what a task says itself, nor one whose time is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw

from perdure.errors import BadCall, PerdureError
from perdure.state.gate import Gate
from perdure.state.outcomes import NotYet, StepKey
from perdure.state.sql import statements
from perdure.state.sqlite_errors import mapped

# How long to wait before a connection that is in use is tried to be closed again. Units: seconds.
AGAIN_S = 0.005


class SqliteDatabase:
    """A file in which steps have transactions.

    Shape: `own` where it is the engine's store, which is synced as `durability` says; `used` once a step has asked.
    """

    kind = "sqlite"

    def __init__(self, path: str, *, busy_wait_s: float, own: bool = False, durability: str = "full") -> None:
        self.path = str(Path(path).expanduser().absolute())
        self.own, self.gate, self.used = own, Gate(), False
        self._busy_ms = round(busy_wait_s * 1000)
        self._sync = "EXTRA" if durability == "full" else "NORMAL"
        # Open as long as this is: the last connection that is closed would empty and remove the write-ahead log each time.
        self._kept: apsw.Connection | None = None

    def begin(self, wait_ms: int | None = None) -> SqliteTransaction:
        """Begin one, without waiting.

        Units: `wait_ms`: how long its statements may wait for readers of a file that keeps no write-ahead log.
        Raises: `NotYet` while another process writes; `PerdureError`.
        """
        connection: apsw.Connection | None = None
        try:
            if self._kept is None and not self.own:
                self._kept = self._connect()
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            return SqliteTransaction(
                self, connection, self._busy_ms if wait_ms is None else min(wait_ms, self._busy_ms)
            )
        except apsw.Error as error:
            if connection is not None:
                connection.close(True)
            raise refusal(error, f"no transaction can begin in {self.path}") from error

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(self.path)
        try:
            connection.pragma("synchronous", self._sync)
            if self.own:
                connection.pragma("wal_autocheckpoint", 0)  # only the engine empties its log
        except BaseException:
            connection.close(True)
            raise
        return connection

    def close(self) -> None:
        """Let go of the file."""
        if self._kept is not None:
            self._kept.close(True)
            self._kept = None


class SqliteTransaction:
    """Shape: `connection` is the task's; `committed` once its rows are durable."""

    def __init__(self, database: SqliteDatabase, connection: apsw.Connection, busy_ms: int) -> None:
        self.database, self.connection = database, connection
        self.committed = self._may = self._over = False
        connection.set_commit_hook(self._refuses)
        connection.execute(_SQL["table"])
        connection.set_busy_timeout(busy_ms)

    def _refuses(self) -> bool:
        return not self._may

    def look(self, key: StepKey) -> bytes | None:
        """The outcome that an earlier attempt left."""
        found = self.connection.execute(_SQL["look"], key).fetchone()
        return None if found is None else bytes(found[0])

    def keep(self, key: StepKey, attempt: int, result: bytes, at: int) -> None:
        """Write the outcome. Raises: `BadCall` when the task ended the transaction itself; `PerdureError`."""
        if not self.connection.in_transaction:
            raise BadCall(f"step {key.step} ended its transaction itself: leave COMMIT and ROLLBACK to its return")
        try:
            self.connection.execute(_SQL["keep"], (*key, attempt, result, at))
        except apsw.Error as error:
            raise refusal(error, f"the outcome of step {key.step} was not written to {self.database.path}") from error

    def commit(self) -> None:
        """Make all of it durable. Raises: `PerdureError`; whether it took place is then to be looked up."""
        self._may = True
        try:
            self.connection.execute("COMMIT")
            self.committed = True
        except apsw.Error as error:
            raise refusal(error, f"a transaction was not committed in {self.database.path}") from error
        finally:
            self._may = False
            self.close()

    def close(self) -> None:
        """Let go of the connection; what was not committed is gone. Done twice, or beside `revoke`, it changes nothing."""
        while not self._over:
            self._try_close()

    def revoke(self, then: Callable[[], None]) -> None:
        """Take all of it back, whatever the task is at: its thread cannot be stopped, but its connection can."""
        threading.Thread(target=self._take_back, args=(then,), name="perdure-revoke", daemon=True).start()

    def _take_back(self, then: Callable[[], None]) -> None:
        pause = threading.Event()
        while not self._over:
            with suppress(apsw.Error):
                self.connection.interrupt()
            self._try_close()
            pause.wait(AGAIN_S)
        then()

    def _try_close(self) -> None:
        with suppress(apsw.ThreadingViolationError):  # in use by the other of the two
            self.connection.close(True)
            self._over = True


_SQL = statements("sqlite", "outcomes")


def refusal(error: apsw.Error, doing: str) -> PerdureError:
    """The error for a step. Shape: `NotYet` while another process writes."""
    if isinstance(error, apsw.BusyError):
        return NotYet(f"{doing}: {error}")
    if isinstance(error, apsw.NotADBError | apsw.CantOpenError):
        return BadCall(f"{doing}: {error}: name a SQLite file in a folder that is there")
    return mapped(error, doing)
