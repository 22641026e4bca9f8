"""Random graphs whose steps do as they are told, and what must become of them by the rules alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from perdure import attempt, idempotency_key, task
from perdure.authoring.definition import Graph, GraphBuilder
from perdure.model import fact as f
from perdure.model.graph import Join

# What attempts saw: (step, its inputs, idempotency key). Cleared by each test.
SEEN: list[tuple[str, list[Any], str]] = []
# Steps that were undone, in order.
UNDONE: list[str] = []


@task
def undo(name: str, fails: bool, given: list[Any], result: Any) -> None:
    UNDONE.append(name)


@task
def act(name: str, fails: bool, given: list[Any]) -> str:
    SEEN.append((name, given, idempotency_key()))
    if fails:
        raise ValueError(f"{name} fails at attempt {attempt()}")
    return f"{name}!"


undoable = act.options(compensate=undo)


class Plan(NamedTuple):
    """One node. Shape: `data` and `order` are earlier nodes by index; `reads` a node that its condition names."""

    data: tuple[int, ...]
    order: tuple[int, ...]
    join: Join
    fate: str  # "ok", "fail", "skip"
    reads: int | None
    undoable: bool

    def needs(self) -> list[int]:
        """The nodes that it depends on, each once."""
        return list(dict.fromkeys([*self.data, *self.order, *(() if self.reads is None else (self.reads,))]))


@st.composite
def plans(draw: st.DrawFn, most: int = 12, fates: str = "ok ok ok fail skip", undoable: bool = False) -> list[Plan]:
    """A graph of up to so many nodes with every kind of join, and the fate of each node."""
    made: list[Plan] = []
    for i in range(draw(st.integers(1, most))):
        earlier = st.lists(st.integers(0, i - 1), max_size=4, unique=True) if i else st.just([])
        data, order = draw(earlier), draw(earlier)
        reads = draw(st.none() | st.integers(0, i - 1)) if i else None
        count = len({*data, *order, *(() if reads is None else (reads,))})
        joins: list[Join] = ["succeeded", "done"]
        if reads is None:  # a condition may be judged before what it reads has ended: no oracle knows then
            joins += ["any", *range(1, count + 1)]
        join = draw(st.sampled_from(joins))
        fate = draw(st.sampled_from(fates.split()))
        made.append(Plan(tuple(data), tuple(order), join, fate, reads, undoable and draw(st.booleans())))
    return made


def name(i: int) -> str:
    return f"n{i}"


def graph_of(nodes: Sequence[Plan], output: Any = None) -> Graph[..., Any]:
    """The graph. Shape: its parameters are the names of the steps that fail and of those that are skipped."""
    build = GraphBuilder("random", parameters=["fails", "skips"])
    for i, node in enumerate(nodes):
        when: Any = f"!('{name(i)}' in skips)"
        if node.reads is not None:
            when += f" && {name(node.reads)} != null"
        build.add(
            undoable if node.undoable else act,
            name=name(i),
            args={
                "name": name(i),
                "fails": build.input("fails", name(i)),
                "given": [build.step(name(k)) for k in node.data],
            },
            after=[name(k) for k in node.order],
            join=node.join,
            when=when,
        )
    return build.build(output)


def inputs(nodes: Sequence[Plan]) -> tuple[dict[str, bool], list[str]]:
    """The arguments of a run in which each node meets its fate."""
    fails = {name(i): node.fate == "fail" for i, node in enumerate(nodes)}
    return fails, [name(i) for i, node in enumerate(nodes) if node.fate == "skip"]


def expected(nodes: Sequence[Plan]) -> list[tuple[str, str]]:
    """For each node its end and the reason of a skip, by the join rules as they are written (S29)."""
    ends: list[tuple[str, str]] = []
    for node in nodes:
        needs = [ends[k][0] for k in node.needs()]
        good = needs.count("ok")
        if node.join == "succeeded":
            fires = good == len(needs)
        elif node.join == "done":
            fires = True
        elif node.join == "any":
            fires = good > 0 or not needs
        else:
            fires = good >= node.join
        if not fires:
            ends.append(("skipped", "failed" if "failed" in needs else "dependency"))
        elif node.fate == "skip" or (node.reads is not None and ends[node.reads][0] != "ok"):
            ends.append(("skipped", "condition"))
        else:
            ends.append(("failed" if node.fate == "fail" else "ok", ""))
    return ends


def fails_run(nodes: Sequence[Plan], ends: Sequence[tuple[str, str]]) -> bool:
    """Whether a failed step is taken by no `done`, `any` or n join."""
    taken = {k for node in nodes if node.join != "succeeded" for k in node.needs()}
    return any(end == "failed" and i not in taken for i, (end, _) in enumerate(ends))


def recorded(history: Sequence[f.AnyFact]) -> dict[str, tuple[str, str, int, int]]:
    """By step, from facts alone: its end, why it was skipped, the turn in which it ended, the one that asked for it."""
    found: dict[str, tuple[str, str, int, int]] = {}
    cause = 0
    for seq, fact in enumerate(history, 1):
        if not isinstance(fact, f.DECISIONS):
            cause = seq
        if isinstance(fact, f.StepCompleted):
            found[fact.key] = ("ok", "", seq, fact.asked_seq)
        elif isinstance(fact, f.AttemptFailed) and fact.retry_at is None:
            found[fact.key] = ("failed", "", seq, fact.asked_seq)
        elif isinstance(fact, f.StepSkipped):
            found[fact.key] = ("skipped", fact.reason, cause, 0)
    return found


def value(raw: Any) -> Any:
    return json.loads(bytes(raw))
