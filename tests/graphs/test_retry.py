"""S17, S21 for graphs: a failed graph undoes what it owes, and its retry keeps every success that was not undone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import RunCancelled, RunFailed, graph, idempotency_key, task, wait_signal, workflow
from perdure.model import fact as f
from perdure.testing.world import World
from tests.graphs import random_graphs as rg
from tests.graphs.random_graphs import Plan, expected, fails_run, graph_of, name, plans, recorded

CALLS: list[tuple[str, object, str]] = []
BROKEN: set[object] = set()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    CALLS.clear()
    BROKEN.clear()


def called(step: str) -> list[object]:
    return [given for name, given, _ in CALLS if name == step]


@task
def unbook(item: int, booking: str) -> None:
    CALLS.append(("unbook", booking, idempotency_key()))


@task(compensate=unbook)
def book(item: int) -> str:
    CALLS.append(("book", item, idempotency_key()))
    return f"booking {item}"


@task
def split(count: int) -> list[int]:
    CALLS.append(("split", count, idempotency_key()))
    return list(range(count))


@task
def work(item: int) -> int:
    CALLS.append(("work", item, idempotency_key()))
    if item in BROKEN:
        raise ValueError(f"{item} is broken")
    return item * 10


@task
def total(items: list[int], bookings: list[str]) -> int:
    CALLS.append(("total", sum(items), idempotency_key()))
    return sum(items)


@graph
def trip(count: int) -> int:
    items = split(count)
    return total(work.map(items), book.map(items))


def test_s21_a_retry_keeps_what_was_not_undone_and_makes_the_rest_again() -> None:
    """Goal: the good elements of a fan-out are kept, the undone ones made again with another key."""
    BROKEN.add(2)
    with World() as world:
        with pytest.raises(RunFailed, match="2 is broken"):
            world.run(trip, 4, id="t")
        undone = [given for name, given, _ in CALLS if name == "unbook"]
        booked = [
            fact.key for fact in world.history("t") if isinstance(fact, f.StepCompleted) and fact.key[:5] == "book["
        ]
        assert undone == [f"booking {key[5:-1]}" for key in reversed(booked)]
        keys = {given: key for name, given, key in CALLS if name == "book"}
        CALLS.clear()
        BROKEN.clear()
        world.play(world.engine.retry("t", why="mended"))
        assert world.result("t") == 60
        assert called("split") == []
        assert called("work") == [2]
        assert sorted(called("book")) == [0, 1, 2, 3]
        assert all(keys[given] != key for name, given, key in CALLS if name == "book")
        assert world.audit("t").ok


def test_s21_a_retry_keeps_its_results_through_a_kill() -> None:
    """Goal: the generation after a retry is recovered like the first: kept is kept, also on the way back from disk."""
    BROKEN.add(1)
    with World() as world:
        with pytest.raises(RunFailed):
            world.run(trip, 3, id="t")
        BROKEN.clear()
        world.store.fail_at(world.store.commits + 2, "crash_after")
        CALLS.clear()
        with pytest.raises(SystemExit):
            world.play(_retried(world))
        world.restart()
        assert world.result("t") == 30
        assert called("split") == []
        assert set(called("work")) == {1}
        assert world.store.fired
        assert world.audit("t").ok


async def _retried(world: World) -> None:
    await world.engine.retry("t")
    await world.engine.result("t")


@task
def slow(item: int) -> int:
    CALLS.append(("slow", item, idempotency_key()))
    return item


@workflow
async def asked(item: int) -> int:
    return int(await wait_signal("go", int)) + item


@graph
def waits(n: int) -> int:
    return total([slow(n), asked(n)], book.map([1, 2]))


def test_s21_a_cancelled_graph_is_undone_and_can_be_retried() -> None:
    """Goal: cancel settles, undoes in reverse, cancels the child; the retry keeps the rest, with a new child."""
    with World() as world:
        run = world.start(waits, 5, id="w")
        world.run_to_rest()
        first = world.row("w").wait.children
        world.cancel(run, "enough")
        with pytest.raises(RunCancelled, match="enough"):
            world.result(run)
        assert [given for name, given, _ in CALLS if name == "unbook"] == [
            rg.value(fact.result) for fact in reversed(world.history("w"))
            if isinstance(fact, f.StepCompleted) and fact.key.startswith("book[")
        ]  # fmt: skip
        assert world.status(first[0]) == "cancelled"
        world.play(world.engine.retry("w"))
        world.run_to_rest()
        second = world.row("w").wait.children
        assert second != first
        world.signal(second[0], "go", 7)
        assert world.result("w") == 17
        assert called("slow") == [5]
        assert world.audit_all() == []


@settings(max_examples=120)
@given(nodes=plans(undoable=True), seed=st.integers(0, 1 << 32))
def test_s21_no_graph_loses_or_repeats_a_success_over_a_retry(nodes: list[Plan], seed: int) -> None:
    """Goal: whatever the graph, a failure undoes exactly what it owes, and the retry makes exactly what is missing."""
    ends = expected(nodes)
    if not fails_run(nodes, ends):
        return
    rg.SEEN.clear()
    rg.UNDONE.clear()
    with World(seed=seed) as world:
        with pytest.raises(RunFailed):
            world.run(graph_of(nodes), *rg.inputs(nodes), id="r")
        found = recorded(world.history("r"))
        owed = [(found[name(i)][2], name(i)) for i, node in enumerate(nodes) if ends[i][0] == "ok" and node.undoable]
        assert [step for _, step in sorted(owed, reverse=True)] == rg.UNDONE
        rg.SEEN.clear()
        world.play(world.engine.retry("r"))
        with pytest.raises(RunFailed):
            world.result("r")  # what failed for its input fails again
        again = {step for step, _, _ in rg.SEEN}
        assert again == {
            name(i) for i, node in enumerate(nodes) if ends[i][0] == "failed" or (ends[i][0] == "ok" and node.undoable)
        }
        assert world.row("r").generation == 2
        report = world.audit("r")
        assert report.ok, "\n".join(report.lines())


def test_a_crash_beside_any_commit_keeps_every_result() -> None:
    """Goal: killed beside each of its commits, a graph ends as one that is not, and makes no recorded step twice."""
    with World(seed=1) as world:
        assert world.run(trip, 3, id="t") == 30
        commits = world.store.commits
    for kind in ("crash_before", "crash_after"):
        for number in range(1, commits + 1):
            CALLS.clear()
            with World(seed=1) as world:
                world.serve(trip)
                assert world.engine is not None
                world.store.fail_at(number, kind)  # type: ignore[arg-type]
                try:
                    world.run(trip, 3, id="t")
                except SystemExit:
                    world.restart()
                    assert world.run(trip, 3, id="t") == 30
                assert world.store.fired
                report = world.audit("t")
                assert report.ok, (kind, number, report.lines())
                done = [fact.key for fact in world.history("t") if isinstance(fact, f.StepCompleted)]
                assert sorted(done) == sorted(set(done))
