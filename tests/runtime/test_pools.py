"""Attempts in real processes and threads: what they may ask, how they fail, how many there are."""

from __future__ import annotations

import logging
import threading
from itertools import pairwise
from pathlib import Path

import pytest

import perdure
from perdure.runtime import processes
from perdure.testing import World
from tests.runtime import pooled

pytestmark = pytest.mark.slow


async def test_a_task_in_a_process_knows_what_one_on_the_loop_knows() -> None:
    """Goal: run, attempt, key and progress are there; what it told goes to the next attempt, failures are retried."""
    async with perdure.open("memory:", workflows=[pooled], processes_max=1) as engine:
        run = await engine.start(pooled.asks_both, id="r")
        first, second = await run.result("60s")
        assert first == ["r", 1, "r:1:asks#1", None, True]
        assert second == ["r", 2, "r:1:asks#2", {"attempt": 1}, True]
        assert len(engine.node.pools.processes.pids()) == 1
        assert (await engine.verify("r")).ok


async def test_whatever_a_task_does_in_a_process_is_its_failure() -> None:
    """Goal: declared exceptions come back, what cannot be kept is not retried, an exit ends no process, the rest is told."""
    async with perdure.open("memory:", workflows=[pooled], processes_max=1) as engine:
        run = await engine.start(pooled.goes_wrong, id="r")
        assert await run.result("60s") == [
            "refused 7",
            "refused perdure.errors.BadArgument 1",
            "error SystemExit 1",
            "error RecursionError 3",
            "refused perdure.errors.PerdureError 1",
            "gave 1",
        ]
        assert len(engine.node.pools.processes.pids()) == 1
        assert (await engine.verify("r")).ok


async def test_a_step_whose_deadline_passed_in_the_queue_is_not_made(tmp_path: Path) -> None:
    """Goal: what waited too long for a process fails, and has no effect when there is one."""
    async with perdure.open("memory:", workflows=[pooled], processes_max=1) as engine:
        run = await engine.start(pooled.waits_in_vain, str(tmp_path / "effect"))
        assert await run.result("60s") == "deadline TimeoutError 1"
        assert not (tmp_path / "effect").exists()


async def test_a_tasks_concurrency_holds_in_processes() -> None:
    """Goal: with more processes than its bound, a task is still made one at a time."""
    async with perdure.open("memory:", workflows=[pooled], processes_max=2) as engine:
        begun = await (await engine.start(pooled.in_turn)).result("60s")
        assert all(later - earlier >= 0.2 for earlier, later in pairwise(begun))


def test_a_node_makes_so_many_sync_attempts_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: four threads where four are set, though forty attempts are due; none waits for the loop."""
    with caplog.at_level(logging.WARNING), World("memory:", threads="real", threads_max=4) as world:
        assert world.run(pooled.meets_in_threads, 40) == 40
        assert len(pooled.NAMES) == 4
        assert caplog.text == ""


async def test_attempts_wait_for_a_thread_that_the_system_refuses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: neither the first refusal nor one beside other threads loses an attempt; all are made in the end."""
    refused: list[str] = []
    start = threading.Thread.start

    def unwilling(thread: threading.Thread) -> None:
        if thread.name.startswith("perdure-") and thread.name[8:].isdigit() and len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", unwilling)
    async with perdure.open("memory:", workflows=[pooled], threads_max=4) as engine:
        assert await (await engine.start(pooled.meets_in_threads, 8)).result("60s") == 8
    assert refused == ["perdure-1", "perdure-1"]
    assert "0 threads, and no more: can't start new thread" in caplog.text


async def test_a_process_that_the_system_refuses_fails_its_attempt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: retried as one whose process died, each attempt after another; others of the same batch are made."""
    refused: list[None] = []

    class Unwilling(processes.Worker):
        __slots__ = ()

        def __init__(self) -> None:
            if len(refused) < 3:
                refused.append(None)
                raise BlockingIOError(11, "Resource temporarily unavailable")
            super().__init__()

    monkeypatch.setattr(processes, "Worker", Unwilling)
    async with perdure.open("memory:", workflows=[pooled], processes_max=1) as engine:
        run = await engine.start(pooled.beside_a_process, id="r")
        assert await run.result("60s") == ["lost perdure.WorkerLost 1", "gave None", "gave 1"]
        assert len(refused) == 3
        assert (await engine.verify("r")).ok
