"""SIGKILL around commits that hold the user's rows: one row a step, never two, and none missing once the run has ended."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import apsw
import pytest

import perdure
from tests.crash.harness import (
    MUTATING,
    ROOT,
    SIGKILLED,
    Program,
    audited,
    creating_opens,
    deaths,
    mutating_calls,
    outcomes_of,
    strace,
    until,
)
from tests.crash.programs import booked
from tests.crash.witness import notes

pytestmark = pytest.mark.crash
ADDRESS = "sqlite:///store.db"
TRACED = f"trace={','.join(MUTATING)}"
# In `make test` every so many calls of a kind; all of them in `make torture`.
EVERY = {"pwrite64": 16, "write": 6, "fdatasync": 5, "fsync": 4, "openat": 9, "unlink": 2, "ftruncate": 2}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", ".")
    monkeypatch.chdir(tmp_path)


def rows(kind: str) -> list[int]:
    connection = apsw.Connection("store.db" if kind.startswith("own") else "rows.db")
    try:
        return [number for (number,) in connection.execute("select number from booked order by number")]
    finally:
        connection.close()


async def goes_on(kind: str, count: int, where: str) -> None:
    """Another engine ends the run; then each step's row is there once, whatever was committed before the death."""
    async with perdure.open(ADDRESS, workflows=[booked.booked]) as engine:
        handle = await engine.start(booked.booked, kind, count, id="booked")
        assert await handle.result(timeout="60s") == list(range(count)), where
    (history,) = (await audited(ADDRESS, booked.booked)).values()
    assert set(outcomes_of(history).values()) == {1}, where
    assert rows(kind) == list(range(count)), f"{where}: {rows(kind)}"


@pytest.mark.parametrize("kind", booked.KINDS)
@pytest.mark.parametrize("window", booked.WINDOWS)
async def test_killed_in_each_window_around_the_commit(kind: str, window: str) -> None:
    """Goal: a step's code is run again only where its commit did not take place; its row is there once."""
    with Program("booked", ADDRESS, kind, 1, env={"DIE": window}) as program:
        assert program.ends() == SIGKILLED
    assert [where for where, _ in deaths()] == [window]
    await goes_on(kind, 1, window)
    begun = Counter(number for (number,) in notes("steps"))
    assert begun == {"0": {"begun": 1, "committed": 1}.get(window, 2)}


# --- system calls -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracer() -> str:
    found = strace()
    if found is None:
        pytest.skip("strace cannot run here; the windows and the random deaths kill without it")
    return found


def planned(tracer: str, folder: Path, kind: str) -> list[tuple[str, int]]:
    """Every mutating call of a whole run of two steps: its name, and which of that name it is."""
    folder.mkdir()
    traced = [tracer, "-f", "-qq", "-e", TRACED, "-o", str(folder / "trace")]
    command = [*traced, sys.executable, "-m", "tests.crash.programs.booked", ADDRESS, kind, "2"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "WITNESS": str(folder)}
    subprocess.run(command, check=True, capture_output=True, env=env, cwd=folder)
    trace = (folder / "trace").read_text()
    counted = mutating_calls(trace).items()
    calls = [(name, number) for name, count in counted if name != "openat" for number in range(1, count + 1)]
    return calls + [("openat", number) for number in creating_opens(trace)]


async def kill_and_go_on(tracer: str, tmp_path: Path, kind: str, calls: list[tuple[str, int]]) -> Counter[str]:
    """Kill at each of these calls, in a store of its own each; how many deaths there were by kind of call."""
    died: Counter[str] = Counter()
    for name, number in calls:
        folder = tmp_path / f"{name}-{number}"
        folder.mkdir()
        os.chdir(folder)
        injected = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
        with Program("booked", ADDRESS, kind, 2, before=[tracer, "-f", "-qq", *injected, "-o", "trace"]) as program:
            died[name] += program.ends() == SIGKILLED
        await goes_on(kind, 2, f"{name} {number}")
    return died


@pytest.mark.parametrize("kind", ["thread", "own"])
async def test_killed_at_a_sample_of_the_system_calls(tracer: str, kind: str, tmp_path: Path) -> None:
    """Goal: each kind of call that changes a file, of the store's or the user's, may be the last one."""
    plan, kinds, sample = planned(tracer, tmp_path / "plan", kind), Counter[str](), []
    for name, number in plan:
        if kinds[name] % EVERY.get(name, 1) == 0:
            sample.append((name, number))
        kinds[name] += 1
    died = await kill_and_go_on(tracer, tmp_path, kind, sample)
    assert set(died) == set(kinds) >= {"pwrite64", "fdatasync", "openat"}
    assert sum(died.values()) >= 0.8 * len(sample), f"of {len(sample)} planned deaths these took place: {died}"


@pytest.mark.torture
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", booked.KINDS)
async def test_killed_at_every_system_call(tracer: str, kind: str, tmp_path: Path) -> None:
    """Goal: as above, for every single call of every kind of task."""
    plan = planned(tracer, tmp_path / "plan", kind)
    died = await kill_and_go_on(tracer, tmp_path, kind, plan)
    assert sum(died.values()) >= 0.9 * len(plan), f"of {len(plan)} planned deaths these took place: {died}"


# --- any time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["thread", "own"])
async def test_killed_again_and_again_while_many_steps_commit(kind: str) -> None:
    """Goal: engines that die among hundreds of commits leave one row a step."""
    count, chance, died = 300, random.Random(kind), 0
    for _ in range(4):
        with Program("booked", ADDRESS, kind, count) as program:
            wanted = len(notes("steps")) + chance.randrange(5, 60)
            until(lambda: len(notes("steps")) >= wanted or program.process.poll() is not None, "steps")  # noqa: B023
            died += program.kill() == SIGKILLED
    assert died >= 3
    begun = len(notes("steps"))
    await goes_on(kind, count, "at random")
    assert begun > 0
