"""What a SQLite store is like: for `doctor`, and for clients that ask who runs it."""

from __future__ import annotations

import apsw
import msgspec

from perdure.state.lock import held_by
from perdure.state.mark import Known, Mark
from perdure.state.sqlite import SqliteStore
from perdure.state.store import EpochRow


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Units: sizes in bytes. Shape: `holder` is the pid of the engine that holds the store, 0 when none does."""

    path: str
    store_id: str
    sqlite: str
    schema: int
    file_size: int
    wal_size: int
    commits: int
    mark: Known | None
    holder: int
    sizes: dict[str, int]


def holder_of(store: SqliteStore) -> int:
    """The pid of the engine that holds the store now, 0 when none does, -1 when it cannot be told which."""
    return held_by(store.path)


async def newest_epochs(store: SqliteStore) -> list[EpochRow]:
    """The newest engines on the store, the newest first."""
    return store._read.epochs()


async def unheard_in(store: SqliteStore) -> list[str]:
    """Messages of the inbox that cannot be read here (altered, or of a kind that is not known), with the reason."""
    return store._read.unheard()


async def health_of(store: SqliteStore) -> Health:
    """Raises: `StoreError` where it cannot be read."""
    sizes = await store.sizes()
    return Health(
        path=store.path,
        store_id=store.store_id,
        sqlite=apsw.sqlite_lib_version(),
        schema=int(store._db.pragma("user_version")),
        file_size=sizes.pop("file_bytes"),
        wal_size=sizes.pop("wal_bytes"),
        commits=store._read.rows("pulse")[0][0],
        mark=Mark(store.path).read(),
        holder=held_by(store.path),
        sizes=sizes,
    )
