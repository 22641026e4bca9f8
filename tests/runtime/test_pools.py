"""Attempts in real processes and threads: what they may ask, how they fail, how many there are."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import pytest

import perdure
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
