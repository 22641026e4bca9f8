"""A store of an older schema is brought up to date, and that may be cut off anywhere (F05)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure.errors import StoreDamaged, StoreUnavailable
from perdure.state import sqlite_open
from perdure.state.sql import migrations
from tests.crash.harness import ROOT, SIGKILLED, Program, audited, strace
from tests.state import migrated, programs
from tests.state.disk import WRITE, Disk
from tests.state.power import State, record, states

ADDRESS = "sqlite:///s.db"
NEWEST = migrations("sqlite")[-1][0]


def schema(path: str = "s.db") -> tuple[int, list[Any]]:
    """The version that a file says it has, and the schema that it has."""
    database = apsw.Connection(path)
    try:
        assert [row[0] for row in database.execute("PRAGMA integrity_check")] == ["ok"]
        return database.pragma("user_version"), sorted(database.execute("SELECT type, name, sql FROM sqlite_schema"))
    finally:
        database.close()


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    """The schema of each version, one migration after the other."""
    database = apsw.Connection(str(tmp_path_factory.mktemp("schemas") / "all.db"))
    found: dict[int, list[Any]] = {0: []}
    for number, script in migrated.all_migrations():
        database.execute(script)
        found[number] = sorted(database.execute("SELECT type, name, sql FROM sqlite_schema"))
    database.close()
    return found


def lay(state: State, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    for path in folder.iterdir():
        path.unlink()
    for name, data in state.files.items():
        (folder / name).write_bytes(data)


async def goes_on() -> None:
    """All that the old store held is there; what was unfinished ends."""
    programs.fresh()
    async with perdure.open(ADDRESS, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        assert await engine.get("one").result("60s") == programs.RESULT
        await engine.get("two").signal("go", 5, request_id="go-two")
        assert await engine.get("two").result("60s") == 14
        assert {key[1:] for key in programs.made} == {("look", 7)}, "no step that had ended is made again"
    assert len(await audited(ADDRESS, programs.mixed, programs.inner, programs.waits)) == 3


async def explored(
    folder: Path, schemas: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch, *, every: int, chances: int
) -> set[int]:
    """Start on each of the disks that a death or a power cut may leave; the versions of the schema that were found."""
    tracer = strace()
    if tracer is None:
        pytest.skip("strace cannot run here, so that no writes can be recorded")
    made = folder / "made"
    made.mkdir()
    events = record(tracer, made, "tests.state.migrated", "s.db", env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"})
    monkeypatch.setattr(sqlite_open, "migrations", migrated.all_migrations)
    seen, looked = set(), 0
    for state in states(events, 5, every=every, chances=chances):
        if state.acknowledged == 0:
            continue
        lay(state, folder / "found", monkeypatch)
        version, there = schema()
        assert there == schemas[version], f"after {state.at} events: version {version}"
        assert state.acknowledged < 2 or version == NEWEST + 1
        lay(state, folder / "found", monkeypatch)  # looking at it has moved its log into it
        async with perdure.open(ADDRESS, []):
            pass
        assert schema() == (NEWEST + 1, schemas[NEWEST + 1])
        if version not in seen:
            await goes_on()
        seen.add(version)
        looked += 1
    assert looked > 20
    return seen


@pytest.mark.crash
async def test_f05_cut_off_anywhere_it_is_the_old_schema_or_the_new_one(
    tmp_path: Path, schemas: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: never one between; the next start completes it, and nothing is missing."""
    seen = await explored(tmp_path, schemas, monkeypatch, every=2, chances=1)
    assert seen == {1, 2, 3}


@pytest.mark.torture
@pytest.mark.timeout(900)
async def test_f05_cut_off_anywhere_in_many_ways(
    tmp_path: Path, schemas: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the same, after each event, with many samples of what was not synced."""
    assert await explored(tmp_path, schemas, monkeypatch, every=1, chances=12) == {1, 2, 3}


async def old(path: str = "s.db") -> None:
    """A store as the first version wrote it."""
    programs.fresh()
    await migrated.today("today.db")
    migrated.downgrade("today.db", path)


async def test_f05_a_store_of_the_first_version_goes_on(schemas: dict[int, list[Any]]) -> None:
    """Goal: a file that was written before there were sums over all of it is read, verified, and gone on with."""
    await old()
    assert schema() == (1, schemas[1])
    await goes_on()
    assert schema() == (NEWEST, schemas[NEWEST])


async def test_f05_a_full_disk_at_each_write_of_it_leaves_the_old_schema_until_there_is_space(
    schemas: dict[int, list[Any]],
) -> None:
    """Goal: who opens it is told, and may try again."""
    await old()
    for number in range(1, 100):
        with Disk() as disk:
            disk.full(number)
            try:
                async with perdure.connect(ADDRESS):
                    pass
            except StoreUnavailable as error:
                told = str(error)
            else:
                break
        assert disk.failed[WRITE]
        assert "free some space" in told
        version, there = schema()
        assert there == schemas[version]
    assert number > 5
    await goes_on()


async def test_f05_a_migration_that_fails_changes_nothing(
    schemas: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: of the statements of one migration all take place or none."""
    await old()
    half = (NEWEST + 1, migrated.LATER + "INSERT INTO no_such_table VALUES (1);")
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_open, "migrations", lambda store: [*migrations(store), half])
        with pytest.raises(StoreDamaged, match="no such table"):
            async with perdure.open(ADDRESS, []):
                pass
    assert schema() == (NEWEST, schemas[NEWEST])
    await goes_on()


@pytest.mark.crash
@pytest.mark.parametrize("number", [3, 8, 12])
async def test_f05_killed_as_it_migrates(number: int, schemas: dict[int, list[Any]], tmp_path: Path) -> None:
    """Goal: a real process, killed at a write of the migration, leaves the old schema or the new one."""
    tracer = strace()
    if tracer is None:
        pytest.skip("strace cannot run here")
    await old()
    (tmp_path / "opens.py").write_text("import perdure\nwith perdure.connect('sqlite:///s.db'):\n    print('open')\n")
    injected = ["-e", "trace=pwrite64", "-e", f"inject=pwrite64:signal=KILL:when={number}"]
    with Program("opens.py", before=[tracer, "-f", "-qq", *injected, "-o", "trace"]) as program:
        assert program.ends() == SIGKILLED
        assert program.lines == []
    version, there = schema()
    assert version in {1, 2}
    assert there == schemas[version]
    await goes_on()
