"""Random definitions of graphs, with every form of argument, for round trips."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from perdure.model.graph import (
    Argument,
    Condition,
    Fields,
    GraphDefinition,
    InputRef,
    Join,
    Many,
    Node,
    StepRef,
    Value,
    references,
)
from perdure.model.payload import canonical

TASKS = ("plain", "shop.etl:load", "odd name")
# Words that mean something in YAML or in documents, beside any text.
WORDS = (
    "",
    *[
        "on",
        "no",
        "null",
        "~",
        "1.5",
        "0x1F",
        "1e3",
        "2001-01-01",
        "<<",
        "=",
        "step",
        "value",
        "list",
        "dict",
        "input",
        "*a",
        "&a",
        "!t",
        "-x",
        "a:",
        "#c",
    ],
)

text = st.text(max_size=12) | st.sampled_from(WORDS)
leaves = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text
)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)
names = st.from_regex(r"\w[\w.#+-]{0,8}", fullmatch=True) | st.sampled_from(("on", "null", "1", "1.5", "no", "step"))


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(canonical(msgspec.json.encode(value)))


@st.composite
def definitions(draw: st.DrawFn) -> GraphDefinition:
    """A definition that is well formed: references lead to earlier steps and to parameters."""
    parameters = tuple(draw(st.lists(names, max_size=3, unique=True)))
    steps = [name for name in draw(st.lists(names, max_size=5, unique=True)) if name not in parameters]
    nodes: list[Node] = []
    for i, name in enumerate(steps):
        before = steps[:i]
        args = draw(st.dictionaries(st.sampled_from(("a", "b", "on")), arguments(before, parameters), max_size=2))
        after = tuple(draw(st.lists(st.sampled_from(before), unique=True))) if before else ()
        child = draw(st.booleans())
        node = Node(
            name,
            draw(st.sampled_from(TASKS)),
            args,
            after,
            "succeeded",
            draw(conditions([*before, *parameters])),
            draw(st.sampled_from(sorted(args))) if args and not child and draw(st.booleans()) else None,
            child,
            {} if child else draw(options),
        )
        count = len(_needs(node, before))
        join: Join = draw(st.sampled_from(["succeeded", "done", "any", *range(1, count + 1)]))
        nodes.append(msgspec.structs.replace(node, join=join))
    output = draw(st.none() | arguments(steps, parameters))
    defaults = draw(st.dictionaries(st.sampled_from(parameters), json_values.map(raw))) if parameters else {}
    return GraphDefinition(draw(text.filter(bool)), draw(text.filter(bool)), parameters, tuple(nodes), output, defaults)


def _needs(node: Node, before: list[str]) -> set[str]:
    found = {one.step for argument in node.args.values() for one in references(argument) if isinstance(one, StepRef)}
    return found | set(node.after) | {name for name in (node.when.names if node.when else ()) if name in before}


def arguments(steps: list[str], parameters: tuple[str, ...]) -> st.SearchStrategy[Argument]:
    path = st.lists(st.integers(-3, 3) | text, max_size=2).map(tuple)
    simple: st.SearchStrategy[Argument] = json_values.map(lambda value: Value(raw(value)))
    if steps:
        simple |= st.builds(StepRef, st.sampled_from(steps), path)
    if parameters:
        simple |= st.builds(InputRef, st.sampled_from(parameters), path)
    return st.recursive(
        simple,
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: Many(tuple(items)))
            | st.dictionaries(text, inner, max_size=3).map(Fields)
        ),
        max_leaves=5,
    )


@st.composite
def conditions(draw: st.DrawFn, known: list[str]) -> Condition | None:
    if not draw(st.booleans()):
        return None
    read = tuple(draw(st.lists(st.sampled_from(known), unique=True, max_size=2))) if known else ()
    return Condition(read, call=f"shop:graph#{draw(names)}")


options = st.dictionaries(st.sampled_from(("timeout", "needs", "retry", "pool")), json_values.map(raw), max_size=2)
