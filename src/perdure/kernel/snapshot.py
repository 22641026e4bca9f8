"""A graph's fold as bytes, and back: a load begins there in place of the first fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.kernel.steps import OPEN, SUCCEEDED, WAITING, Child, Fan, NodeStep
from perdure.model import fact as f
from perdure.model.failure import Failure
from perdure.model.graph import StepRef, references

if TYPE_CHECKING:
    from perdure.kernel.graph import Graph


class _Snapshot(msgspec.Struct, array_like=True):
    seed: int
    depth: int
    now: int
    asked_n: int
    asked_h: int
    states: bytes
    results: dict[int, msgspec.Raw]
    inputs: dict[str, msgspec.Raw]
    failures: dict[int, Failure]
    steps: Sequence[tuple[str, int, int, int, int, int | None, int, int, int, msgspec.Raw, int]]
    fans: Sequence[tuple[int, int, dict[int, msgspec.Raw], int, Failure | None]]
    children: Sequence[tuple[str, str, msgspec.Raw, int, int, int]]
    owed: list[f.Owed]


def take(graph: Graph, size_max: int) -> bytes | None:
    """The fold as bytes; None where what it must hold is larger than that.

    Shape: of the results, only those that something will still read.
    """
    wanted = _wanted(graph)
    fans = {i: fan for i, fan in graph.fans.items() if graph.states[i] == OPEN}
    size = sum(len(raw) for i in wanted if (raw := graph.results[i]) is not None)
    size += sum(len(step.args) for step in graph.open.values())
    size += sum(len(raw) for fan in fans.values() for raw in fan.results if raw is not None)
    return None if size > size_max else _encoded(graph, wanted, fans)


def _wanted(graph: Graph) -> set[int]:
    """The nodes whose results may still be read: by nodes that wait, or as the run's own result."""
    plan, output = graph.plan, graph.spec.graph.output if graph.spec.graph is not None else None
    if output is None:
        wanted = {i for i, feeds in enumerate(plan.feeds) if not feeds}
    else:
        wanted = {plan.index[one.step] for one in references(output) if isinstance(one, StepRef)}
    seen: set[int] = set()
    for i, state in enumerate(graph.states):
        needs = plan.needs[i]
        if state == WAITING and id(needs) not in seen:
            seen.add(id(needs))
            wanted.update(needs)
    return wanted


def _encoded(graph: Graph, wanted: set[int], open_fans: dict[int, Fan]) -> bytes:
    steps = [
        (
            s.key,
            s.node,
            s.item,
            s.attempt,
            s.forgiven,
            s.due,
            s.intent,
            s.asked_seq,
            s.asked_at,
            msgspec.Raw(s.args),
            s.ask,
        )
        for s in graph.open.values()
    ]
    fans = [
        (
            i,
            len(fan.results),
            {k: msgspec.Raw(raw) for k, raw in enumerate(fan.results) if raw is not None},
            fan.left,
            fan.failure,
        )
        for i, fan in open_fans.items()
    ]
    children = [(c.key, c.id, msgspec.Raw(c.args), c.ask, c.asked_seq, c.target) for c in graph.children.values()]
    return msgspec.json.encode(
        _Snapshot(
            graph.seed, graph.depth, graph.now, graph.asked_n, graph.asked_h, bytes(graph.states),
            {i: msgspec.Raw(raw) for i in sorted(wanted) if (raw := graph.results[i]) is not None},
            {name: msgspec.Raw(raw) for name, raw in graph.inputs.items()},
            graph.failures, steps, fans, children, [owed for owed, _, _ in graph.owed],
        )
    )  # fmt: skip


def restore(graph: Graph, body: bytes) -> None:
    """Take up a snapshot in place of the facts that it stands for."""
    snap = msgspec.json.decode(body, type=_Snapshot)
    graph.seed, graph.depth, graph.now = snap.seed, snap.depth, snap.now
    graph.asked_n, graph.asked_h = snap.asked_n, snap.asked_h
    graph.inputs.update((name, bytes(raw)) for name, raw in snap.inputs.items())
    graph.failures = dict(snap.failures)
    for i, state in enumerate(snap.states):
        graph.states[i] = state
        if state > OPEN:
            graph.unended -= 1
            for k in graph.plan.feeds[i]:
                graph.left[k] -= 1
                graph.good[k] += state == SUCCEEDED
    for i, raw in snap.results.items():
        graph.results[i] = bytes(raw)
    for i, count, results, left, failure in snap.fans:
        fan = graph.fans[i] = Fan(count)
        for k, raw in results.items():
            fan.results[k] = bytes(raw)
        fan.left, fan.failure = left, failure
    _restore_steps(graph, snap)


def _restore_steps(graph: Graph, snap: _Snapshot) -> None:
    for key, node, item, attempt, forgiven, due, intent, asked_seq, asked_at, args, ask in snap.steps:
        step = NodeStep(key, graph.spec.tasks[graph.plan.nodes[node].name], bytes(args), None, node=node, item=item)
        step.attempt, step.forgiven, step.due, step.intent = attempt, forgiven, due, intent
        step.asked_seq, step.asked_at, step.ask = asked_seq, asked_at, ask
        graph.open[key] = step
        if due is None:
            graph.fresh[key] = step
        else:
            graph.retries.append((due, key))
    graph.retries.sort()
    for key, id, args, ask, asked_seq, target in snap.children:
        workflow = graph.spec.workflows[graph.plan.nodes[target].task]
        child = Child(key, id, workflow, bytes(args), ask=ask, asked_seq=asked_seq)
        child.target = target
        graph.children[key] = child
    by_key: dict[str, Any] = {
        **{
            node.name: graph.spec.tasks.get(node.name) or graph.spec.workflows.get(node.task)
            for node in graph.plan.nodes
        }
    }
    for owed in snap.owed:
        spec = by_key[owed.key.partition("[")[0]]
        graph.owed.append((owed, spec.compensate, spec))
