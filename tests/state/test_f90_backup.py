"""A backup while runs go on: a copy of one moment, that verifies and goes on; nothing is written over (F90)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

import perdure
from perdure.errors import StoreUnavailable
from perdure.settings import Settings
from perdure.state.sqlite import SqliteStore
from tests.crash.harness import ROOT, Program, audited, strace, until_async
from tests.state import programs

ADDRESS = "sqlite:///s.db"
COPIES = 5


def commits_of(store: SqliteStore) -> int:
    return int(store._read.rows("pulse")[0][0])


@asynccontextmanager
async def loaded() -> AsyncIterator[perdure.Engine]:
    """An engine whose runs go on and on: short ones, those that wait, those with blobs."""
    programs.fresh()
    async with perdure.open(ADDRESS, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:

        async def keep_starting(name: str) -> None:
            for number in count():
                run = await engine.start(programs.waits, number, id=f"{name}-{number}", request_id=f"{name}-{number}")
                if number % 3:
                    await run.signal("go", 1)
                    await run.result("60s")

        await engine.start(programs.mixed, 3, id="one")
        await engine.get("one").signal("go", 7)
        loads = [asyncio.create_task(keep_starting(name)) for name in ("a", "b", "c")]
        try:
            await until_async(lambda: commits_of(engine.store) > 50, "it is busy")
            yield engine
            assert not any(load.done() for load in loads)
        finally:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)


async def holds(path: str, least: int, most: int) -> None:
    """The copy is the store as it was after some commit of that time; it verifies, and its runs go on."""
    store = await SqliteStore.open_client(path, Settings())
    try:
        assert least <= commits_of(store) <= most
    finally:
        await store.close()
    address = f"sqlite:///{path}"
    assert len(await audited(address, programs.mixed, programs.inner, programs.waits)) > 10
    async with perdure.open(address, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        run = await engine.start(programs.waits, 1, id="after-the-backup")
        await run.signal("go", 5)
        assert await run.result("60s") == 14
        waiting = [row.id async for row in engine.runs(status="waiting")]
        assert waiting
        await engine.get(waiting[0]).signal("go", 1)
        await engine.get(waiting[0]).result("60s")


@pytest.mark.slow
async def test_f90_copies_made_under_load_are_each_the_store_of_one_moment() -> None:
    """Goal: the engine goes on beside it, and whatever moment a copy is of, it verifies and can be gone on with."""
    spans = []
    async with loaded() as engine:
        for number in range(COPIES):
            least = commits_of(engine.store)
            await engine.store.backup(f"copy-{number}.db")
            spans.append((least, commits_of(engine.store)))
        before = commits_of(engine.store)
        await until_async(lambda: commits_of(engine.store) > before + 10, "it goes on")
    assert any(most > least for least, most in spans), "commits were made beside a copy"
    for number, (least, most) in enumerate(spans):
        if number in {0, COPIES - 1}:
            await holds(f"copy-{number}.db", least, most)
    assert parts() == []


@pytest.mark.crash
async def test_f90_the_command_copies_beside_an_engine() -> None:
    """Goal: another process makes the copy while the engine commits."""
    command = [str(ROOT / "src/perdure/__main__.py"), "backup", "copy.db", "--store", ADDRESS]
    async with loaded() as engine:
        least = commits_of(engine.store)
        with Program(command[0], *command[1:]) as program:
            await until_async(lambda: program.process.poll() is not None, "the copy is made")
            assert program.ends() == 0, program.said
            assert "copy.db is written" in program.said
        most = commits_of(engine.store)
    assert most > least
    await holds("copy.db", least, most)
    with Program(command[0], *command[1:]) as program:
        assert program.ends() == 2
        assert "copy.db exists: a backup goes to a new file" in program.said


def is_there(name: str) -> bool:
    return Path(name).exists()


def parts() -> list[str]:
    """What is left of copies that were not finished."""
    return [path.name for path in Path().glob("*.part*")]


def content(name: str) -> bytes:
    return Path(name).read_bytes()


async def small() -> None:
    async with perdure.open(ADDRESS, [programs.waits], **programs.SETTINGS) as engine:
        await engine.start(programs.waits, 1, id="one")


@pytest.mark.parametrize("there", ["s.db", "other.txt"])
async def test_f90_nothing_that_holds_anything_is_written_over(there: str, tmp_path: Path) -> None:
    """Goal: a backup to a file that is there is refused, the store's own above all, and leaves it as it was."""
    (tmp_path / "other.txt").write_text("kept")
    await small()
    before = content(there)
    store = await SqliteStore.open_client("s.db", Settings())
    try:
        with pytest.raises(StoreUnavailable, match="exists: name a new file for the backup"):
            await store.backup(there)
        with pytest.raises(StoreUnavailable, match=r"backup to .*unable to open"):
            await store.backup("no/such/folder/copy.db")
    finally:
        await store.close()
    assert content(there) == before


@pytest.mark.crash
async def test_f90_a_copy_for_which_there_is_no_space_is_not_left_behind(tmp_path: Path) -> None:
    """Goal: a full disk is told, no half copy stays, the store is as it was, and a copy can be made once there is space."""
    tracer = strace()
    if tracer is None:
        pytest.skip("strace cannot run here")
    await small()
    full = ["-P", str(tmp_path / "copy.db.part"), "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC:when=3+"]
    command = [str(ROOT / "src/perdure/__main__.py"), "backup", "copy.db", "--store", ADDRESS]
    with Program(command[0], *command[1:], before=[tracer, "-f", "-qq", *full, "-o", "trace"]) as program:
        assert program.ends() == 3, program.said
        assert "backup to " in program.said
        assert "disk is full" in program.said
    assert "INJECTED" in (tmp_path / "trace").read_text()
    assert parts() == []
    assert not is_there("copy.db")
    with Program(command[0], *command[1:]) as program:
        assert program.ends() == 0, program.said
    assert set(await audited(ADDRESS, programs.waits)) == set(await audited("sqlite:///copy.db", programs.waits))
