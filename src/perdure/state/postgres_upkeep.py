"""What is asked of a PostgreSQL store beside its runs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from perdure.state import postgres_read as read

if TYPE_CHECKING:
    from perdure.state.store import EpochRow


class PostgresUpkeep:
    """The part of `PostgresStore` that moves no run."""

    def _reading(self) -> AbstractAsyncContextManager[Any]:
        """A connection for reads."""
        raise NotImplementedError

    async def epochs(self) -> list[EpochRow]:
        """See `Upkeep.epochs`. One runs while its lease does."""
        async with self._reading() as db:
            return await read.newest_epochs(db)
