"""A sync fails, once or for ever: nothing is acknowledged after it, and the next start checks everything (F13, S27)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

import perdure
from perdure.errors import StoreLost
from tests.crash.harness import ROOT, Program, audited, requests_of, strace, until_async
from tests.crash.test_f01_every_system_call import ADDRESS, goes_on
from tests.crash.witness import notes
from tests.state import programs

pytestmark = pytest.mark.crash
# Of the syncs of a run: while the file is made (3, 5, 9), as the store is claimed (11), of the mark (12), of commits. Those
# of the folder (2, 6) are left out: SQLite makes them, and does not tell when they fail.
ONCE = (3, 5, 9, 11, 12, 14, 18)
FOREVER = (4, 16)
FAILED = re.compile(r"fdatasync\(\d+<(?P<path>[^>]*)>\) = -1 EIO .*\(INJECTED\)")
TOLD = re.compile(r"\bwrite\(\d+<[^>]*/(acks|steps)>, \"(?P<line>.*)\\n\"")
PROGRAM = """
from perdure import task, workflow
from tests.crash.witness import note

@task
def step(number: int) -> int:
    note("steps", number)
    return number + 1

@workflow
async def steps(count: int) -> int:
    for number in range(count):
        await step(number)
    return count
"""


@pytest.fixture(autouse=True)
def _witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", str(tmp_path))


def failing(number: int, *, forever: bool) -> list[str]:
    """Run a program so that its sync of this number fails."""
    tracer = strace()
    if tracer is None:
        pytest.skip("strace cannot run here; the simulated worlds of tests/simulation lose their stores without it")
    when = f"inject=fdatasync:error=EIO:when={number}{'+' if forever else ''}"
    return [tracer, "-f", "-qq", "-y", "-s", "200", "-e", "trace=fdatasync,pwrite64,write", "-e", when, "-o", "trace"]


def failed_path() -> Path:
    """Whose sync failed."""
    found = FAILED.search(Path("trace").read_text())
    assert found is not None, "no sync failed"
    return Path(found["path"])


def nothing_told_after_it() -> str:
    """Nothing was written to the log after the failure, nor told if it was a commit's; the file whose sync failed."""
    lines = Path("trace").read_text().splitlines()
    after = lines[next(at for at, line in enumerate(lines) if FAILED.search(line)) + 1 :]
    name = failed_path().name
    assert not [line for line in after if "pwrite64" in line and "small.db-wal>" in line], "another commit was tried"
    if name.endswith("-wal"):
        assert not [line for line in after if TOLD.search(line)], "somebody was told"
    return name


def threads_of() -> tuple[str, str]:
    """The program's first thread, and the one whose sync failed."""
    lines = Path("trace").read_text().splitlines()
    return lines[0].split()[0], next(line for line in lines if FAILED.search(line)).split()[0]


def is_noted() -> bool:
    return Path("small.db.lost").exists()


