"""A graph drawn as text by levels, as Mermaid, or as DOT: what `perdure draw` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from perdure.authoring.check import order
from perdure.authoring.likeness import Box, boxes
from perdure.errors import BadCall
from perdure.model.graph import GraphDefinition, Node, dependencies
from perdure.model.text import escape

BOXES_SHOWN_MAX: Final = 200
_NAME_SHOWN_MAX: Final = 40
_LABEL_WIDTH_MAX: Final = 60
_NEEDS_SHOWN_MAX: Final = 4
_LEVEL_SHOWN_MAX: Final = 24


def draw(definition: GraphDefinition, style: str = "text", *, each: bool = False) -> str:
    """The graph as "text", "mermaid" or "dot". Steps that are alike are drawn as one, unless `each` is wanted.

    Raises: `BadCall` for another style; `DefinitionError` where the definition has a cycle.
    """
    drawn = STYLES.get(style)
    if drawn is None:
        raise BadCall(f"style={style!r} is none of {', '.join(STYLES)}")
    needs = dependencies(definition)
    layers = levels(definition, needs)
    size = f"{_count(len(definition.nodes), 'step')}, {_count(sum(map(len, needs)), 'edge')}, "
    size += f"{_count(len(layers), 'level')}, at most {max(map(len, layers), default=0)} wide"
    return drawn(definition, boxes(definition, needs, layers, each=each), size)


def levels(definition: GraphDefinition, needs: Sequence[Sequence[str]]) -> list[list[int]]:
    """The nodes by the number of nodes on the longest way to them."""
    depth: dict[str, int] = {}
    found: list[list[int]] = []
    below: dict[int, int] = {}  # nodes of a layer often share one tuple of dependencies
    for i in order(definition, needs):
        names = needs[i]
        level = below.get(id(names))
        if level is None:
            level = below[id(names)] = 1 + max((depth[name] for name in names), default=-1)
        depth[definition.nodes[i].name] = level
        if level == len(found):
            found.append([])
        found[level].append(i)
    return found


def _text(definition: GraphDefinition, layers: Sequence[Sequence[Box]], size: str) -> str:
    """One line a box, by levels:  ` 1  check <- extract`."""
    known = {box.number: box for box in chain.from_iterable(layers)}
    head = f"{escape(definition.name)}({', '.join(definition.parameters)}), version {escape(definition.version)}"
    lines = [f"{head}: {size}"]
    digits, shown = len(str(max(len(layers) - 1, 0))), 0
    for number, layer in enumerate(layers):
        if shown >= BOXES_SHOWN_MAX:
            lines.append(f"{'':{digits}}   ... {_count(len(layers) - number, 'more level')}")
            break
        wide = max(len(_label(box)) for box in layer[:_LEVEL_SHOWN_MAX])
        for place, box in enumerate(layer[:_LEVEL_SHOWN_MAX]):
            head = f"{number:>{digits}}" if place == 0 else " " * digits
            lines.append(f"{head}  {_line(box, known, min(wide, _LABEL_WIDTH_MAX))}".rstrip())
        shown += min(len(layer), _LEVEL_SHOWN_MAX)
        left = sum(box.count for box in layer[_LEVEL_SHOWN_MAX:])
        if left:
            lines.append(f"{'':{digits}}  ... {left:,} more of this level")
    return "\n".join(lines)


def _line(box: Box, known: Mapping[int, Box], width: int) -> str:
    node, sources = box.node, list(box.needs)
    names = ", ".join(_needed(known[source], box) for source in sources[:_NEEDS_SHOWN_MAX])
    if len(sources) > _NEEDS_SHOWN_MAX:
        names += f" and {len(sources) - _NEEDS_SHOWN_MAX:,} more"
    line = f"{_label(box):{width}}" + (f"  <- {names}" if sources else "")
    if node.join != "succeeded":
        line += f"  ({_say_join(node)})"
    if node.when is not None:
        line += f"  when {_say_condition(box, 80)}"
    return line


def _label(box: Box) -> str:
    node = box.node
    task = "" if node.task == node.name else f" = {_cut(escape(node.task))}"
    many = f" x {box.count:,}" if box.count > 1 else ""
    return _cut(box.name) + ("[*]" if node.map else "") + many + task + (" (workflow)" if node.child else "")


def _tall_label(box: Box) -> str:
    """A label with the join below it, where that is not the usual one."""
    return _label(box) + ("" if box.node.join == "succeeded" else f"\n{_say_join(box.node)}")


def _cut(name: str) -> str:
    """A name, its middle left out where it is long."""
    if len(name) <= _NAME_SHOWN_MAX:
        return name
    tail = _NAME_SHOWN_MAX * 2 // 3
    return f"{name[: _NAME_SHOWN_MAX - tail - 1]}…{name[-tail:]}"


def _needed(source: Box, box: Box) -> str:
    """What a box needs of another one:  `blast_*`, all of them; `blast_* (2 of 40)`."""
    how_many = _how_many(source, box)
    return _cut(source.name) + (f" ({how_many})" if how_many else "")


def _how_many(source: Box, box: Box) -> str:
    """How many of a box's steps each of another one needs; empty where it is a single one."""
    least, most = box.needs[source.number]
    if source.count == 1:
        return ""
    if least == source.count:
        return f"all {least:,}"
    return f"{least:,} of {source.count:,}" if least == most else f"{least:,} to {most:,} of {source.count:,}"


