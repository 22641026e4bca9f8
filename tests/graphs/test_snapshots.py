"""Snapshots of graph runs: the same fold with and without, used at a load, left aside where they do not hold."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import RunFailed, graph, task
from perdure.authoring.definition import GraphBuilder
from perdure.authoring.registry import Registry
from perdure.kernel.flow import Limits
from perdure.kernel.graph import Graph
from perdure.kernel.steps import WAITING, NodeStep
from perdure.model import fact as f
from perdure.model.workflow import WorkflowSpec
from perdure.runtime.replay import groups, make
from perdure.testing.world import World
from tests.graphs import random_graphs as rg
from tests.graphs.random_graphs import Plan, graph_of, plans

LIMITS = Limits(64 << 20, 1_000_000, 32)
SMALL = {"snapshot_facts": 10}
CALLS: list[int] = []


def fresh(spec: WorkflowSpec) -> Graph:
    made = make("r", spec, Registry([spec]), LIMITS)
    assert isinstance(made, Graph)
    made.live = False
    return made


def fold_of(graph: Graph) -> dict[str, Any]:
    """All that decides what a graph's run does next."""
    return {
        "states": bytes(graph.states),
        "left": graph.left,
        "good": graph.good,
        "unended": graph.unended,
        "asked": (graph.asked_n, graph.asked_h, graph.seed, graph.now, graph.depth),
        "open": {
            key: (s.attempt, s.due, s.args, s.ask, s.asked_seq, s.asked_at, s.forgiven, s.intent)
            for key, s in graph.open.items()
        },
        "nodes": [(s.node, s.item) for s in graph.open.values() if isinstance(s, NodeStep)],
        "children": {key: (c.id, c.ask, c.asked_seq, c.target, c.args) for key, c in graph.children.items()},
        "retries": sorted(graph.retries),
        "failures": graph.failures,
        "owed": [(owed.key, bytes(owed.args), bytes(owed.result)) for owed, _, _ in graph.owed],
        "wait": graph.wait(),
        "inputs": graph.inputs,
    }


@settings(max_examples=80)
@given(nodes=plans(undoable=True), seed=st.integers(0, 1 << 32))
def test_a_restored_fold_is_the_fold(nodes: list[Plan], seed: int) -> None:
    """Goal: snapshot and restore at every turn of a run: the same fold there and after each later fact, to the end."""
    spec = graph_of(nodes)
    with World(seed=seed) as world:
        with contextlib.suppress(RunFailed):
            world.run(spec, *rg.inputs(nodes), id="r")
        known = list(enumerate(world.history("r"), 1))
    turns = list(groups(known))
    whole = fresh(spec)
    restored: list[Graph] = []
    for seq, cause, expected in turns:
        for one in (whole, *restored):
            one.on(cause, seq, expected)
            assert [f.encode_fact(decided) for decided in one.decisions] == [f.encode_fact(fact) for fact in expected]
            one.decisions = []
            assert fold_of(one) == fold_of(whole)
        body = whole.snapshot(1 << 30)
        if body is not None:
            another = fresh(spec)
            another.restore(body)
            assert fold_of(another) == fold_of(whole)
            assert_results(another, whole)
            restored.append(another)
    assert restored or len(turns) == 1


def assert_results(restored: Graph, whole: Graph) -> None:
    """A result is left out only where nothing can read it any more."""
    for i, raw in enumerate(whole.results):
        if restored.results[i] != raw:
            assert restored.results[i] is None
            assert whole.plan.feeds[i]  # no leaf: those are the run's result
            assert all(whole.states[k] != WAITING for k in whole.plan.feeds[i])


@task
def number(i: int) -> int:
    CALLS.append(i)
    return i


@task
def add(a: int, b: int) -> int:
    CALLS.append(a + b)
    return a + b


@graph
def sums(n: int) -> Any:
    so_far = number(0)
    for i in range(1, 60):
        so_far = add(so_far, number(i)).named(f"sum_{i}")
    return so_far


TOTAL = sum(range(60))


def stopped(world: World, after: int) -> None:
    """Run `sums` and kill its engine behind the commit with this number."""
    world.serve(sums)
    assert world.engine is not None
    world.store.fail_at(after, "crash_after")
    with pytest.raises(SystemExit):
        world.run(sums, 1, id="s")
    assert world.store.fired


