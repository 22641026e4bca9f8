"""A graph as frozen data: `Workflow = (N nodes, A activities, D dependencies, C conditions, P parameters)`.

A definition may hold a million edges: what several nodes share (a list of arguments, an `after`) is one object.
Nothing here recurses over the graph; arguments are nested at most `NESTING_MAX` deep.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

Join = Literal["succeeded", "done", "any"] | int
NESTING_MAX: Final = 32


class StepRef(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="ref", tag="step"):
    """An argument that is another node's result; `path` picks fields or items inside it."""

    step: str
    path: tuple[str | int, ...] = ()


class InputRef(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="ref", tag="input"):
    """An argument that is a parameter of the graph; `path` picks fields or items inside it."""

    name: str
    path: tuple[str | int, ...] = ()


class Value(msgspec.Struct, frozen=True, gc=False, tag_field="ref", tag="value"):
    """A literal argument, as JSON."""

    value: msgspec.Raw


class Many(msgspec.Struct, frozen=True, gc=False, tag_field="ref", tag="list"):
    """A list of arguments, each of any form."""

    items: tuple[StepRef | InputRef | Value | Many | Fields, ...]


class Fields(msgspec.Struct, frozen=True, gc=False, tag_field="ref", tag="dict"):
    """A mapping of arguments by key, each of any form."""

    fields: dict[str, StepRef | InputRef | Value | Many | Fields]


Argument = StepRef | InputRef | Value | Many | Fields


class Condition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """When a node runs.

    Shape: exactly one of `cel` (text) and `call` (`module:graph#step`) is set; `names` are what it reads: steps, and
           parameters of the graph (a step where both have the name).
    """

    names: tuple[str, ...]
    cel: str | None = None
    call: str | None = None


class Node(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One node.

    Shape: `task` is the name of a task, or of a workflow where it is a `child`; `args` by parameter name (`*args` is a
           `Many`, `**kwargs` a `Fields`; what is not given takes its default); `after` are dependencies without data;
           `map` names the parameter that fans out; `options` differ from the task's own.
    """

    name: str
    task: str
    args: dict[str, Argument] = {}
    after: tuple[str, ...] = ()
    join: Join = "succeeded"
    when: Condition | None = None
    map: str | None = None
    child: bool = False
    options: dict[str, msgspec.Raw] = {}


class GraphDefinition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A graph as data.

    Shape: `nodes` in the order of definition, which need not be that of the dependencies; `defaults` of parameters
           that have one; `output` gives the run's result (None: the results of all leaves by name).
    """

    name: str
    version: str
    parameters: tuple[str, ...]
    nodes: tuple[Node, ...]
    output: Argument | None = None
    defaults: dict[str, msgspec.Raw] = {}

    def __str__(self) -> str:
        lines = [f"graph {self.name} (version {self.version}), parameters: {', '.join(self.parameters) or 'none'}"]
        lines += (f"  {say_node(node)}" for node in self.nodes)
        if self.output is not None:
            lines.append(f"  -> {say_argument(self.output)}")
        return "\n".join(lines)


def references(argument: Argument) -> Iterator[StepRef | InputRef]:
    """The references inside an argument, in order, as often as they stand there."""
    stack: list[Argument] = [argument]
    while stack:
        one = stack.pop()
        if isinstance(one, Many):
            stack.extend(reversed(one.items))
        elif isinstance(one, Fields):
            stack.extend(reversed(one.fields.values()))
        elif not isinstance(one, Value):
            yield one


def dependencies(definition: GraphDefinition) -> list[tuple[str, ...]]:
    """For each node, by index, the nodes that it waits for, each once: by data, by order, by its condition.

    Nodes that wait for the same share one tuple, so that layers with all edges cost little.
    """
    nodes = {node.name for node in definition.nodes}
    known: dict[int, tuple[str, ...]] = {}
    shared: dict[tuple[int, ...], tuple[str, ...]] = {}
    found: list[tuple[str, ...]] = []
    for node in definition.nodes:
        parts = [steps for argument in node.args.values() if (steps := _steps_in(argument, known))]
        if node.after:
            parts.append(node.after)
        key = tuple(map(id, parts))
        needs = shared.get(key)
        if needs is None:
            needs = shared[key] = tuple(dict.fromkeys(name for part in parts for name in part))
        if node.when is not None:
            needs = tuple(dict.fromkeys([*needs, *(name for name in node.when.names if name in nodes)]))
        found.append(needs)
    return found


def _steps_in(argument: Argument, known: dict[int, tuple[str, ...]]) -> tuple[str, ...]:
    if isinstance(argument, InputRef | Value):
        return ()
    steps = known.get(id(argument))
    if steps is None:
        steps = tuple(dict.fromkeys(one.step for one in references(argument) if isinstance(one, StepRef)))
        known[id(argument)] = steps
    return steps


def canonical_json(definition: GraphDefinition) -> bytes:
    """The definition with its keys sorted: equal definitions give equal bytes."""
    return msgspec.json.encode(definition, order="sorted")


def definition_hash(definition: GraphDefinition) -> str:
    """64 hexadecimal digits that stand for the definition: the SHA-256 of its canonical JSON, as a blob's is."""
    return sha256(canonical_json(definition)).hexdigest()


# --- as text for people -------------------------------------------------------------------------

_SAID_MAX = 60


def say_node(node: Node) -> str:
    """One line: `load = load(parts) when check.rows > 0 after bad join done`."""
    args = ", ".join(f"{name}={say_argument(argument)}" for name, argument in node.args.items())
    call = f"{node.task}.map({args})" if node.map else f"{node.task}({args})"
    line = f"{node.name} = {call}"
    if node.after:
        line += " after " + _short(", ".join(node.after[:20]) + (", …" if len(node.after) > 20 else ""))
    if node.when is not None:
        line += f" when {node.when.cel or node.when.call}"
    if node.join != "succeeded":
        line += f" join {node.join}"
    if node.options:
        line += " with " + ", ".join(f"{key}={bytes(raw).decode()}" for key, raw in node.options.items())
    return line


def say_argument(argument: Argument) -> str:
    """An argument as Python would write it, cut to what a line holds."""
    if isinstance(argument, Value):
        return _short(bytes(argument.value).decode())
    if isinstance(argument, Many):
        return (
            "["
            + ", ".join(say_argument(item) for item in argument.items[:8])
            + (", …]" if len(argument.items) > 8 else "]")
        )
    if isinstance(argument, Fields):
        return "{" + ", ".join(f"{key}: {say_argument(item)}" for key, item in argument.fields.items()) + "}"
    return say_reference(argument)


def say_reference(reference: StepRef | InputRef) -> str:
    """`raw.rows[0]`, or `$day` for a parameter of the graph."""
    name = reference.step if isinstance(reference, StepRef) else f"${reference.name}"
    return name + "".join(_say_part(part) for part in reference.path)


def _say_part(part: Any) -> str:
    if isinstance(part, str) and part.isidentifier():
        return f".{part}"
    return f"[{part!r}]"


def _short(text: str) -> str:
    return text if len(text) <= _SAID_MAX else text[: _SAID_MAX - 1] + "…"
