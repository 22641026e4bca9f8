"""S22: a fork is a run of its own with another run's first facts: of flows and graphs, over generations and children."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import PerdureError, RunFailed, graph, task, wait_signal, workflow
from perdure.errors import IdInUse, UnknownRun, WrongState
from perdure.model import fact as f
from perdure.testing import World
from tests.flows.mutants import made
from tests.flows.noted import BROKEN, LOG, do, keys_of


@task
async def notes(what: str) -> str:
    return do(what)


@task
async def undoes(what: str, result: str) -> None:
    do(f"undo {what}")


@task(compensate=undoes)
async def pays(what: str) -> str:
    return await notes.fn(what)


@workflow
async def child(what: str) -> str:
    return await notes(what)


@workflow
async def family(what: str) -> list[str]:
    first = await notes(f"{what} first")
    return [first, await child(f"{what} child"), await notes(f"{what} last")]


@graph
def diamond(what: str) -> Any:
    left, right = notes(what), pays(what)
    parts = notes.map([left, right, "x"])
    return child(what).after(parts)


@workflow
async def generations(left: int) -> str:
    await pays(f"pay {left}")
    said = await wait_signal("go", str)
    if left:
        perdure.continue_as_new(left - 1)
    return await notes(f"end {said}")


def _forked(world: World, run: str, at: int, new: str) -> str:
    world.play(world.engine.fork(run, at, id=new))
    return new


def _run_ids(name: str) -> set[str]:
    """The runs in which this was done."""
    return {key.partition(":")[0] for key in keys_of(name)}


@pytest.mark.parametrize("flow", [family, diamond], ids=["flow", "graph"])
def test_s22_a_fork_at_any_fact_ends_alike_with_children_of_its_own(flow: Any) -> None:
    """Goal: wherever it is cut, what is copied is not made again, and what is new belongs to the fork, children too."""
    with World("memory:") as world:
        expected = world.run(flow, "x", id="o")
        facts = len(world.history("o"))
        for at in range(1, facts + 1):
            new = _forked(world, "o", at, f"o-{at}")
            assert world.result(new) == expected
            copied = world.history(new)[: at - 1]
            assert [type(fact) for fact in copied[1:]] == [type(fact) for fact in world.history("o")[1 : at - 1]]
        children = [row for row in world.rows() if row.parent]
        assert len({row.id for row in children}) == len(children)
        assert {row.parent for row in children} >= {"o", "o-1"}
        assert world.audit_all() == []


def test_s22_a_fork_within_a_later_generation_is_of_that_generation() -> None:
    """Goal: cut in the first, the second or the third generation, it waits for the signal that comes next there."""
    with World("memory:") as world:
        world.start(generations, 2, id="o")
        for number in range(3):
            world.signal("o", "go", f"s{number}")
            world.run_to_rest()
        assert world.result("o") == "end s2"
        history = world.history("o")
        for at in range(1, len(history) + 1):
            new = _forked(world, "o", at, f"o-{at}")
            world.run_to_rest()
            for number in range(10):
                if world.status(new) == "completed":
                    break
                world.signal(new, "go", f"new{number}")
                world.run_to_rest()
            assert world.result(new).startswith("end ")
            assert world.row(new).generation == 3
        assert world.audit_all() == []


def test_s22_a_fork_undoes_what_it_copied_where_it_fails() -> None:
    """Goal: a copied payment is owed by the fork as by the first run: its own failure undoes it, once."""
    with World("memory:") as world:
        world.start(generations, 0, id="o")
        world.run_to_rest()
        _forked(world, "o", 2, "copy")
        BROKEN.add("end bad")
        world.signal("o", "go", "good")
        assert world.result("o") == "end good"
        world.signal("copy", "go", "bad")
        with pytest.raises(RunFailed):
            world.result("copy")
        assert keys_of("undo pay 0") == ["copy:1:undo:pays#1"]
        assert world.audit_all() == []


def test_s22_a_failed_run_is_forked_before_its_failure() -> None:
    """Goal: the way on from a run that failed, without touching it: the fork goes well, the failed run stays as it is."""
    BROKEN.add("x last")
    with World("memory:") as world:
        with pytest.raises(RunFailed):
            world.run(family, "x", id="o")
        facts = len(world.history("o"))
        BROKEN.clear()
        failed = next(i for i, fact in enumerate(world.history("o"), 1) if isinstance(fact, f.AttemptFailed))
        assert world.result(_forked(world, "o", failed - 1, "again")) == ["x first", "x child", "x last"]
        with pytest.raises(RunFailed):
            world.result(_forked(world, "o", facts, "whole"))
        assert (world.status("o"), len(world.history("o"))) == ("failed", facts)
        assert world.audit_all() == []


@pytest.mark.parametrize("flow", [family, diamond], ids=["flow", "graph"])
def test_s22_a_run_that_was_retried_is_forked_at_any_fact(flow: Any) -> None:
    """Goal: before the failure, in the middle of undoing, behind the retry: each fork goes on from there, and verifies."""
    BROKEN.add("x last" if flow is family else "x")
    with World("memory:") as world:
        with pytest.raises(RunFailed):
            world.run(flow, "x", id="o")
        BROKEN.clear()
        world.play(world.engine.retry("o"))
        expected = world.result("o")
        for at in range(1, len(world.history("o")) + 1):
            new = _forked(world, "o", at, f"o-{at}")
            try:
                assert world.result(new) == expected
            except RunFailed:  # the failure itself was copied: a retry leads on
                world.play(world.engine.retry(new))
                assert world.result(new) == expected
            world.restart()
        assert world.audit_all() == []


def test_s22_what_cannot_be_forked_is_told() -> None:
    """Goal: no such run, no such fact, an id in use: one clear error, and no run."""
    with World("memory:", serve=[family]) as world:
        world.run(family, "x", id="o")
        runs = len(world.rows())
        facts = len(world.history("o"))
        for at in (0, -1, facts + 1):
            with pytest.raises(WrongState, match=f"has {facts} facts"):
                _forked(world, "o", at, "new")
        with pytest.raises(UnknownRun):
            _forked(world, "no-such", 1, "new")
        with pytest.raises(IdInUse):
            _forked(world, "o", 1, "o")
        with pytest.raises(PerdureError):
            _forked(world, "o", 1, "not an id")
        assert len(world.rows()) == runs


@pytest.mark.parametrize("flow", [family, diamond], ids=["flow", "graph"])
@pytest.mark.simulation
def test_s22_a_death_beside_any_commit_makes_one_fork_or_none(flow: Any) -> None:
    """Goal: what was acknowledged is there and ends; what was not is not there, or the same when it is asked again."""
    fired = 0
    for commit in range(1, 12):
        for side in ("crash_before", "crash_after"):
            LOG.clear()
            with World("memory:", serve=[flow]) as world:
                expected = world.run(flow, "x", id="o")
                world.store.fail_at(world.store.commits + commit, side)  # type: ignore[arg-type]
                try:
                    world.play(world.engine.fork("o", 2, request_id="fork-1"))
                    world.run_to_rest()
                except SystemExit:
                    fired += 1
                new = world.play(world.engine.fork("o", 2, request_id="fork-1")).id
                assert world.result(new) == expected
                assert len([row for row in world.rows() if not row.parent]) == 2
                assert world.audit_all() == []
    assert fired >= 6


# --- other code over what is copied ---------------------------------------------------------------

LATER = """
async def good(n: int) -> list[str]:
    if n:
        continue_as_new(n - 1)
    await notes("a")
    await wait_signal("go")
    return [await notes("b")]
