"""Retry and fork of flows: what is kept, what is made again and under which key (S21, S22), and a person's way out (S19)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure import NeedsAttention, RunCancelled, RunFailed, task, workflow
from perdure.errors import WrongState
from perdure.model import fact as f
from perdure.testing import World
from tests.flows.mutants import made
from tests.flows.noted import BROKEN, LOG, do, keys_of


@task
async def looks_up(what: str) -> str:
    return do(what)


@task
async def refunds(what: str, result: str) -> None:
    do(f"refund of {what}")


@task(compensate=refunds)
async def charges(what: str) -> str:
    return do(what)


@workflow
async def order(seconds: int) -> list[Any]:
    found = await looks_up("price")
    paid = await charges("card")
    also = await looks_up("stock")
    await asyncio.sleep(seconds)  # durable
    return [found, paid, also, await looks_up("last"), perdure.random() < 1]


@pytest.mark.parametrize("crash", [False, True])
def test_s21_what_was_refunded_is_charged_again_under_another_key(crash: bool) -> None:
    """Goal: a retry keeps the facts before the first undone success; a charge that is made again is no "already done"."""
    BROKEN.add("stock")
    with World("memory:") as world:
        with pytest.raises(RunFailed, match="stock is broken"):
            world.run(order, 10, id="r")
        BROKEN.clear()
        world.play(world.engine.retry("r", by="ann", why="the shelf was filled"))
        if crash:
            world.restart()
        assert world.result("r") == ["price", "card", "stock", "last", True]
        first, second = keys_of("card")
        assert (first, second) == ("r:1:charges#1", "r:2:charges#1")
        assert keys_of("refund of card") == ["r:1:undo:charges#1"]
        assert keys_of("price") == ["r:1:looks_up#1"], "it stands before the charge, and is kept"
        retried = next(fact for fact in world.history("r") if isinstance(fact, f.RunRetried))
        assert (retried.by, retried.why, retried.keep, retried.generation) == ("ann", "the shelf was filled", 2, 2)
        assert world.audit_all() == []


def test_s21_a_step_that_is_made_again_keeps_nothing_of_its_failures() -> None:
    """Goal: the retry forgives the attempts that failed, and the next failure counts from one."""
    BROKEN.add("last")
    with World("memory:") as world:
        with pytest.raises(RunFailed, match="last is broken"):
            world.run(order, 10, id="r")
        for _ in range(2):
            world.play(world.engine.retry("r"))
            with pytest.raises(RunFailed, match="last is broken"):
                world.result("r")
        BROKEN.clear()
        world.play(world.engine.retry("r"))
        assert world.result("r")[3] == "last"
        assert world.row("r").generation == 4
        assert [key.partition(":")[2] for key in keys_of("card")] == [f"{n}:charges#1" for n in (1, 2, 3, 4)]
        assert [key.partition(":")[2] for key in keys_of("refund of card")] == [
            f"{n}:undo:charges#1" for n in (1, 2, 3)
        ]
        assert world.audit_all() == []


def test_s21_a_cancelled_run_goes_on_and_a_completed_one_does_not() -> None:
    """Goal: retry leads out of failed and cancelled, and out of nothing else."""
    with World("memory:") as world:
        world.start(order, 86_400, id="r")
        world.advance("1h")
        with pytest.raises(WrongState, match="has not ended"):
            world.play(world.engine.retry("r"))
        world.cancel("r", "changed my mind")
        with pytest.raises(RunCancelled, match="changed my mind"):
            world.result("r")
        world.play(world.engine.retry("r"))
        assert world.result("r")[1] == "card"
        assert (len(keys_of("card")), len(keys_of("refund of card"))) == (2, 1)
        with pytest.raises(WrongState, match="has completed"):
            world.play(world.engine.retry("r"))
        assert world.audit_all() == []


# --- S22 ------------------------------------------------------------------------------------------


def test_s22_copied_steps_keep_their_keys_and_the_seed() -> None:
    """Goal: chance is that of the first run, what is copied is not made again, and what is new has its own run's key."""
    with World("memory:") as world:
        drawing = made(DRAWS, looks_up=looks_up)
        first = world.run(drawing, 1, id="o")
        world.play(world.engine.fork("o", 2, id="copy"))
        assert world.result("copy") == first
        assert keys_of("a") == ["o:1:looks_up#1"]
        assert keys_of("b") == ["o:1:looks_up#2", "copy:1:looks_up#2"]
        started = world.history("copy")[0]
        assert isinstance(started, f.RunStarted)
        assert (started.fork_of, started.fork_at, started.parent) == ("o", 2, "")
        assert world.audit_all() == []


