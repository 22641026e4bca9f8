"""Opening a SQLite file as a store: what must hold before the first write."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from perdure.clock import Clock, EngineClock
from perdure.errors import NotAStore, StoreBehind, StoreDamaged, StoreLost, StoreNewer, StoreUnavailable
from perdure.settings import Settings
from perdure.state.mark import Known
from perdure.state.sql import migrations, statements, tables
from perdure.state.sqlite_errors import mapped
from perdure.state.sqlite_row import crc_of

APPLICATION_ID = 0x50455244  # "PERD"
# The first SQLite without the bug in resetting the write-ahead log.
SQLITE_MIN = (3, 51, 3)
# Pages kept in memory by one connection.
CACHE_KIB = 8_192
# A file that is smaller holds no schema yet. Units: bytes.
FILE_MIN = 2 * 4_096
_NETWORK = {0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB2", 0x65735546: "FUSE"}
_TMPFS = 0x01021994


# How long to let another process go on that is making the file a store. Units: seconds.
POLL_S = 0.02


class Opened:
    """A file that is open, before and after it was prepared."""

    def __init__(self, path: str, settings: Settings, writer: apsw.Connection, *, engine: bool) -> None:
        self.path, self.settings, self.writer, self.engine = path, settings, writer, engine
        self.reader: apsw.Connection = writer
        self.notices: list[str] = []
        self.needs_full_check = False
        self.store_id = ""
        self.commits = 0

    def audited(self) -> None:
        """The full check after a failed sync is done: the note that asks for it goes."""
        Path(f"{self.path}.lost").unlink(missing_ok=True)

    async def ready(self, mark: Known | None, clock: Clock) -> None:
        """`prepare`, again while another process stands in the way: the switch to a write-ahead log does not wait itself.

        Raises: `StoreUnavailable` when it stood there longer than `busy_wait_s`.
        """
        until = clock.monotonic() + self.settings.busy_wait_s
        told = len(self.notices)
        while True:
            try:
                self.prepare(mark)
            except StoreUnavailable as error:
                if not isinstance(error.__cause__, apsw.BusyError) or clock.monotonic() >= until:
                    raise
            else:
                return
            del self.notices[told:]
            await asyncio.sleep(POLL_S)

    def prepare(self, mark: Known | None) -> None:
        """Check what the file is, bring its schema up to date, compare it with the mark."""
        try:
            self._identify()
            self._migrate()
            self._settle_pragmas()
            self.reader = _connect(self.path, self.settings)
            self.reader.pragma("query_only", True)
            self._compare(mark)
        except (apsw.Error, UnicodeDecodeError) as error:
            found = mapped(error, f"{self.path} cannot be opened")
            if isinstance(found, StoreLost):
                note_lost(self.path)
            raise found from error

    def _identify(self) -> None:
        application = self.writer.pragma("application_id")
        tables = self.writer.pragma("schema_version")
        if application not in {0, APPLICATION_ID} or (application == 0 and tables):
            raise NotAStore(f"{self.path} is no perdure store: it holds something else; name another file")

    def _migrate(self) -> None:
        """Each migration in one transaction of its own: killed in between, the next start goes on (F05)."""
        known = migrations("sqlite")
        newest = known[-1][0]
        version = self.writer.pragma("user_version")
        if version > newest:
            raise StoreNewer(
                f"{self.path} was written by a newer perdure (schema {version}, here {newest}): upgrade perdure"
            )
        if version == 0:
            self.writer.pragma("journal_mode", "wal")
        for number, script in known:
            if number > version:
                self._step(number, script)
        if Path(self.path).stat().st_size < FILE_MIN:
            # A new store's id must not be in the log alone: without its log it would be taken for a new one.
            self.writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _step(self, number: int, script: str) -> None:
        writer = self.writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            if writer.pragma("user_version") < number:
                writer.execute(script)
                writer.pragma("application_id", APPLICATION_ID)
                writer.pragma("user_version", number)
                write = statements("sqlite", "write")
                writer.execute(write["store_id"], (f"{EngineClock().chance() >> 64:016x}",))
                writer.execute(write["schema_sum"], (self._schema_sum(),))
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def _schema_sum(self) -> int:
        """A sum over the store's own tables; those that users put beside them are theirs to alter."""
        asked = statements("sqlite", "read")["schema"]
        return crc_of(*map(list, self.writer.execute(asked, (json.dumps([*tables("sqlite"), "sqlite_sequence"]),))))

    def _settle_pragmas(self) -> None:
        writer = self.writer
        if writer.pragma("journal_mode") != "wal":
            writer.pragma("journal_mode", "wal")
        writer.pragma("synchronous", "FULL" if self.settings.durability == "full" else "NORMAL")
        writer.pragma("wal_autocheckpoint", 0)  # the keeper empties the log, and sees when that fails
        if self.settings.durability != "full" and self.engine:
            self.notices.append("durability is relaxed: a power cut may take back what was acknowledged last")

    def _compare(self, mark: Known | None) -> None:
        """Hold the file against its own sums and its high-water mark. Raises: `StoreDamaged`, `StoreBehind`."""
        name, schema, pulse = (
            list(self.writer.execute(statements("sqlite", "read")[asked]))
            for asked in ("store_id", "schema_sum", "pulse")
        )
        if not name or schema != [(self._schema_sum(),)]:
            raise StoreDamaged(f"{self.path}: its schema was altered: restore a backup")
        if not _sound(pulse):
            raise StoreDamaged(f"{self.path}: its count of commits was altered: restore a backup")
        self.store_id, self.commits = name[0][0], pulse[0][0]
        if not self.engine:
            return
        if Path(f"{self.path}.lost").exists():
            self._check_all()
        if mark is None:
            # Without an engine before this one there are commits of clients only, which keep no mark while they are open.
            if self.commits and list(self.writer.execute(statements("sqlite", "read")["epochs"])):
                self.notices.append(
                    f"{self.path}.mark is missing: that nothing was taken back cannot be checked this time"
                )
        elif mark.store_id != self.store_id:
            self.notices.append(
                f"{self.path} is another store than the one that was here before (its mark begins afresh)"
            )
        elif self.commits < mark.commits:
            self._behind(mark)

    def _behind(self, mark: Known) -> None:
        missing = f"{self.path} holds {self.commits} commits, but {mark.commits} were acknowledged"
        if mark.relaxed:
            self.notices.append(f"{missing}: with relaxed durability, a power cut may take back the last ones")
        elif self.settings.accept_loss:
            self.notices.append(f"{missing}: the missing ones are given up, as was asked for (accept_loss)")
        else:
            raise StoreBehind(
                f"{missing}: its write-ahead log was lost, or it is an old copy. Put the right files back, or go on "
                "without what is missing: `perdure recover --accept-loss`"
            )

    def _check_all(self) -> None:
        """After a failed sync: take up what is on the disk, and look at all of it before any work (S27)."""
        self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        wrong = [str(row[0]) for row in self.writer.execute("PRAGMA integrity_check")]
        if wrong != ["ok"]:
            raise StoreDamaged(f"{self.path}: {wrong[0]} (and {len(wrong) - 1} more): restore a backup")
        self.needs_full_check = True
        self.notices.append(
            f"{self.path} was closed by a failed sync: its structure is sound, its histories are audited now"
        )

    def close(self) -> None:
        if self.reader is not self.writer:
            self.reader.close()
        self.writer.close()


