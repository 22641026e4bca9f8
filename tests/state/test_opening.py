"""Opening a store while other processes open the same new file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw

import perdure
from perdure import workflow


@workflow
async def nothing() -> None:
    """Nothing."""


async def test_f19_a_file_that_another_process_is_making_a_store_is_waited_for(tmp_path: Path) -> None:
    """Goal: the switch to a write-ahead log, which SQLite refuses at once while somebody writes, is tried again."""
    path = tmp_path / "new.db"
    other = apsw.Connection(str(path))
    other.execute("PRAGMA user_version = 0; BEGIN IMMEDIATE")
    opening = asyncio.create_task(opened_once(f"sqlite:///{path}"))
    done, _ = await asyncio.wait([opening], timeout=0.3)
    assert not done, "it neither fails nor goes on while somebody writes"
    other.execute("ROLLBACK")
    other.close()
    await opening


async def opened_once(address: str) -> None:
    async with perdure.open(address, workflows=[nothing], busy_wait_s=5) as engine:
        await (await engine.start(nothing)).result()