@pytest.mark.parametrize("address", ["memory:", "sqlite:///s.db"])
@pytest.mark.parametrize("after", [30, 50, 90])
def test_a_killed_run_goes_on_from_its_snapshot(address: str, after: int, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a load begins at the snapshot; the history verifies, and nothing recorded is made twice."""
    CALLS.clear()
    with World(address, **SMALL) as world:
        stopped(world, after)
        world.restart()
        assert world.result("s") == TOTAL
        done = [fact.key for fact in world.history("s") if isinstance(fact, f.StepCompleted)]
        assert len(done) == len(set(done)) == 119
        assert world.audit("s").ok
    assert "folded from its facts" not in caplog.text


def test_the_loader_takes_up_the_snapshot_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: after a kill the run's fold comes from the snapshot: facts before it are not even read."""
    with World(**SMALL) as world:
        stopped(world, 80)
        read: list[tuple[int, int]] = []
        load = world.store.inner.load

        async def counted(ids: Any, **options: Any) -> Any:
            loaded = await load(ids, **options)
            read.extend((one.snapshot[0], len(one.facts)) for one in loaded if one.snapshot is not None)
            return loaded

        monkeypatch.setattr(world.store.inner, "load", counted)
        world.restart()
        assert world.result("s") == TOTAL
        assert read
        snapped, behind = read[0]
        assert snapped >= 59
        assert behind < snapped


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


DAMAGES = {
    "a bit of its hash": lambda body: flipped(body, 3),
    "a bit of a result": lambda body: flipped(body, body.rindex(b"1")),
    "cut short": lambda body: body[: len(body) // 2],
    "empty of sense": lambda body: b"\0" * 40,
    "of another run": lambda body: body.replace(b"sum_", b"som_"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_that_does_not_hold_is_left_aside(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: snapshot, then store, then rebuild from history: a wrong snapshot costs time, and nothing else."""
    with World(**SMALL) as world:
        stopped(world, 80)
        disk = world._open.disk  # type: ignore[attr-defined]
        seq, body = disk._runs["s"].snapshot
        disk._runs["s"].snapshot = (seq, DAMAGES[damage](body))
        assert disk._runs["s"].snapshot[1] != body
        with caplog.at_level(logging.WARNING):
            world.restart()
            assert world.result("s") == TOTAL
        assert "run s is folded from its facts, not from its snapshot" in caplog.text
        assert world.audit("s").ok


def chain(length: int) -> WorkflowSpec:
    """A graph that no module holds."""
    build = GraphBuilder("chain")
    last = build.add(number, args={"i": 1})
    for i in range(1, length):
        last = build.add(add, name=f"add_{i}", args={"a": last, "b": i})
    return build.build(last)


def test_a_snapshot_of_another_definition_is_left_aside(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a deploy that changes the graph is judged by replay, never by indices of the old graph."""
    with World(**SMALL) as world:
        world.serve(chain(60))
        assert world.engine is not None
        world.store.fail_at(50, "crash_after")
        with pytest.raises(SystemExit):
            world.run(world.served[0], id="s")
        with caplog.at_level(logging.WARNING):
            world.restart(serve=[chain(70)])
            assert world.result("s") == 1 + sum(range(70))
        assert "is of another definition" in caplog.text
        assert world.audit("s").ok


def test_an_ended_run_has_no_snapshot() -> None:
    """Goal: the snapshot goes with the end, so that a later generation never begins at the fold of an earlier one."""
    with World(**SMALL) as world:
        assert world.run(sums, 1, id="s") == TOTAL
        assert world.store.inner._runs["s"].snapshot is None


def test_snapshots_cost_a_small_part_of_a_run() -> None:
    """Goal: they stand ever farther apart: few of them, and together at most twice the bytes of the facts."""
    taken: list[tuple[int, int]] = []
    facts = 0

    with World(**SMALL) as world:
        assert world.engine is not None

        def committed(work: Any) -> None:
            nonlocal facts
            facts += sum(len(body) for _, _, body, _ in work.batch.facts)
            taken.extend((seq, len(body)) for _, seq, body in work.batch.snapshots if body)

        world.engine.node.on_commit.append(committed)
        assert world.run(sums, 1, id="s") == TOTAL
    assert [seq for seq, _ in taken] == sorted(seq for seq, _ in taken)
    assert 1 <= len(taken) <= 3
    assert sum(size for _, size in taken) < facts
    for (before, _), (after, _) in itertools.pairwise(taken):
        assert after >= 2 * before


def test_request_ids_outlive_a_snapshot() -> None:
    """Goal: a signal that was taken before the snapshot, said again after a kill, is still known (S26)."""
    with World(**SMALL) as world:
        world.serve(sums)
        assert world.engine is not None
        world.store.fail_at(80, "crash_after")

        async def scenario() -> Any:
            handle = await world.engine.start(sums, 1, id="s")
            await handle.signal("note", 1, request_id="once")
            return await handle.result()

        with pytest.raises(SystemExit):
            world.play(scenario())
        world.restart()
        seq = world._open.disk._runs["s"].snapshot[0]  # type: ignore[attr-defined]
        world.play(world.engine.signal("s", "note", 1, request_id="once"))
        assert world.result("s") == TOTAL
        told = [i for i, fact in enumerate(world.history("s"), 1) if isinstance(fact, f.SignalReceived)]
        assert len(told) == 1
        assert told[0] < seq
