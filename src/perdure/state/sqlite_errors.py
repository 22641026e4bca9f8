"""What SQLite says, in the words of the Store protocol."""

from __future__ import annotations

import apsw

from perdure.errors import (
    NotAStore,
    PerdureError,
    StoreDamaged,
    StoreLost,
    StoreUnavailable,
)
from perdure.state.store import BatchRefused

_SYNC_FAILED = {
    apsw.SQLITE_IOERR_FSYNC,
    apsw.SQLITE_IOERR_DIR_FSYNC,
    apsw.SQLITE_IOERR_TRUNCATE,
}


def mapped(error: apsw.Error | UnicodeDecodeError, doing: str) -> PerdureError:
    """The error for a caller. `doing` begins the message."""
    extended = getattr(error, "extendedresult", 0)
    text = f"{doing}: {error}"
    if extended in _SYNC_FAILED:
        return StoreLost(
            f"{text}; what was written may not be kept: the engine stops, and the next start checks the store"
        )
    if extended == apsw.SQLITE_IOERR_SHMSIZE:  # the one write for which SQLite does not say that the disk is full
        text = f"{doing}: the disk is full, its -shm file cannot grow"
    if isinstance(error, apsw.FullError) or extended == apsw.SQLITE_IOERR_SHMSIZE:
        return StoreUnavailable(f"{text}: free some space, it goes on by itself")
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError | apsw.CantOpenError):
        return StoreUnavailable(f"{text}: the file or its folder cannot be written")
    if isinstance(error, apsw.BusyError | apsw.LockedError | apsw.IOError | apsw.NoMemError | apsw.ProtocolError):
        return StoreUnavailable(text)
    if isinstance(error, apsw.NotADBError):
        return NotAStore(f"{text}: it is no perdure store")
    # Every statement fits the schema, and every text is one: else the file is not what was written.
    if isinstance(error, apsw.CorruptError | apsw.SQLError | UnicodeDecodeError):
        return StoreDamaged(f"{text}: restore a backup, or run `perdure doctor`")
    return BatchRefused(text)