def _say_join(node: Node) -> str:
    return {"done": "when all are done", "any": "when any succeeded"}.get(str(node.join), f"when {node.join} succeeded")


def _say_condition(box: Box, limit: int) -> str:
    """The condition of a box: of several steps that of the first, which differs from theirs in numbers only."""
    assert box.node.when is not None
    return escape(box.node.when.cel or box.node.when.call or "", limit)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _edges(layers: Sequence[Sequence[Box]]) -> Iterator[tuple[Box, Box, str, str]]:
    """Each edge between boxes: from, to, what stands at it, and the condition that reads it (empty: none)."""
    known = {box.number: box for box in chain.from_iterable(layers)}
    for box in known.values():
        when = box.node.when
        for number in box.needs:
            source = known[number]
            reads = when is not None and source.node.name in when.names
            condition = escape(when.cel or "condition", 60) if when is not None and reads else ""
            yield source, box, _how_many(source, box), condition


def _mermaid(_: GraphDefinition, layers: Sequence[Sequence[Box]], __: str) -> str:
    """A Mermaid flowchart: dashed edges carry a condition."""
    lines = ["flowchart TD"]
    for box in chain.from_iterable(layers):
        node = box.node
        opened, closed = ("[[", "]]") if node.child else ("[/", "/]") if node.map else ("[", "]")
        lines.append(f'  n{box.number}{opened}"{_quoted(_tall_label(box))}"{closed}')
    for source, box, how_many, condition in _edges(layers):
        said = _quoted(", ".join(text for text in (condition, how_many) if text))
        arrow = f'-. "{said}" .->' if condition else f'-- "{said}" -->' if said else "-->"
        lines.append(f"  n{source.number} {arrow} n{box.number}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    for char, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", "<br/>")):
        text = text.replace(char, entity)
    return text


def _dot(definition: GraphDefinition, layers: Sequence[Sequence[Box]], _: str) -> str:
    """A digraph for Graphviz."""
    lines = [f"digraph {_dot_text(definition.name)} {{", "  rankdir=TB; node [shape=box, fontname=sans-serif];"]
    for box in chain.from_iterable(layers):
        node = box.node
        shape = ', shape="component"' if node.child else ", peripheries=2" if node.map else ""
        lines.append(f"  {_dot_text(box.name)} [label={_dot_text(_tall_label(box))}{shape}];")
    for source, box, how_many, condition in _edges(layers):
        said = _dot_text(", ".join(text for text in (condition, how_many) if text))
        style = f" [style=dashed, label={said}]" if condition else f" [label={said}]" if how_many else ""
        lines.append(f"  {_dot_text(source.name)} -> {_dot_text(box.name)}{style};")
    return "\n".join([*lines, "}"])


def _dot_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


STYLES: Final[Mapping[str, Callable[[GraphDefinition, Sequence[Sequence[Box]], str], str]]] = {
    "text": _text,
    "mermaid": _mermaid,
    "dot": _dot,
}
