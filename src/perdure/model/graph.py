"""A graph's definition: `Workflow = (N nodes, A activities, D dependencies, C conditions, P parameters)` as frozen data."""

from __future__ import annotations

from typing import Literal

import msgspec

Join = Literal["succeeded", "done", "any"] | int


class StepRef(msgspec.Struct, frozen=True, tag_field="ref", tag="step"):
    """An argument that is another node's result; `path` picks fields or items inside it."""

    step: str
    path: tuple[str | int, ...] = ()


class InputRef(msgspec.Struct, frozen=True, tag_field="ref", tag="input"):
    """An argument that is a parameter of the graph; `path` picks fields or items inside it."""

    name: str
    path: tuple[str | int, ...] = ()


class Value(msgspec.Struct, frozen=True, tag_field="ref", tag="value"):
    """A literal argument, as JSON."""

    value: msgspec.Raw


class Many(msgspec.Struct, frozen=True, tag_field="ref", tag="list"):
    """A list of arguments, each of any form."""

    items: tuple[StepRef | InputRef | Value | Many, ...]


Argument = StepRef | InputRef | Value | Many


class Condition(msgspec.Struct, frozen=True):
    """When a node runs. Shape: exactly one of `cel` (text) and `call` (`module:graph#step`) is set; `names` are steps."""

    names: tuple[str, ...]
    cel: str | None = None
    call: str | None = None


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One node. Shape: `args` by parameter name; `after` are dependencies without data; `map` names the parameter that fans out."""

    name: str
    task: str
    args: dict[str, Argument] = {}
    after: tuple[str, ...] = ()
    join: Join = "succeeded"
    when: Condition | None = None
    map: str | None = None
    child: bool = False
    options: dict[str, msgspec.Raw] = {}


class GraphDefinition(msgspec.Struct, frozen=True):
    """A graph as data.

    Shape: `nodes` in the order of definition; `output` gives the run's result (None: the results of all leaves by name).
    """

    name: str
    version: str
    parameters: tuple[str, ...]
    nodes: tuple[Node, ...]
    output: Argument | None = None
