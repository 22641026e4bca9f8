"""S29: what stands for a value while a graph is traced refuses whatever would need the value, and shows the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from perdure import graph, now, task, variables, wait_signal, workflow
from perdure.errors import DefinitionError, NotInWorkflow


@task
def make(a: Any = None) -> dict[str, Any]:
    return {}


@task
def use(a: Any) -> Any:
    return a


@dataclass
class Order:
    id: Any
    cents: int


def _if(x: Any) -> None:
    if x:
        pass


def _match(x: Any) -> None:
    match x:
        case [1, _]:
            pass


def _del(x: Any) -> None:
    del x["a"]


def _set(x: Any) -> None:
    x["a"] = 1


def _attribute(x: Any) -> None:
    x.a = 1


def _with(x: Any) -> None:
    with x:
        pass


def _augment(x: Any) -> None:
    x += 1


MISUSES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "f-string": (lambda x: f"rows: {x}", "inside a task"),
    "f-string with a format": (lambda x: f"{x:>10}", "inside a task"),
    "f-string of a field": (lambda x: f"{x.rows}", "inside a task"),
    "str": (str, "inside a task"),
    "percent": (lambda x: "%s" % x, "inside a task"),  # noqa: UP031 - what people write
    "format": ("{}".format, "inside a task"),
    "join": (",".join, "task.map"),
    "bytes": (bytes, "inside a task"),
    "if": (_if, "step.when(lambda"),
    "not": (lambda x: not x, "step.when(lambda"),
    "and": (lambda x: x and 1, "step.when(lambda"),
    "==": (lambda x: x == 1, "step.when(lambda"),
    "!=": (lambda x: x != 1, "step.when(lambda"),
    "<": (lambda x: x < 1, "step.when(lambda"),
    ">=": (lambda x: x.rows >= 1, "step.when(lambda"),
    "in": (lambda x: 1 in x, "step.when(lambda"),
    "for": (lambda x: [use(one) for one in x], "task.map"),
    "unpacking": (lambda x: use(*x), "task.map"),
    "unpacking of a mapping": (lambda x: use(**x), ""),
    "list": (list, "task.map"),
    "sorted": (sorted, "task.map"),
    "sum": (sum, "task.map"),
    "max": (max, "task.map"),
    "next": (next, "task.map"),
    "reversed": (reversed, "task.map"),
    "enumerate": (lambda x: list(enumerate(x)), "task.map"),
    "len": (len, "inside a task"),
    "int": (int, "inside a task"),
    "float": (float, "inside a task"),
    "round": (round, "inside a task"),
    "floor": (math.floor, "inside a task"),
    "abs": (abs, "inside a task"),
    "range": (range, "inside a task"),
    "index of a list": (lambda x: [1, 2][x], "inside a task"),
    "+": (lambda x: x + 1, "inside a task"),
    "+ from the right": (lambda x: "a" + x, "inside a task"),
    "*": (lambda x: [1] * x, "inside a task"),
    "+=": (_augment, "inside a task"),
    "-": (lambda x: -x, "inside a task"),
    "|": (lambda x: x | {}, "inside a task"),
    "call": (lambda x: x(), "inside a task"),
    "method": (lambda x: x.upper(), "inside a task"),
    "slice": (lambda x: x[1:], "use a task"),
    "index of a wrong type": (lambda x: x[1.5], "by its name or number"),
    "index of a tuple": (lambda x: x[1, 2], "by its name or number"),
    "index of a bool": (lambda x: x[True], "by its name or number"),
    "index of a placeholder": (lambda x: x[x], "by its name or number"),
    "await": (lambda x: asyncio.run(_awaited(x)), "pass make to the next task"),
    "with": (_with, "pass make to the next task"),
    "match": (_match, ""),
    "item set": (_set, "inside a task"),
    "item deleted": (_del, "inside a task"),
    "attribute set": (_attribute, "inside a task"),
    "file path": (open, "inside a task"),
    "set of results": (lambda x: use({x, make()}), "give a list"),
    "inside a dataclass": (lambda x: use(Order(x, 1)), "argument of its own"),
    "a key of a mapping": (lambda x: use({x: 1, "y": x}), "no text"),
}
HARMLESS = {"match", "unpacking of a mapping"}


async def _awaited(x: Any) -> Any:
    return await x


@pytest.mark.parametrize("what", MISUSES)
@pytest.mark.parametrize("of", ["a result", "a parameter"])
def test_f75_a_misuse_is_refused_with_the_way_to_do_it(what: str, of: str) -> None:
    """Goal: nothing that needs the value works by chance, and each error tells what to write instead."""
    misuse, way = MISUSES[what]

    def body(day: str) -> Any:
        misuse(make() if of == "a result" else day)
        return make()

    if what in HARMLESS:
        with contextlib.suppress(DefinitionError, TypeError):
            graph(body)
        return
    with pytest.raises(DefinitionError) as caught:
        graph(body)
    if of == "a result" or "make" not in way:
        assert way in str(caught.value)


def test_a_json_dump_of_a_placeholder_is_refused() -> None:
    """Goal: a serialiser finds nothing that it could write in silence."""

    def body() -> Any:
        json.dumps(make())

    with pytest.raises((DefinitionError, TypeError)):
        graph(body)


def test_what_needs_no_value_works() -> None:
    """Goal: identity, truth of None, repr, and passing on are no misuse."""

    @graph
    def fine(day: str, more: Any = None) -> Any:
        first = make(day)
        assert first is not None
        assert repr(first) == "<result of step make>"
        assert repr(first["a"].b[0]) == "<result of step make.a.b[0]>"
        assert first.x is first.x
        assert hash(first) == hash(first)
        return use([first, {"a": day}])

    assert [node.name for node in fine.definition.nodes] == ["make", "use"]


def test_steps_of_another_graph_are_refused() -> None:
    """Goal: a result belongs to the graph in which it was made."""
    kept: list[Any] = []

    @graph
    def one() -> Any:
        kept.append(make())
        return kept[0]

    def two() -> Any:
        return use(kept[0])

    with pytest.raises(DefinitionError, match="belongs to another graph"):
        graph(two)

    def three() -> Any:
        return use(make()).after(kept[0])

    with pytest.raises(DefinitionError, match="belongs to another graph"):
        graph(three)
    with pytest.raises(DefinitionError, match="defined already"):
        kept[0].when(lambda make: True)


@workflow
async def flow(a: Any) -> Any:
    return a


REFUSED: dict[str, Callable[[], Any]] = {
    "now": now,
    "variables": lambda: variables["a"],
    "wait_signal": lambda: wait_signal("a", int),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_only_a_running_flow_has_is_refused(what: str) -> None:
    """Goal: time, variables and signals are not known while a graph is traced; the error says where they are."""

    def body() -> Any:
        REFUSED[what]()
        return make()

    with pytest.raises(DefinitionError, match="traced before any run"):
        graph(body)


def test_outside_a_graph_a_task_and_a_graph_say_how_they_are_called() -> None:
    """Goal: calling a graph or `map` in plain Python is an error that shows the ways out."""

    @graph
    def plain() -> Any:
        return make()

    with pytest.raises(NotInWorkflow, match=r"perdure\.run"):
        plain()
    with pytest.raises(NotInWorkflow):
        make.map([1])
