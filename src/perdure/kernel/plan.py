"""A graph's definition made ready for running: indices for names, counts for edges. Made once for each definition."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from perdure.model.graph import GraphDefinition, Join, Node, canonical_json, dependencies
from perdure.model.workflow import WorkflowSpec


class Plan:
    """Shape: everything is by node index, in the order of definition. `needs[i]` are the nodes that node i depends on,
    each once (nodes that need the same share one tuple); `feeds[i]` those that depend on it.
    """

    __slots__ = ("document", "feeds", "index", "joins", "lenient", "needs", "nodes")

    def __init__(self, definition: GraphDefinition) -> None:
        self.nodes: Sequence[Node] = definition.nodes
        self.document = b""
        self.index = index = {node.name: i for i, node in enumerate(self.nodes)}
        self.joins: list[Join] = [node.join for node in self.nodes]
        self.needs: list[tuple[int, ...]] = []
        feeds: list[list[int]] = [[] for _ in self.nodes]
        shared: dict[int, tuple[int, ...]] = {}
        named = dependencies(definition)
        for i, names in enumerate(named):
            needs = shared.get(id(names))
            if needs is None:
                needs = shared[id(names)] = tuple(index[name] for name in names)
            self.needs.append(needs)
            for need in needs:
                feeds[need].append(i)
        self.feeds = feeds
        # A failed step is taken by a done, any or n join among its dependants (S29).
        self.lenient = [any(self.joins[k] != "succeeded" for k in fed) for fed in feeds]


_plans: WeakKeyDictionary[WorkflowSpec, Plan] = WeakKeyDictionary()


def plan_of(spec: WorkflowSpec) -> Plan:
    """The plan of a graph workflow."""
    assert spec.graph is not None
    plan = _plans.get(spec)
    if plan is None:
        plan = _plans[spec] = Plan(spec.graph)
    return plan


def document_of(spec: WorkflowSpec) -> bytes:
    """The definition of a graph workflow as it is kept; encoded once."""
    assert spec.graph is not None
    plan = plan_of(spec)
    if not plan.document:
        plan.document = canonical_json(spec.graph)
    return plan.document
