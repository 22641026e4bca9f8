"""Pool processes die with their node, and the next owner begins once all they started is gone too (F09, S16)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import perdure
from perdure.clock import EngineClock
from perdure.errors import StoreLocked
from perdure.state.roster import Roster
from tests.crash.harness import SIGKILLED, Program, alive, audited, until
from tests.crash.programs import pool
from tests.crash.witness import notes

pytestmark = pytest.mark.crash
ADDRESS = "sqlite:///pool.db"
ROSTER = Path("pool.db.pids")


@pytest.fixture(autouse=True)
def _witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", str(tmp_path))


def held() -> tuple[int, int]:
    """The pids of the pool's process and of the child that it started, once both are there."""
    found = until(lambda: notes("pids"), "a step in the pool")
    return int(found[0][0]), int(found[0][1])


@pytest.mark.parametrize("how", ["nothing", "unasked", "deaf"])
async def test_f09_s16_an_orphan_and_its_child_never_run_beside_the_next_attempt(how: str, tmp_path: Path) -> None:
    """Goal: however hard a pool process dies, nothing of it runs any more when another owner makes the step again."""
    with Program("pool", ADDRESS, how) as program:
        process, child = held()
        if how == "deaf":
            until((tmp_path / "deaf").exists, "it holds the interpreter's lock")
        assert program.kill() == SIGKILLED
        if how == "nothing":
            until(lambda: not alive(process), "the pool's process ends by itself")
        if how == "unasked":
            until(lambda: not alive(process) and not alive(child), "both end, since the pipe closed")
        if how == "deaf":
            assert alive(process), "nothing but the next owner can end this one"
        async with perdure.open(ADDRESS, workflows=[pool.pooled]) as engine:
            assert await engine.get("pooled").result(timeout="60s") == how
    assert not alive(process)
    assert not alive(child)
    assert notes("begun") == [["1", "beside"], ["1", "beside"]], "an orphan ran beside the next attempt"
    await audited(ADDRESS, pool.pooled)


async def test_f09_a_timed_out_attempt_leaves_nothing_behind() -> None:
    """Goal: an attempt that is ended by its timeout is ended with what it started, while its engine goes on."""
    with Program("pool", ADDRESS, "hasty") as program:
        process, child = held()
        assert program.ends() == 0, program.said
        assert program.lines == ["hasty"]
    assert not alive(process)
    until(lambda: not alive(child), "the child ends too")
    await audited(ADDRESS, pool.pooled)


async def test_f09_s25_a_clean_stop_leaves_no_process_and_nothing_to_wait_for() -> None:
    """Goal: a stop ends the pool's processes after the grace, and the next owner has nobody to wait for."""
    with Program("pool", ADDRESS, "nothing") as program:
        process, child = held()
        assert Path("pool.db.pids").exists()  # noqa: ASYNC240 - a look at /proc
        program.send(signal.SIGINT)
        program.ends()
        assert "stopped" in program.lines, program.said
    assert not alive(process)
    until(lambda: not alive(child), "the child ends too")
    assert not Path("pool.db.pids").exists()  # noqa: ASYNC240 - a look at /proc
    async with perdure.open(ADDRESS, workflows=[pool.pooled]) as engine:
        assert await engine.get("pooled").result(timeout="60s") == "nothing"
    await audited(ADDRESS, pool.pooled)


async def test_s16_another_process_of_the_same_number_is_neither_waited_for_nor_killed(tmp_path: Path) -> None:
    """Goal: pids are used again; a stranger that has one of them now is left alone."""
    roster = Roster(str(tmp_path / "s.db"))
    with Program("stranger") as stranger:
        stranger.hears("here")
        roster.add(stranger.pid)
        text = roster.path.read_text().splitlines()
        pid, started = text[1].split()
        roster.path.write_text(f"{text[0]}\n{pid} {int(started) - 1}\n{pid}")
        await roster.gone(0.0, EngineClock())
        assert alive(stranger.pid)
        roster.path.write_text(f"another boot\n{pid} {started}\n")
        await roster.gone(0.0, EngineClock())
        assert alive(stranger.pid)


async def test_s16_an_owner_does_not_begin_while_a_process_of_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a process that cannot be ended is named, and the store is not touched beside it."""
    monkeypatch.setattr("perdure.state.roster._kill", lambda member: None)
    roster, told = Roster(str(tmp_path / "s.db")), []
    with Program("stranger") as stranger:
        stranger.hears("here")
        roster.add(stranger.pid)
        with pytest.raises(StoreLocked, match=f"process {stranger.pid}, which worked for the engine before"):
            await roster.gone(0.0, EngineClock(), told.append)
    assert told == [stranger.pid]
