"""A graph drawn as text by levels, as Mermaid, or as DOT: what `perdure draw` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from perdure.authoring.check import order
from perdure.errors import BadCall
from perdure.model.graph import GraphDefinition, Node, dependencies
from perdure.model.text import escape

NODES_SHOWN_MAX: Final = 200
_NEEDS_SHOWN_MAX: Final = 6
_LEVEL_SHOWN_MAX: Final = 24


def draw(definition: GraphDefinition, style: str = "text") -> str:
    """The graph as "text", "mermaid" or "dot".

    Raises: `BadCall` for another style; `DefinitionError` where the definition has a cycle.
    """
    drawn = STYLES.get(style)
    if drawn is None:
        raise BadCall(f"style={style!r} is none of {', '.join(STYLES)}")
    return drawn(definition, dependencies(definition))


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


def _text(definition: GraphDefinition, needs: Sequence[Sequence[str]]) -> str:
    """One line a node, by levels:  ` 1  check <- extract`."""
    layers = levels(definition, needs)
    edges, width = sum(map(len, needs)), max(map(len, layers), default=0)
    head = f"{escape(definition.name)}({', '.join(definition.parameters)}), version {escape(definition.version)}"
    size = f"{_count(len(definition.nodes), 'step')}, {_count(edges, 'edge')}, {_count(len(layers), 'level')}"
    lines = [f"{head}: {size}, at most {width} wide"]
    digits, shown = len(str(max(len(layers) - 1, 0))), 0
    for number, layer in enumerate(layers):
        if shown >= NODES_SHOWN_MAX:
            left = len(layers) - number
            lines.append(f"{'':{digits}}   ... {_count(left, 'more level')}")
            break
        wide = max(len(_label(definition.nodes[i])) for i in layer[:_LEVEL_SHOWN_MAX])
        for place, i in enumerate(layer[:_LEVEL_SHOWN_MAX]):
            head = f"{number:>{digits}}" if place == 0 else " " * digits
            lines.append(f"{head}  {_line(definition.nodes[i], needs[i], min(wide, 40))}".rstrip())
        shown += min(len(layer), _LEVEL_SHOWN_MAX)
        if len(layer) > _LEVEL_SHOWN_MAX:
            lines.append(f"{'':{digits}}  ... {len(layer) - _LEVEL_SHOWN_MAX:,} more of this level")
    return "\n".join(lines)


def _line(node: Node, needs: Sequence[str], width: int) -> str:
    names = ", ".join(needs[:_NEEDS_SHOWN_MAX])
    if len(needs) > _NEEDS_SHOWN_MAX:
        names += f" and {len(needs) - _NEEDS_SHOWN_MAX:,} more"
    line = f"{_label(node):{width}}" + (f"  <- {names}" if needs else "")
    if node.join != "succeeded":
        line += f"  ({_say_join(node)})"
    if node.when is not None:
        line += f"  when {escape(node.when.cel or node.when.call or '', 80)}"
    return line


def _label(node: Node) -> str:
    task = "" if node.task == node.name else f" = {escape(node.task)}"
    return node.name + ("[*]" if node.map else "") + task + (" (workflow)" if node.child else "")


def _say_join(node: Node) -> str:
    return {"done": "when all are done", "any": "when any succeeded"}.get(str(node.join), f"when {node.join} succeeded")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _mermaid(definition: GraphDefinition, needs: Sequence[Sequence[str]]) -> str:
    """A Mermaid flowchart: dashed edges carry a condition."""
    ids = {node.name: f"n{i}" for i, node in enumerate(definition.nodes)}
    lines = ["flowchart TD"]
    for node in definition.nodes:
        opened, closed = ("[[", "]]") if node.child else ("[/", "/]") if node.map else ("[", "]")
        label = _label(node) + ("" if node.join == "succeeded" else f"\n{_say_join(node)}")
        lines.append(f'  {ids[node.name]}{opened}"{_quoted(label)}"{closed}')
    for node, names in zip(definition.nodes, needs, strict=True):
        when = node.when
        for name in names:
            if when is not None and name in when.names:
                arrow = f'-. "{_quoted(escape(when.cel or "condition", 60))}" .->'
            else:
                arrow = "-->"
            lines.append(f"  {ids[name]} {arrow} {ids[node.name]}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    for char, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", "<br/>")):
        text = text.replace(char, entity)
    return text


def _dot(definition: GraphDefinition, needs: Sequence[Sequence[str]]) -> str:
    """A digraph for Graphviz."""
    lines = [f"digraph {_dot_text(definition.name)} {{", "  rankdir=TB; node [shape=box, fontname=sans-serif];"]
    for node in definition.nodes:
        shape = ', shape="component"' if node.child else ", peripheries=2" if node.map else ""
        label = _label(node) + ("" if node.join == "succeeded" else f"\n{_say_join(node)}")
        lines.append(f"  {_dot_text(node.name)} [label={_dot_text(label)}{shape}];")
    for node, names in zip(definition.nodes, needs, strict=True):
        for name in names:
            style = ""
            if node.when is not None and name in node.when.names:
                style = f" [style=dashed, label={_dot_text(node.when.cel or 'condition')}]"
            lines.append(f"  {_dot_text(name)} -> {_dot_text(node.name)}{style};")
    return "\n".join([*lines, "}"])


def _dot_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


STYLES: Final[Mapping[str, Callable[[GraphDefinition, Sequence[Sequence[str]]], str]]] = {
    "text": _text,
    "mermaid": _mermaid,
    "dot": _dot,
}