"""
SETS = """
async def good(n: int) -> str:
    if n:
        continue_as_new(n - 1)
    order = []

    async def one(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            order.append(str(number))
            await notes(f"told {number}")

    tasks = {asyncio.create_task(one(number)) for number in range(8)}
    await notes("begun")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)
    await wait_signal("go")
    return ",".join(order)
"""


def _text(text: str) -> Any:
    return made(text, notes=notes, continue_as_new=perdure.continue_as_new)


@pytest.mark.parametrize("generations_", [0, 1])
def test_s22_other_arguments_are_no_difference_however_often_it_is_loaded(generations_: int) -> None:
    """Goal: names and keys are compared in what is copied, in whatever generation, at the fork and at each load after it."""
    with World("memory:", serve=[_text(LATER)]) as world:
        world.start(world.served[0], generations_, id="o")
        world.run_to_rest()
        other = LATER.replace('notes("a")', 'notes("A")')
        world.restart(serve=[_text(other)])
        at = 2 + generations_
        new = _forked(world, "o", at, "copy")
        for _ in range(2):
            world.restart(serve=[_text(other)])
            world.run_to_rest()
            assert world.status(new) == "waiting"
            assert world.audit(new).ok
        bad = other.replace('wait_signal("go")', 'wait_signal("gone")')
        world.restart(serve=[_text(bad)])
        world.signal(new, "nothing", 0)
        world.run_to_rest()
        assert world.status(new) == "attention"
        world.restart(serve=[_text(other)])
        world.run_to_rest()
        world.signal(new, "go", 0)
        assert world.result(new) == ["b"]
        assert world.audit(new).ok


@pytest.mark.parametrize("generations_", [0, 1])
def test_s22_what_is_copied_keeps_the_order_of_its_sets(generations_: int) -> None:
    """Goal: sets of tasks go in the order of the first run in what is copied, at each load, in whatever generation."""
    with World("memory:", serve=[_text(SETS)]) as world:
        world.start(world.served[0], generations_, id="first-run")
        world.run_to_rest()
        facts = len(world.history("first-run"))
        copies = [_forked(world, "first-run", at, f"copy-{at}") for at in range(2 + generations_, facts + 1)]
        for _ in range(2):
            world.restart()
            for new in ("first-run", *copies):
                world.signal(new, "nothing", 0)
        for new in ("first-run", *copies):
            world.signal(new, "go", 0)
        results = {world.result(new) for new in ("first-run", *copies)}
        assert len(results) == 1
        assert world.audit_all() == []


def test_s22_a_fork_of_a_fork_keeps_the_order_of_its_sets() -> None:
    """Goal: forked in what it had copied itself, and in a generation of its own: each in the order in which it was made."""
    with World("memory:", serve=[_text(SETS)]) as world:
        world.start(world.served[0], 1, id="o")
        world.advance(1)
        _forked(world, "o", 1, "first-fork")
        world.advance(1)
        facts = len(world.history("first-fork"))
        for at in range(1, facts + 1):
            _forked(world, "first-fork", at, f"second-{at}")
        _forked(world, "second-3", 5, "third")
        runs = [row.id for row in world.rows()]
        world.restart()
        for run in runs:
            world.signal(run, "nothing", 0)
        world.advance(1)
        assert {world.status(run) for run in runs} == {"waiting"}
        for run in runs:
            world.signal(run, "go", 0)
            assert len(world.result(run)) == len("0,1,2,3,4,5,6,7")
        assert world.audit_all() == []