def _sound(pulse: list[tuple[Any, ...]]) -> bool:
    """Whether its only row holds numbers, the last of which is the sum of the others."""
    return len(pulse) == 1 and all(isinstance(one, int) for one in pulse[0]) and sum(pulse[0][:-1]) == pulse[0][-1]


def note_lost(path: str) -> None:
    """Leave an empty note for the next start, which checks the store; the disk may refuse that too."""
    with suppress(OSError):
        Path(f"{path}.lost").touch()


def open_file(path: str, settings: Settings, *, engine: bool) -> Opened:
    """Open the file, nothing written yet. Raises: `StoreUnavailable`, `NotAStore`."""
    full = str(Path(path).expanduser().absolute())
    folder = Path(full).parent
    if not folder.is_dir():
        raise StoreUnavailable(f"folder {folder} does not exist: make it, or name another store")
    if Path(full).exists() and not Path(full).is_file():
        raise NotAStore(f"{full} is no file{' but a folder' if Path(full).is_dir() else ''}: name a file")
    if not engine and not Path(full).exists() and not os.access(folder, os.W_OK):
        raise StoreUnavailable(f"{full} does not exist and {folder} cannot be written")
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < SQLITE_MIN:
        raise StoreUnavailable(f"SQLite {apsw.sqlite_lib_version()} may damage its write-ahead log: upgrade apsw")
    kind = filesystem(str(folder))
    if kind in _NETWORK and not settings.force_filesystem:
        raise StoreUnavailable(
            f"{full} is on a {_NETWORK[kind]} file system, where locks and syncs cannot be relied on: use a local disk "
            "(or set force_filesystem)"
        )
    try:
        opened = Opened(full, settings, _connect(full, settings), engine=engine)
    except apsw.Error as error:
        raise mapped(error, f"{full} cannot be opened") from error
    if kind == _TMPFS and engine:
        opened.notices.append(f"{full} is in memory (tmpfs): it does not outlive this machine's power")
    return opened


def _connect(path: str, settings: Settings) -> apsw.Connection:
    connection = apsw.Connection(path, statementcachesize=200)
    connection.set_busy_timeout(round(settings.busy_wait_s * 1000))
    connection.pragma("trusted_schema", False)
    connection.pragma("foreign_keys", True)
    connection.pragma("mmap_size", 0)
    connection.pragma("cache_size", -CACHE_KIB)
    return connection


def filesystem(folder: str) -> int:
    """The magic number of the file system that holds the folder; 0 where it cannot be told."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    if not hasattr(libc, "statfs") or libc.statfs(folder.encode(), buffer) != 0:
        return 0
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF
