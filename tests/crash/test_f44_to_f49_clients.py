"""Signals and cancels from another process than the engine's: said often, out of time, against each other (F44 to F49)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import RunCancelled
from perdure.errors import UnknownRun, WrongState
from perdure.model import fact as f
from tests.crash.harness import SIGKILLED, Program, audited, requests_of, until
from tests.crash.programs import waits
from tests.crash.programs.waits import counts, ignores
from tests.crash.witness import notes

pytestmark = pytest.mark.crash
ADDRESS = "sqlite:///clients.db"


@pytest.fixture(autouse=True)
def _witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", str(tmp_path))


@pytest.fixture
def server() -> Iterator[Program]:
    with Program("server", ADDRESS) as program:
        program.hears("ready")
        yield program


def client() -> Any:
    return perdure.connect(ADDRESS, workflows=[waits])


async def test_f44_a_signal_said_a_hundred_times_by_many_and_hours_later_counts_once(server: Program) -> None:
    """Goal: one request id is one signal, from however many clients, and after the run and its engine have ended."""
    with client() as one:
        one.start(counts, 2, id="c")

    def say(_: int) -> None:
        with client() as mine:
            for _ in range(10):
                mine.signal("c", "go", 1, request_id="hook-1")

    with ThreadPoolExecutor(10) as many:
        list(many.map(say, range(10)))
    with client() as one:
        assert one.get("c").status() == "waiting"
        one.signal("c", "go", 2, request_id="hook-2")
        assert one.get("c").result("60s") == [1, 2]
        one.signal("c", "go", 1, request_id="hook-1")
    assert server.kill() == SIGKILLED
    with client() as one:
        one.signal("c", "go", 2, request_id="hook-2")
    history = (await audited(ADDRESS, waits))["c"]
    assert requests_of(history) == {"hook-1": 1, "hook-2": 1}


async def test_f45_signals_keep_the_order_in_which_they_were_acknowledged(server: Program) -> None:
    """Goal: order is that of arrival, over an engine's death and on replay."""
    with client() as one:
        one.start(counts, 60, id="c")
        for number in range(60):
            if number == 20:
                assert server.kill() == SIGKILLED
            if number == 40:
                server = Program("server", ADDRESS)
            one.signal("c", "go", number)
        assert one.get("c").result("60s") == list(range(60))
    server.close()
    await audited(ADDRESS, waits)


async def test_f47_a_signal_before_the_start_or_after_the_end_is_an_error_and_leaves_nothing(server: Program) -> None:
    """Goal: nobody is told that a signal counts which nobody will ever read."""
    with client() as one:
        with pytest.raises(UnknownRun, match="no run 'c'"):
            one.signal("c", "go", 1, request_id="early")
        one.start(counts, 1, id="c")
        one.signal("c", "go", 7, request_id="right")
        assert one.get("c").result("60s") == [7]
        with pytest.raises(WrongState, match="has ended"):
            one.signal("c", "go", 1, request_id="late")
        with pytest.raises(WrongState, match="has ended"):
            one.cancel("c")
    assert server.kill() == SIGKILLED
    history = (await audited(ADDRESS, waits))["c"]
    assert requests_of(history) == {"right": 1}


async def test_f47_what_is_asked_while_there_is_no_engine_is_kept_for_the_next() -> None:
    """Goal: starts, signals and cancels are durable when they return, with nobody there to read them."""
    with client() as one:
        one.start(counts, 2, id="c")
        one.signal("c", "go", 1)
        one.signal("c", "go", 2)
        one.start(counts, 2, id="d")
        one.cancel("d", "not needed")
        assert [one.get(run).status() for run in ("c", "d")] == ["queued", "queued"]
    with Program("server", ADDRESS) as server, client() as one:
        server.hears("ready")
        assert one.get("c").result("60s") == [1, 2]
        with pytest.raises(RunCancelled, match="not needed"):
            one.get("d").result("60s")
    await audited(ADDRESS, waits)


async def test_f48_a_cancel_that_races_the_end_leads_to_one_of_the_two(server: Program) -> None:
    """Goal: whoever wins, a run ends once, and its client is told which way."""
    runs = [f"c{number}" for number in range(40)]
    with client() as one:
        for run in runs:
            one.start(counts, 1, id=run)

    def race(act: str) -> list[str]:
        told = []
        with client() as mine:
            for run in runs:
                try:
                    mine.signal(run, "go", 1) if act == "go" else mine.cancel(run)
                    told.append(run)
                except WrongState:
                    continue
        return told

    with ThreadPoolExecutor(2) as both:
        told = dict(zip(("go", "cancel"), both.map(race, ("go", "cancel")), strict=True))
    ends = {}
    with client() as one:
        for run in runs:
            try:
                ends[run] = one.get(run).result("60s")
            except RunCancelled:
                ends[run] = "cancelled"
    assert server.kill() == SIGKILLED
    assert set(told["go"]) | set(told["cancel"]) == set(runs)
    for run, history in (await audited(ADDRESS, waits)).items():
        assert sum(isinstance(fact, f.ENDS) for fact in history) == 1
        assert isinstance(history[-1], f.RunCancelled if ends[run] == "cancelled" else f.RunCompleted)
        assert run in told["cancel" if ends[run] == "cancelled" else "go"]


async def test_f49_a_run_is_cancelled_though_its_engine_is_dead() -> None:
    """Goal: a cancel that was acknowledged beside a dead engine ends the run at the next start."""
    with Program("server", ADDRESS) as server, client() as one:
        server.hears("ready")
        one.start(counts, 1, id="c")
        until(lambda: one.get("c").status() == "waiting", "the run waits")
        assert server.kill() == SIGKILLED
        one.cancel("c", "nobody answers", request_id="stop-1")
        assert one.get("c").status() == "waiting"
    with Program("server", ADDRESS) as server, client() as one, pytest.raises(RunCancelled, match="nobody answers"):
        one.get("c").result("60s")
    await audited(ADDRESS, waits)


async def test_f49_a_step_that_ignores_its_cancel_ends_the_run_and_is_not_recorded_late(server: Program) -> None:
    """Goal: a thread cannot be stopped; its run ends all the same, and what it returns later changes nothing."""
    with client() as one:
        one.start(ignores, 3, id="c")
        until(lambda: notes("marks"), "the step has begun")
        one.cancel("c", "enough")
        with pytest.raises(RunCancelled, match="enough"):
            one.get("c").result("60s")
        before = one.get("c").state().history
        (Path.cwd() / "gate").touch()
        until(lambda: ["c", "freed", "3"] in notes("marks"), "the thread has gone on to its end")
        one.start(counts, 1, id="later")
        one.signal("later", "go", 1)
        assert one.get("later").result("60s") == [1]
        assert one.get("c").state().history == before
    assert server.kill() == SIGKILLED
    await audited(ADDRESS, waits)
