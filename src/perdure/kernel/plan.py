"""A graph's definition made ready for running: indices for names, counts for edges. Made once for each definition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

from perdure.model.graph import Argument, Fields, GraphDefinition, Join, Many, Node, StepRef
from perdure.model.workflow import WorkflowSpec


class Plan:
    """Shape: everything is by node index, in the order of definition. `needs[i]` are the nodes that node i depends on,
    each once; `feeds[i]` those that depend on it.
    """

    __slots__ = ("feeds", "index", "joins", "lenient", "needs", "nodes")

    def __init__(self, definition: GraphDefinition) -> None:
        self.nodes: Sequence[Node] = definition.nodes
        self.index = {node.name: i for i, node in enumerate(self.nodes)}
        self.joins: list[Join] = [node.join for node in self.nodes]
        self.needs: list[tuple[int, ...]] = []
        feeds: list[list[int]] = [[] for _ in self.nodes]
        shared: dict[int, tuple[int, ...]] = {}
        for i, node in enumerate(self.nodes):
            needs = self._needs(node, shared)
            self.needs.append(needs)
            for need in needs:
                feeds[need].append(i)
        self.feeds = feeds
        # A failed step is taken by a done, any or n join among its dependants (S29).
        self.lenient = [any(self.joins[k] != "succeeded" for k in fed) for fed in feeds]

    def _needs(self, node: Node, shared: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
        """The node's dependencies, each once. A tuple of `after` that nodes share is worked out once."""
        after = shared.get(id(node.after))
        if after is None:
            after = shared[id(node.after)] = tuple(dict.fromkeys(self.index[name] for name in node.after))
        names = [name for argument in node.args.values() for name in steps_in(argument)]
        if node.when is not None:
            names.extend(name for name in node.when.names if name in self.index)
        if not names:
            return after
        return tuple(dict.fromkeys([*(self.index[name] for name in names), *after]))


def steps_in(argument: Argument) -> Iterable[str]:
    """The names of the steps that an argument refers to."""
    stack: list[Argument] = [argument]
    while stack:
        one = stack.pop()
        if isinstance(one, StepRef):
            yield one.step
        elif isinstance(one, Many):
            stack.extend(reversed(one.items))
        elif isinstance(one, Fields):
            stack.extend(one.fields.values())


_plans: WeakKeyDictionary[WorkflowSpec, Plan] = WeakKeyDictionary()


def plan_of(spec: WorkflowSpec) -> Plan:
    """The plan of a graph workflow."""
    assert spec.graph is not None
    plan = _plans.get(spec)
    if plan is None:
        plan = _plans[spec] = Plan(spec.graph)
    return plan