async def checked_and_goes_on(where: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The next start looks at everything first, and says so; nothing that was acknowledged is missing."""
    assert is_noted(), where
    capfd.readouterr()
    await goes_on(where)
    assert "was closed by a failed sync" in capfd.readouterr().err, where
    assert not is_noted(), where


@pytest.mark.parametrize(
    "number, forever", [*((number, False) for number in ONCE), *((number, True) for number in FOREVER)]
)
async def test_f13_nothing_is_acknowledged_after_a_failed_sync(
    number: int, forever: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: whichever sync fails, callers get StoreLost, the engine ends, the next start checks and goes on."""
    with Program("small", ADDRESS, before=failing(number, forever=forever)) as program:
        assert program.ends() == 1
        assert "perdure.errors.StoreLost" in program.errors[-1]
        assert "the next start checks the store" in program.errors[-1]
    where = f"sync {number} of {nothing_told_after_it()}"
    await checked_and_goes_on(where, capfd)


@pytest.mark.parametrize("number, forever", [(9, False), (11, False), (10, True)])
async def test_f13_a_commit_in_a_thread_whose_sync_fails_is_acknowledged_to_nobody(
    number: int, forever: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: the same where COMMIT is beside the loop (S30), which goes on meanwhile."""
    async with perdure.open(ADDRESS):
        pass  # strace counts by thread: with the file there, the loop's own makes fewer syncs than these
    with Program("beside", ADDRESS, before=failing(number, forever=forever)) as program:
        assert program.ends() == 1
        assert "perdure.errors.StoreLost" in program.errors[-1]
    assert nothing_told_after_it() == "small.db-wal"
    first, failed = threads_of()
    assert failed != first, "it was the loop's own thread"
    await checked_and_goes_on(f"sync {number} in a thread", capfd)


async def test_f13_the_command_line_exits_with_3_and_says_why(tmp_path: Path) -> None:
    """Goal: a program ends with a clear text, no traceback, and no result; given again, the command finishes the run."""
    (tmp_path / "prog.py").write_text(PROGRAM)
    command = [str(ROOT / "src/perdure/__main__.py"), "run", "prog.py", "-p", "count=3", "--store", ADDRESS]
    with Program(command[0], *command[1:], before=failing(15, forever=True)) as program:
        assert program.ends() == 3, program.said
        assert program.lines == []
        assert "Traceback" not in program.said
        assert "disk I/O error" in program.said
        assert "the engine stops, and the next start checks the store" in program.said
    assert nothing_told_after_it() == "small.db-wal"
    begun = len(notes("steps"))
    assert 0 < begun < 3
    with Program(command[0], *command[1:]) as program:
        assert program.ends() == 0, program.said
        assert program.lines == ["3"]
        assert "was closed by a failed sync" in program.said
        # What was not acknowledged may have reached the disk all the same.
        assert f"{begun - 1} step" in program.said or f"{begun} step" in program.said
    await audited(ADDRESS)


async def test_f13_a_client_whose_sync_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: what a client asked is not acknowledged; the next engine checks the store; asked again, it counts once."""
    async with perdure.open(ADDRESS, workflows=[programs.waits]) as engine:
        await engine.start(programs.waits, 1, id="one")
    asked = [
        str(ROOT / "src/perdure/__main__.py"),
        "signal",
        "one",
        "go",
        "5",
        "--request-id",
        "go",
        "--store",
        ADDRESS,
    ]
    with Program(asked[0], *asked[1:], before=failing(1, forever=True)) as program:
        assert program.ends() == 3
        assert program.lines == []
        assert "the next start checks the store" in program.said
    assert nothing_told_after_it() == "small.db-wal"
    capfd.readouterr()
    async with perdure.open(ADDRESS, workflows=[programs.waits]) as engine:
        assert "was closed by a failed sync" in capfd.readouterr().err
        await engine.get("one").signal("go", 5, request_id="go")
        assert await engine.get("one").result("60s") == 14
    (history,) = (await audited(ADDRESS, programs.waits)).values()
    assert requests_of(history)["go"] == 1


@pytest.mark.torture
@pytest.mark.timeout(600)
async def test_f13_each_sync_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: as above, at every sync that there is before the run has its result."""
    files = set()
    for forever in (False, True):
        for number in range(1, 100):
            folder = tmp_path / f"{number}-{forever}"
            folder.mkdir()
            monkeypatch.chdir(folder)
            monkeypatch.setenv("WITNESS", str(folder))
            with Program("small", ADDRESS, before=failing(number, forever=forever)) as program:
                code = program.ends()
            if failed_path() == folder:
                continue
            if ["result"] in notes("acks"):
                break
            assert code == 1, number
            files.add(nothing_told_after_it())
            await checked_and_goes_on(f"sync {number}", capfd)
        assert number > 15
    assert files >= {"small.db-journal", "small.db", "small.db-wal", "small.db.mark"}


async def test_f13_those_who_only_wait_are_told() -> None:
    """Goal: a sync that fails between two commits, as the log is emptied, is told to all who wait, though nobody writes."""
    async with perdure.open(ADDRESS, workflows=[programs.waits], **programs.SETTINGS) as engine:
        handle = await engine.start(programs.waits, 1)
        results = [asyncio.create_task(handle.result("60s")) for _ in range(2)]
        await until_async(lambda: len(engine.node.waiters.get(handle.id, ())) == 2, "both wait")
        engine.store._lost = StoreLost("simulated: the log could not be emptied")
        for result in results:
            with pytest.raises(StoreLost, match="could not be emptied"):
                await result
        with pytest.raises(StoreLost):
            await engine.start(programs.waits, 2)
