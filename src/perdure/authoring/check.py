"""What a graph's definition must satisfy; each error names the graph, the step and the path.

Nothing recurses over the graph: depth 10,000, width 10,000 and a million edges take linear time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from perdure.errors import DefinitionError
from perdure.model.graph import (
    NESTING_MAX,
    Argument,
    Fields,
    GraphDefinition,
    InputRef,
    Many,
    Node,
    StepRef,
    Value,
    dependencies,
)

NAME: Final = re.compile(r"\w[\w.#+-]{0,254}")
_SHOWN_MAX: Final = 24


def check(definition: GraphDefinition) -> None:
    """Raises: `DefinitionError` naming the first thing that is wrong."""
    where = f"graph {definition.name}"
    for what, text in (("name", definition.name), ("version", definition.version)):
        if not 1 <= len(text) <= 255:
            raise DefinitionError(f"{where}: its {what} {text[:40]!r} is no text of 1 to 255 characters")
    _check_names(where, "parameter", definition.parameters)
    _check_names(where, "step", [node.name for node in definition.nodes])
    checker = _Checker(where, definition)
    for node in definition.nodes:
        checker.node(node)
    if definition.output is not None:
        checker.argument(f"{where}, output", definition.output)
    for name, raw in definition.defaults.items():
        if name not in checker.parameters:
            raise DefinitionError(f"{where}: a default is given for {name!r}, which is no parameter")
        _check_json(f"{where}, default of {name}", raw)
    needs = dependencies(definition)
    for node, names in zip(definition.nodes, needs, strict=True):
        checker.join(node, names)
    order(definition, needs)


def _check_names(where: str, kind: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not NAME.fullmatch(name):
            raise DefinitionError(
                f"{where}: {kind} {name!r}: a name is 1 to 255 letters, digits, '_', '-', '.', '+' and '#'"
            )
        if name in seen:
            raise DefinitionError(f"{where}: two {kind}s are named {name!r}: give one of them another name")
        seen.add(name)


class _Checker:
    """Shape: `done` are arguments that several nodes share and that are known to be right."""

    def __init__(self, where: str, definition: GraphDefinition) -> None:
        self.where = where
        self.steps = {node.name for node in definition.nodes}
        self.parameters = set(definition.parameters)
        self.done: set[int] = set()

    def node(self, node: Node) -> None:
        where = f"{self.where}, step {node.name}"
        for name, argument in node.args.items():
            self.argument(f"{where}, argument {name}", argument)
        if id(node.after) not in self.done:
            for name in node.after:
                self.step(f"{where}, after", name)
            self.done.add(id(node.after))
        if node.map is not None and node.map not in node.args:
            raise DefinitionError(f"{where}: it maps over {node.map!r}, which is not among its arguments")
        if node.map is not None and node.child:
            raise DefinitionError(f"{where}: only a task can be mapped, not a workflow: map over a task, or use a flow")
        if node.child and node.options:
            raise DefinitionError(f"{where}: a child run takes no options ({', '.join(sorted(node.options))})")
        self.condition(where, node)
        for name, raw in node.options.items():
            _check_json(f"{where}, option {name}", raw)

    def condition(self, where: str, node: Node) -> None:
        if node.when is None:
            return
        if (node.when.cel is None) == (node.when.call is None):
            raise DefinitionError(f"{where}: a condition is either CEL text or a reference, not both or none")
        for name in node.when.names:
            if name not in self.steps and name not in self.parameters:
                hint = _meant(name, [*self.steps, *self.parameters])
                raise DefinitionError(
                    f"{where}: its condition names {name!r}, which is neither a step nor a parameter{hint}"
                )

    def argument(self, where: str, argument: Argument) -> None:
        stack: list[tuple[Argument, int]] = [(argument, 1)]
        while stack:
            one, depth = stack.pop()
            if isinstance(one, Many | Fields):
                if id(one) in self.done:
                    continue
                self.done.add(id(one))
            if depth > NESTING_MAX:
                raise DefinitionError(f"{where}: nested more than {NESTING_MAX} deep")
            if isinstance(one, Many):
                stack.extend((item, depth + 1) for item in reversed(one.items))
            elif isinstance(one, Fields):
                stack.extend((item, depth + 1) for item in reversed(one.fields.values()))
            elif isinstance(one, Value):
                _check_json(where, one.value)
            elif isinstance(one, StepRef):
                self.step(where, one.step)
            elif isinstance(one, InputRef):
                if one.name not in self.parameters:
                    raise DefinitionError(
                        f"{where}: {one.name!r} is no parameter of the graph{_meant(one.name, self.parameters)}"
                    )
            else:
                raise DefinitionError(f"{where}: {one!r} is no argument of a step")

    def step(self, where: str, name: str) -> None:
        if name not in self.steps:
            raise DefinitionError(f"{where}: there is no step {name!r}{_meant(name, self.steps)}")

    def join(self, node: Node, needs: Sequence[str]) -> None:
        where, join = f"{self.where}, step {node.name}", node.join
        if isinstance(join, str) and join in {"succeeded", "done", "any"}:
            return
        if isinstance(join, bool) or not isinstance(join, int):
            raise DefinitionError(f'{where}: join={join!r} is none of "succeeded", "done", "any" and a number')
        if not 1 <= join <= len(needs):
            raise DefinitionError(f"{where}: join={join}, but it depends on {len(needs)} steps")


def order(definition: GraphDefinition, needs: Sequence[Sequence[str]]) -> list[int]:
    """The indices of the nodes, dependencies first, else in the order of definition.

    Raises: `DefinitionError` showing a cycle as a path.
    """
    index = {node.name: i for i, node in enumerate(definition.nodes)}
    feeds: list[list[int]] = [[] for _ in needs]
    left = [len(names) for names in needs]
    for i, names in enumerate(needs):
        for name in names:
            feeds[index[name]].append(i)
    found = [i for i, count in enumerate(left) if not count]
    for i in found:  # grows as it goes
        for k in feeds[i]:
            left[k] -= 1
            if not left[k]:
                found.append(k)
    if len(found) < len(needs):
        path = _cycle(definition, needs, index, {i for i, count in enumerate(left) if count})
        if len(path) == 2:
            raise DefinitionError(f"graph {definition.name}: step {path[0]} depends on itself")
        raise DefinitionError(f"graph {definition.name}: a cycle: {_say_path(path)}")
    return found


def _cycle(
    definition: GraphDefinition, needs: Sequence[Sequence[str]], index: dict[str, int], stuck: Collection[int]
) -> list[str]:
    """A path from a step back to itself, in the order in which they would run."""
    at = min(stuck)
    seen: dict[int, int] = {}
    path: list[int] = []
    while at not in seen:
        seen[at] = len(path)
        path.append(at)
        at = next(k for name in needs[at] if (k := index[name]) in stuck)
    names = [definition.nodes[i].name for i in reversed(path[seen[at] :])]
    return [names[-1], *names]


def _say_path(path: Sequence[str]) -> str:
    if len(path) > _SHOWN_MAX:
        half = _SHOWN_MAX // 2
        path = [*path[:half], f"... {len(path) - 2 * half:,} more ...", *path[-half:]]
    return " -> ".join(path)


def _check_json(where: str, raw: msgspec.Raw) -> None:
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DefinitionError(f"{where}: no valid JSON: {error}") from None


def _meant(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known)[:10_000], 1)
    return f": did you mean {close[0]!r}?" if close else ""
