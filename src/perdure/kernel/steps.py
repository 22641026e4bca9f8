"""Open steps that are no futures: those of a graph, compensations, children."""

from __future__ import annotations

from typing import Any

from perdure.model import fact as f
from perdure.model.command import UNKNOWN
from perdure.model.failure import Failure
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec

UNDO = "undo:"
# The due time of a compensation that failed for good: never, until a person says otherwise.
STUCK = -1
# In place of the epoch of an intent: the run has stopped since, and what may have begun is in doubt (S16).
LET_GO = -1
# How a graph's node stands.
WAITING, OPEN, SUCCEEDED, FAILED, SKIPPED = range(5)


class Child:
    """A child run that is waited for."""

    __slots__ = ("args", "ask", "asked_seq", "detached", "given_up", "id", "key", "target", "workflow")

    def __init__(self, key: str, id: str, workflow: WorkflowSpec, args: bytes, *, ask: int, asked_seq: int) -> None:
        self.key, self.id, self.workflow, self.args = key, id, workflow, args
        self.ask, self.asked_seq = ask, asked_seq
        self.given_up = self.detached = False
        self.target: Any = None


class Undo:
    """The compensation of one recorded success, as an activity."""

    __slots__ = (
        "args", "ask", "asked_at", "asked_seq", "attempt", "due", "forgiven", "generation", "given_up",
        "intent", "key", "owed", "spec", "step", "values",
    )  # fmt: skip

    def __init__(self, owed: f.Owed, step: Any, spec: TaskSpec, generation: int) -> None:
        self.owed, self.spec, self.step = owed, spec, step
        self.key = UNDO + (owed.key if owed.generation == generation else f"{owed.key}@{owed.generation}")
        self.args = bytes(owed.args)
        self.values: tuple[Any, ...] | None = None
        self.attempt, self.forgiven, self.generation = 1, 0, generation
        self.ask = self.asked_seq = self.asked_at = 0
        self.due: int | None = None
        self.intent = 0
        self.given_up = False

    def inputs(self) -> tuple[Any, ...]:
        result = self.step.result.decode(self.owed.result) if self.owed.known else UNKNOWN
        return (*self.step.signature.unpack(self.args), result)


class NodeStep:
    """One use of a task in a graph.

    Shape: `node` is the node's index, `item` the element's of a mapped node (-1: none).
    """

    __slots__ = (
        "args", "ask", "asked_at", "asked_seq", "attempt", "due", "forgiven", "generation", "given_up", "intent",
        "item", "key", "node", "spec", "values",
    )  # fmt: skip

    def __init__(
        self, key: str, spec: TaskSpec, args: bytes, values: tuple[Any, ...] | None, *, node: int, item: int
    ) -> None:
        self.key, self.spec, self.args, self.values = key, spec, args, values
        self.node, self.item = node, item
        self.ask = self.asked_seq = self.asked_at = 0
        self.attempt, self.forgiven, self.generation = 1, 0, 1
        self.due: int | None = None
        self.intent = 0
        self.given_up = False

    def inputs(self) -> tuple[Any, ...]:
        values, self.values = self.values, None
        return self.spec.signature.unpack(self.args) if values is None else values


class Fan:
    """A mapped node's elements. Shape: `results` by element, None while open or failed; `left` are not ended."""

    __slots__ = ("failure", "left", "results")

    def __init__(self, count: int) -> None:
        self.results: list[bytes | None] = [None] * count
        self.left = count
        self.failure: Failure | None = None

    def without(self, name: str, undone: set[str]) -> Fan:
        """The elements that succeeded and were not compensated."""
        kept = Fan(len(self.results))
        kept.results = [None if f"{name}[{k}]" in undone else raw for k, raw in enumerate(self.results)]
        return kept
