"""SIGKILL at every system call that changes a file: what was acknowledged is there, nothing is half done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

import perdure
from tests.crash.harness import (
    MUTATING,
    ROOT,
    SIGKILLED,
    Program,
    audited,
    creating_opens,
    mutating_calls,
    outcomes_of,
    requests_of,
    strace,
    until,
)
from tests.crash.programs import small
from tests.crash.witness import notes

pytestmark = pytest.mark.crash
ADDRESS = "sqlite:///small.db"
TRACED = f"trace={','.join(MUTATING)}"
# In `make test` every so many calls of a kind; all of them in `make torture`.
EVERY = {"pwrite64": 25, "write": 6, "fdatasync": 8, "fsync": 6, "openat": 5, "unlink": 2, "ftruncate": 2}


@pytest.fixture(scope="module")
def tracer() -> str:
    found = strace()
    if found is None:
        pytest.skip("strace cannot run here; test_f01_killed_as_the_log_grows kills without it")
    return found


@pytest.fixture(scope="module")
def plan(tracer: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    """Every mutating call of a whole run: its name, and which of that name it is."""
    folder = tmp_path_factory.mktemp("plan")
    traced = [tracer, "-f", "-qq", "-e", TRACED, "-o", str(folder / "trace")]
    command = [*traced, sys.executable, "-m", "tests.crash.programs.small", f"sqlite:///{folder}/small.db"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "WITNESS": str(folder)}
    subprocess.run(command, check=True, capture_output=True, env=env, cwd=folder)
    trace = (folder / "trace").read_text()
    calls = mutating_calls(trace)
    counted = [(name, number) for name, count in calls.items() if name != "openat" for number in range(1, count + 1)]
    return counted + [("openat", number) for number in creating_opens(trace)]


def killed_at(tracer: str, name: str, number: int) -> bool:
    """Run the program until that call, counted over all its threads; whether it died there."""
    injected = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
    with Program("small", ADDRESS, before=[tracer, "-f", "-qq", *injected, "-o", "trace"]) as program:
        return program.ends() == SIGKILLED


async def goes_on(where: str, deaths: int = 1) -> None:
    """The client comes back with what it was not told; then all must be as if nothing had happened."""
    said = {words[0] for words in notes("acks", Path.cwd())}
    async with perdure.open(ADDRESS, workflows=[small.small], **small.SETTINGS) as engine:
        if said:
            assert (await engine.get("small").state()).history, f"{where}: an acknowledged start was lost"
        assert await small.drive(engine, said) == small.RESULT, where
    histories = await audited(ADDRESS, small.small)
    whole = histories.pop("small")
    assert len(histories) == 1, f"{where}: children {list(histories)}"
    assert requests_of(whole) == {"start-1": 1, "go-1": 1}, where
    assert set(outcomes_of(whole).values()) == {1}, where
    begun = Counter(
        (run, step, argument) for run, step, argument, what in notes("steps", Path.cwd()) if what == "start"
    )
    ended = {(run, step, argument) for run, step, argument, what in notes("steps", Path.cwd()) if what == "end"}
    assert set(begun) == ended, f"{where}: {begun}"
    assert len(begun) == 4, f"{where}: {begun}"
    # Each step once, and once more at most for each death and for the failure that it begins with.
    assert max(begun.values()) <= 2 + deaths, f"{where}: {begun}"


async def kill_and_go_on(tracer: str, tmp_path: Path, calls: list[tuple[str, int]]) -> Counter[str]:
    """Kill at each of these calls, in a store of its own each; how many deaths there were by kind of call."""
    died: Counter[str] = Counter()
    os.environ["WITNESS"] = "."
    for name, number in calls:
        folder = tmp_path / f"{name}-{number}"
        folder.mkdir()
        os.chdir(folder)
        died[name] += killed_at(tracer, name, number)
        await goes_on(f"{name} {number}")
    return died


async def test_f01_killed_at_a_sample_of_the_system_calls(
    tracer: str, plan: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: each kind of call that changes a file may be the last one; the run goes on from what was acknowledged."""
    monkeypatch.setenv("WITNESS", ".")
    monkeypatch.chdir(tmp_path)
    kinds: Counter[str] = Counter()
    sample = []
    for name, number in plan:
        if kinds[name] % EVERY.get(name, 1) == 0:
            sample.append((name, number))
        kinds[name] += 1
    died = await kill_and_go_on(tracer, tmp_path, sample)
    assert set(died) == set(kinds) >= {"pwrite64", "fdatasync", "ftruncate", "unlink", "openat", "write"}
    assert sum(died.values()) >= 0.8 * len(sample), f"of {len(sample)} planned deaths these took place: {died}"
    assert all(died.values()), died


async def test_f01_killed_as_the_log_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the same without strace, so everywhere: killed from outside when the write-ahead log has grown so far."""
    monkeypatch.setenv("WITNESS", ".")
    deaths = 0
    for pages in (1, 8, 16, 24, 32):
        folder = tmp_path / f"pages-{pages}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        with Program("small", ADDRESS) as program:
            until(partial(grown, program, folder / "small.db-wal", pages * 4096), "growth")
            deaths += program.kill() == SIGKILLED
        await goes_on(f"{pages} pages")
    assert deaths >= 3


def grown(program: Program, log: Path, size: int) -> bool:
    """Whether the log is so large, or the program has ended."""
    return program.process.poll() is not None or (log.exists() and log.stat().st_size > size)


@pytest.mark.torture
@pytest.mark.timeout(1800)
async def test_f01_killed_at_every_system_call(
    tracer: str, plan: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: as above, for every single call, and past the last of each kind until the program ends by itself."""
    monkeypatch.setenv("WITNESS", ".")
    monkeypatch.chdir(tmp_path)
    died = await kill_and_go_on(tracer, tmp_path, plan)
    assert sum(died.values()) >= 0.9 * len(plan), f"of {len(plan)} planned deaths these took place: {died}"
    for name in died:
        if name != "openat":
            past = tmp_path / f"{name}-past"
            past.mkdir()
            monkeypatch.chdir(past)
            assert not killed_at(tracer, name, 10_000)
            await goes_on(f"past the last {name}")
