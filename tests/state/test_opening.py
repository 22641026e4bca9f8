"""Opening a store while other processes open the same new file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

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


async def test_an_engine_that_comes_first_beside_a_client_misses_no_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: what a client wrote into a new store is no sign of a loss; a mark that an engine kept and is gone is."""
    address = f"sqlite:///{tmp_path}/new.db"
    async with perdure.connect(address, workflows=[nothing]) as client:
        await client.start(nothing, id="a")
        (tmp_path / "new.db.mark").unlink(missing_ok=True)
        await opened_once(address)
    assert "is missing" not in capsys.readouterr().err
    (tmp_path / "new.db.mark").unlink()
    await opened_once(address)
    assert "new.db.mark is missing" in capsys.readouterr().err
