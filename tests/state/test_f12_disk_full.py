"""The disk is full at a write, and later has space again (F12)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.errors import StoreUnavailable
from tests.crash.harness import audited, until_async
from tests.state import programs
from tests.state.disk import WRITE, Disk
from tests.state.paces import beside_the_loop

ADDRESS = "sqlite:///full.db"
# In `make test` every so many writes; each of them in `make torture`.
EVERY, EVERY_BESIDE = 3, 12


class Trial:
    """One life of a store whose disk has no space from one write on, until somebody was refused for it."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.refused: list[str] = []

    async def insists(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until it is granted. After a refusal there is space again."""

        async def asked() -> list[Any]:
            try:
                return [await ask()]
            except StoreUnavailable as error:
                self.refused.append(str(error))
                self.disk.free()
                return []

        return (await until_async(asked, "it goes on"))[0]

    async def open(self) -> perdure.Engine:
        """The refusal may come before there is an engine."""
        engine: perdure.Engine = await self.insists(
            perdure.open(ADDRESS, [programs.mixed], **programs.SETTINGS).__aenter__
        )
        return engine

    async def client(self, engine: perdure.Engine) -> Any:
        """What a client does; each of its requests has an id, so that it may be said again."""
        await self.insists(lambda: engine.start(programs.mixed, 3, id="one", request_id="start"))
        await self.insists(lambda: engine.get("one").signal("go", 7, request_id="go"))
        return await engine.get("one").result("60s")

    async def watch(self, engine: perdure.Engine) -> None:
        """As soon as the engine meets the full disk: new work is refused, reading goes on; then there is space."""
        await until_async(lambda: engine.node.failed is not None, "the engine meets the full disk")
        with pytest.raises(StoreUnavailable, match=r"takes no writes now.*disk is full.*free some space"):
            await engine.start(programs.mixed, 4, id="two", request_id="new")
        shown = [run.id async for run in engine.runs()]
        for run in shown:
            assert (await engine.get(run).state()).metadata
        async with perdure.connect(ADDRESS) as client:
            assert [run.id async for run in client.runs()] == shown
            with pytest.raises(StoreUnavailable, match="disk is full"):
                await client.start(programs.mixed, 4, id="three")
        self.refused.append(str(engine.node.failed))
        self.disk.free()


async def beside(asking: Coroutine[Any, Any, Any], watching: asyncio.Task[None]) -> Any:
    """What is asked for; what the watcher finds wrong ends it at once."""
    asked = asyncio.create_task(asking)
    try:
        while not asked.done():
            await asyncio.wait({asked, watching} if not watching.done() else {asked}, return_when="FIRST_COMPLETED")
            if watching.done():
                watching.result()
        return asked.result()
    finally:
        asked.cancel()
        watching.cancel()


async def full_at(first: int | None) -> tuple[int, bool]:
    """A whole run with no space from this write on; how many writes there were, and whether somebody was told."""
    programs.fresh()
    with Disk() as disk:
        if first is not None:
            disk.full(first)
        trial = Trial(disk)
        engine = await trial.open()
        watching = asyncio.create_task(trial.watch(engine))
        try:
            assert await beside(trial.client(engine), watching) == programs.RESULT
        finally:
            await engine.stop()
        fired = disk.failed[WRITE]
        assert fired or first is None or first > disk.calls[WRITE]
    async with perdure.open(ADDRESS, [programs.mixed]):
        pass  # the next start finds all that was acknowledged, or would refuse the store
    histories = await audited(ADDRESS, programs.mixed, programs.inner)
    assert len(histories) == 2, "only what was acknowledged is there"
    assert set(programs.made.values()) == {1}, f"no attempt that ended was made again: {programs.made}"
    assert len(programs.made) == 5
    for said in trial.refused:
        assert "disk is full" in said
        assert "free some space" in said
    return disk.calls[WRITE], bool(trial.refused)


async def swept(every: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the disk at each write of a run, but for those left out."""
    writes, refused = await full_at(None)
    assert not refused
    assert writes > 50
    told = 0
    numbers = range(1, writes + 1, every)
    for number in numbers:
        where = folder / str(number)
        where.mkdir()
        monkeypatch.chdir(where)
        _, refused = await full_at(number)
        told += refused
    assert told >= len(numbers) * 0.8, "nearly all of them were met by somebody"


async def test_f12_the_disk_is_full_at_a_sample_of_the_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: new work is refused in clear words, reading goes on, all resumes alone, nothing is made twice or damaged."""
    await swept(EVERY, tmp_path, monkeypatch)


async def test_f12_the_disk_is_full_while_commit_is_made_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the same where a slow disk has moved COMMIT off the loop (S30)."""
    threads = beside_the_loop(monkeypatch)
    await swept(EVERY_BESIDE, tmp_path, monkeypatch)
    assert any(name.startswith("perdure-commit") for name in threads)


@pytest.mark.torture
@pytest.mark.timeout(900)
async def test_f12_the_disk_is_full_at_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the same at every write."""
    await swept(1, tmp_path, monkeypatch)