DRAWS = """
async def good(n: int) -> list[str]:
    await looks_up("a")
    drawn = random()
    await looks_up("b")
    return [str(drawn), str(uuid())]
"""


@pytest.mark.parametrize("at", [2, 3])
def test_s22_other_arguments_are_no_difference_in_what_is_copied(at: int) -> None:
    """Goal: a fork tries mended code on an old history: names and keys are compared there, arguments are not."""
    good = made(DRAWS, looks_up=looks_up)
    other = made(DRAWS.replace('looks_up("a")', 'looks_up("A")'), looks_up=looks_up)
    with World("memory:", serve=[good]) as world:
        world.run(good, 1, id="o")
        world.restart(serve=[other])
        world.play(world.engine.fork("o", at, id="copy"))
        assert len(world.result("copy")) == 2
        assert "A" not in {name for name, _ in LOG}
        world.restart(serve=[other])
        assert world.audit("copy").ok


def test_s22_another_step_in_what_is_copied_is_refused() -> None:
    """Goal: a fork under code that asks for other steps is told, and no run is made."""
    good = made(DRAWS, looks_up=looks_up)
    other = made(DRAWS.replace('looks_up("a")', 'charges("a")'), looks_up=looks_up, charges=charges)
    with World("memory:", serve=[good]) as world:
        world.run(good, 1, id="o")
        world.restart(serve=[other])
        with pytest.raises(perdure.PerdureError, match=r"looks_up#1"):
            world.play(world.engine.fork("o", 3, id="copy"))
        assert [row.id for row in world.rows()] == ["o"]


# --- S19: ended without its code ------------------------------------------------------------------


def test_s19_a_run_is_ended_though_its_workflow_is_gone() -> None:
    """Goal: `cancel --force` needs only the tasks that undo: the flow itself is served no more."""
    with World("memory:") as world:
        world.start(order, 86_400, id="r")
        world.advance("1h")
        world.restart(serve=[holds_the_tasks])
        world.cancel("r", "the code was deleted", force=True)
        with pytest.raises(RunCancelled, match="the code was deleted"):
            world.result("r")
        assert keys_of("refund of card") == ["r:1:undo:charges#1"]
        assert world.audit_all() == []


@workflow
async def charges_in_each(left: int) -> None:
    await charges("card")
    if left:
        perdure.continue_as_new(left - 1)
    await asyncio.sleep(86_400)  # durable
    await looks_up("last")


@pytest.mark.parametrize("crash", [None, 1, 2, 3])
def test_s19_a_forced_end_undoes_each_generation_once(crash: int | None) -> None:
    """Goal: steps of one name in three generations are each undone, once, whatever commit the machine dies beside."""
    with World("memory:") as world:
        world.start(charges_in_each, 2, id="r")
        world.advance(60)
        if crash is not None:
            world.store.fail_at(world.store.commits + crash, "crash_after")
        try:
            world.cancel("r", "enough", force=True)
            world.run_to_rest()
        except SystemExit:
            assert world.store.fired
            world.run_to_rest()
        assert world.status("r") == "cancelled"
        assert len(keys_of("card")) == 3
        undone = [fact.key for fact in world.history("r") if isinstance(fact, f.StepCompleted) and "undo" in fact.key]
        assert undone == ["undo:charges#1", "undo:charges#1@2", "undo:charges#1@1"]
        assert world.audit_all() == []


def test_s19_a_compensation_that_fails_for_good_waits_for_a_person() -> None:
    """Goal: attention names it; `resolve --result` counts it as undone, and the run then ends as it would have."""
    BROKEN.update({"stock", "refund of card"})
    with World("memory:") as world:
        with pytest.raises(NeedsAttention, match="refund of card is broken"):
            world.run(order, 10, id="r")
        with pytest.raises(WrongState, match="ending already"):
            world.cancel("r", "a second wish")
        with pytest.raises(NeedsAttention):
            world.result("r")
        world.play(world.engine.resolve("r", "undo:charges#1", "result", None, by="ann"))
        with pytest.raises(RunFailed, match="stock is broken"):
            world.result("r")
        assert world.audit_all() == []


@workflow(name="another")
async def holds_the_tasks() -> None:
    await charges("x")
    await looks_up("x")
