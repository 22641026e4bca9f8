"""What a graph's definition requires, worked out anew from the recorded ends alone.

It shares nothing with the graph decider: that one keeps counters as facts come in, this one walks the whole
definition once, dependencies first, and asks of each node what its join rule makes of their recorded ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, Literal, NamedTuple

import msgspec

from perdure.model.graph import Argument, GraphDefinition, InputRef, Many, Node, StepRef, Value

_ELEMENT: Final = re.compile(r"(.*)\[(\d+)\]", re.DOTALL)
State = Literal["succeeded", "failed", "skipped", "open"]


class End(NamedTuple):
    """A recorded end. Shape: `seq` is the fact in whose turn it came about; `reason` is a skip's."""

    state: State
    seq: int
    reason: str = ""
    result: bytes | None = None


class Trace(NamedTuple):
    """What one generation recorded: ends by key, the turns that asked by key, the run's input.

    Shape: `unmade` are nodes that failed without an attempt, since their arguments could not be made.
    """

    ends: Mapping[str, End]
    asked: Mapping[str, int]
    input: bytes
    unmade: frozenset[str] = frozenset()


class Problem(NamedTuple):
    seq: int | None
    text: str


def dependencies(node: Node) -> list[str]:
    """The nodes that this one waits for: by data, by order, by a name in its condition."""
    named = [name for argument in node.args.values() for name in _steps_in(argument)]
    return list(dict.fromkeys([*named, *node.after, *(node.when.names if node.when else ())]))


def _steps_in(argument: object) -> Iterator[str]:
    """The steps that an argument of any form names, however deep they stand in it."""
    if isinstance(argument, StepRef):
        yield argument.step
        return
    parts: Iterable[object] = ()
    if isinstance(argument, msgspec.Struct):
        parts = [getattr(argument, name) for name in argument.__struct_fields__]
    elif isinstance(argument, Mapping):
        parts = argument.values()
    elif isinstance(argument, list | tuple):
        parts = argument
    for part in parts:
        yield from _steps_in(part)


class Oracle:
    """The nodes of a definition in an order in which dependencies come first, with what the trace says of each."""

    def __init__(self, definition: GraphDefinition, trace: Trace) -> None:
        self.definition, self.trace = definition, trace
        self.nodes = {node.name: node for node in definition.nodes}
        self.needs = {
            node.name: [name for name in dependencies(node) if name in self.nodes] for node in definition.nodes
        }
        self.order = list(TopologicalSorter(self.needs).static_order())
        self.elements: dict[str, dict[int, str]] = {node.name: {} for node in definition.nodes if node.map}
        self.sizes: dict[str, int] = {}
        self.strangers: list[str] = []
        for key in dict.fromkeys([*trace.ends, *trace.asked]):
            element = _ELEMENT.fullmatch(key)
            if element and element[1] in self.elements:
                self.elements[element[1]][int(element[2])] = key
            elif key not in self.nodes:
                self.strangers.append(key)
        self.found: dict[str, End] = {}
        for name in self.order:
            self.found[name] = self._found(self.nodes[name])

    def _found(self, node: Node) -> End:
        """The node's end as recorded; a fan-out has ended when every element of its list has."""
        end = self.trace.ends.get(node.name)
        ready = max((self.found[name].seq for name in self.needs[node.name]), default=0)
        if node.name in self.trace.unmade:
            return End("failed", ready)
        if end is not None or not node.map:
            return end or End("open", 0)
        keys = [f"{node.name}[{index}]" for index in range(self.size(node))]
        ends = [self.trace.ends.get(key, End("open", 0)) for key in keys]
        if any(self.found[name].state == "open" for name in self.needs[node.name]) and not ends:
            return End("open", 0)
        states = {end.state for end in ends}
        state: State = "open" if "open" in states else "failed" if "failed" in states else "succeeded"
        return End(state, max([ready, *(end.seq for end in ends)]))

    def size(self, node: Node) -> int:
        """How many elements a fan-out has: the length of its list, or as many as are recorded where it is not known."""
        known = self.sizes.get(node.name)
        if known is None:
            items = self._value(node.args.get(node.map or ""))
            known = len(items) if isinstance(items, list) else max(self.elements[node.name], default=-1) + 1
            self.sizes[node.name] = known
        return known

    def _value(self, argument: Argument | None) -> Any:
        """An argument's value as JSON; None where it cannot be told from here (a blob, a missing step)."""
        try:
            if isinstance(argument, Value):
                return msgspec.json.decode(argument.value)
            if isinstance(argument, Many):
                return list(argument.items)
            if isinstance(argument, InputRef):
                given = msgspec.json.decode(self.trace.input)
                named = given if isinstance(given, dict) else dict(zip(self.definition.parameters, given, strict=False))
                return _picked(named[argument.name], argument.path)
            if isinstance(argument, StepRef) and self.nodes[argument.step].map:
                return [None] * self.size(self.nodes[argument.step]) if not argument.path else None
            if isinstance(argument, StepRef):
                result = self.trace.ends[argument.step].result
                return None if result is None else _picked(msgspec.json.decode(result), argument.path)
        except (msgspec.DecodeError, LookupError, TypeError):
            return None
        return None

    def fires(self, node: Node, ends: Sequence[End]) -> bool:
        """What the node's join rule makes of these ends of its dependencies."""
        good = sum(end.state == "succeeded" for end in ends)
        if node.join == "succeeded":
            return good == len(self.needs[node.name])
        if node.join == "done":
            return sum(end.state != "open" for end in ends) == len(self.needs[node.name])
        return good >= min(1 if node.join == "any" else node.join, len(self.needs[node.name]))


