"""What keeps a SQLite store healthy, and what is asked of it beside its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.state.lock import FileLock, held_by
from perdure.state.sqlite_copy import check_file, copy_file
from perdure.state.sqlite_keep import Keeper
from perdure.state.sqlite_read import Reader
from perdure.state.store import EpochRow


class SqliteUpkeep:
    """The part of `SqliteStore` that moves no run."""

    path: str
    _read: Reader
    _keeper: Keeper
    _lock: FileLock | None

    def _usable(self) -> None:
        """Raises: why the store cannot be used any more."""
        raise NotImplementedError

    async def tombstones(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        """See `Upkeep.tombstones`."""
        self._usable()
        return self._read.tombstones(ids)

    async def epochs(self) -> list[EpochRow]:
        """See `Upkeep.epochs`. The newest runs while an engine holds the file's lock."""
        self._usable()
        found = self._read.epochs()
        if found:
            found[0].live = self._lock is not None or held_by(self.path) != 0
            found[0].until = 0 if found[0].live else self._read.rows("pulse")[0][1]
        return found

    async def backup(self, destination: str) -> None:
        """See `Upkeep.backup`. Raises: `StoreUnavailable` when there is such a file, or the copy cannot be written."""
        self._usable()
        await asyncio.to_thread(copy_file, self.path, destination)

    async def check(self) -> list[str]:
        """See `Upkeep.check`."""
        self._usable()
        return await asyncio.to_thread(check_file, self.path)

    async def sizes(self) -> dict[str, int]:
        """See `Upkeep.sizes`. Shape: beside the rows, the bytes of the file and of its write-ahead log."""
        self._usable()
        return self._read.sizes() | self._keeper.bytes()
