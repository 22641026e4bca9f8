"""Every store passes the one suite that is shipped to users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure.settings import Settings
from perdure.state.memory import MemoryStore
from perdure.state.postgres import PostgresStore
from perdure.state.sqlite import SqliteStore
from perdure.testing.conformance import CHECKS
from tests.postgres.server import Server


@pytest.mark.parametrize("name", CHECKS)
async def test_the_memory_store_conforms(name: str) -> None:
    """Goal: the reference store keeps every promise."""
    store = MemoryStore()

    async def opened() -> Any:
        return store

    await CHECKS[name](opened)


@pytest.mark.parametrize("beside", [False, True], ids=["inline", "in-a-thread"])
@pytest.mark.parametrize("name", CHECKS)
async def test_sqlite_conforms(name: str, beside: bool, tmp_path: Path) -> None:
    """Goal: SQLite keeps every promise, wherever its COMMIT runs."""

    async def opened() -> Any:
        store = await SqliteStore.open_engine(str(tmp_path / "s.db"), Settings(lock_wait_s=0))
        store._pace.slow = beside
        return store

    await CHECKS[name](opened)


@pytest.mark.parametrize("name", CHECKS)
async def test_postgres_conforms(name: str, postgres: Server) -> None:
    """Goal: PostgreSQL keeps every promise."""
    address = postgres.address()

    async def opened() -> Any:
        return await PostgresStore.open(address, Settings())

    await CHECKS[name](opened)