def _picked(value: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        value = value[part]
    return value


def required(definition: GraphDefinition, trace: Trace) -> list[Problem]:
    """What is missing or too much in the trace of a completed run."""
    try:
        oracle = Oracle(definition, trace)
    except CycleError as error:
        return [Problem(None, f"the definition has a cycle: {' -> '.join(error.args[1])}")]
    problems: list[Problem] = []
    taken = {name for node in definition.nodes if node.join != "succeeded" for name in oracle.needs[node.name]}
    for name in oracle.order:
        node, end = oracle.nodes[name], oracle.found[name]
        fires = oracle.fires(node, [oracle.found[need] for need in oracle.needs[name]])
        problems += _judged(node, end, fires)
        if node.map and end.state != "skipped":
            size = oracle.size(node)
            surplus = [index for index in oracle.elements[name] if index >= size]
            problems += [Problem(None, f"{name}[{index}] is recorded, but its list is shorter") for index in surplus]
        if end.state == "failed" and name not in taken:
            problems.append(Problem(end.seq, f"step {name} failed, no join rule took it, and the run completed"))
        if end.state == "open":  # named above; what depends on it is judged as if it were there
            oracle.found[name] = End("succeeded" if fires else "skipped", 0)
    return problems


def _judged(node: Node, end: End, fires: bool) -> Iterator[Problem]:
    if end.state == "skipped":
        if fires and (end.reason != "condition" or node.when is None):
            yield Problem(end.seq, f"step {node.name} was skipped ({end.reason}), though what it needs is there")
        if not fires and end.reason == "condition":
            yield Problem(end.seq, f"the condition of step {node.name} was judged, though what it needs is not there")
    elif fires and end.state == "open":
        yield Problem(None, f"step {node.name} is required, and has no recorded outcome")
    elif not fires and end.state == "open":
        yield Problem(None, f"step {node.name} cannot run, and is not recorded as skipped")
    elif not fires:
        yield Problem(end.seq, f"step {node.name} has an outcome, though its join rule ({node.join}) never held")


def out_of_order(definition: GraphDefinition, trace: Trace) -> tuple[int, list[Problem]]:
    """How many askings were compared with their dependencies' ends, and those that came too early."""
    try:
        oracle = Oracle(definition, trace)
    except CycleError:
        return 0, []
    problems = [Problem(None, f"step {key} is no node of the graph's definition") for key in oracle.strangers]
    checked = 0
    for name, node in oracle.nodes.items():
        for key in [name, *oracle.elements.get(name, {}).values()]:
            asked = trace.asked.get(key)
            if asked is None:
                continue
            checked += 1
            ends = [oracle.found[need] for need in oracle.needs[name]]
            if not oracle.fires(node, [end if end.seq <= asked else End("open", 0) for end in ends]):
                late = [need for need in oracle.needs[name] if not 0 < oracle.found[need].seq <= asked]
                problems.append(
                    Problem(asked, f"step {key} was asked for before what it needs had ended: {', '.join(late)}")
                )
    return checked, problems
