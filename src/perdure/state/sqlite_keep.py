"""Keeping a SQLite file in order beside its commits: its log is emptied, its high-water mark is written."""

from __future__ import annotations

import logging
from contextlib import suppress
from errno import EIO
from pathlib import Path

import apsw

from perdure.clock import Clock
from perdure.errors import StoreLost
from perdure.state.mark import Known, Mark
from perdure.state.sqlite_open import Opened

log = logging.getLogger("perdure.store")
# The log is emptied into the file when it holds so many pages. Syncing a log that grows takes twice as long as one that
# is written over, so a new one should be full soon; emptying it more often than this costs what many runs at once gain.
LOG_PAGES = 2_000
# A log that is not emptied, since somebody reads an old state of it, is told of at this size. Units: bytes.
LOG_ALARM = 64 << 20


class Keeper:
    """Shape: an engine's connection is the only one that empties the log; clients leave it alone.

    An emptying whose sync fails is an error like any other: SQLite's own would keep it to itself.
    """

    def __init__(self, opened: Opened, clock: Clock, *, relaxed: bool, engine: bool) -> None:
        self._db, self._clock, self._engine = opened.writer, clock, engine
        self._file, self._log = Path(opened.path), Path(f"{opened.path}-wal")
        self._mark = Mark(opened.path)
        self._store_id, self._relaxed = opened.store_id, relaxed
        self._inode = _inode(self._file)
        self._pages = 0
        self._empty_at = LOG_PAGES
        self._alarmed = False
        self._db.set_wal_hook(self._grown)

    def _grown(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def due(self, now_s: float) -> bool:
        """Whether there is something to be done after a commit."""
        return self._engine and (self._pages >= self._empty_at or self._mark.due(now_s))

    def committed(self, commits: int) -> None:
        """After a commit, before the next.

        Raises: `apsw.Error` when the log cannot be emptied, or the mark cannot be synced; `StoreLost` when the file is
                no longer where it was.
        """
        if not self._engine:
            return
        if self._pages >= self._empty_at:
            self._empty()
        now_s = self._clock.monotonic()
        if self._mark.due(now_s):
            if _inode(self._file) != self._inode:
                raise StoreLost(f"{self._file} was removed or replaced while it was open: the engine stops")
            self._write_mark(commits, now_s)
            self._look()

    def _empty(self) -> None:
        self._empty_at = self._pages + LOG_PAGES // 4  # the next try, if this one fails
        total, moved = self._db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._empty_at = LOG_PAGES if moved >= total else total + LOG_PAGES

    def _write_mark(self, commits: int, now_s: float) -> None:
        try:
            self._mark.write(Known(self._store_id, commits, self._relaxed), now_s)
        except OSError as error:
            if error.errno == EIO:
                raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC) from error
            log.warning("the high-water mark cannot be written: %s", error)

    def _look(self) -> None:
        """Tell once when the log has grown too large."""
        large = self.bytes()["wal_bytes"] > LOG_ALARM
        if large and not self._alarmed:
            log.warning(
                "%s is over %d MiB: something has read the store for long (a backup?), so it cannot be emptied",
                self._log,
                LOG_ALARM >> 20,
            )
        self._alarmed = large

    def bytes(self) -> dict[str, int]:
        """How large the file and its log are."""
        return {"file_bytes": _size(self._file), "wal_bytes": _size(self._log)}

    def close(self, commits: int, *, lost: bool) -> None:
        """The last word on the mark."""
        if not lost and self._store_id:
            known = self._mark.read()
            if self._engine or known is None or (known.store_id == self._store_id and known.commits < commits):
                with suppress(apsw.Error):
                    self._write_mark(commits, self._clock.monotonic())
        self._mark.close()


def _inode(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
