"""Steps that are alike, as one box of a drawing: of one level, one task and one join, from the same boxes, named alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from perdure.model.graph import GraphDefinition, Node

# Fewer steps that are alike are drawn one by one.
ALIKE_MIN: Final = 4
_DIGITS: Final = re.compile(r"(\d+)")
_NUMBERED: Final = re.compile(r"[-_.#]\*$")


class Box:
    """One step, or several that are alike.

    Shape: `name`, which no other box has, shows a star for what differs in the names of several; `node` is the first of
           them. `needs` gives, by the number of a box, how many of its steps each of these needs, at least and at most.
    """

    __slots__ = ("count", "name", "needs", "node", "number")

    def __init__(self, number: int, members: Sequence[Node]) -> None:
        self.number, self.node, self.count = number, members[0], len(members)
        self.name = _common([node.name for node in members]) if len(members) > 1 else members[0].name
        self.needs: dict[int, tuple[int, int]] = {}


def boxes(
    definition: GraphDefinition, needs: Sequence[Sequence[str]], layers: Sequence[Sequence[int]], *, each: bool
) -> list[list[Box]]:
    """The boxes of each level, numbered in their order. Shape: with `each` every step is a box of its own."""
    nodes, made = definition.nodes, []
    of: dict[str, int] = {}
    counted: dict[int, Counter[int]] = {}  # steps of a layer often share one list of needs

    def counts(i: int) -> Counter[int]:
        found = counted.get(id(needs[i]))
        if found is None:
            found = counted[id(needs[i])] = Counter(of[name] for name in needs[i])
        return found

    number = 0
    for layer in layers:
        alike: dict[Any, list[int]] = {}
        for i in layer:
            alike.setdefault(i if each else _likeness(nodes[i], counts(i)), []).append(i)
        level = []
        for members in alike.values():
            for part in [members] if len(members) >= ALIKE_MIN else [[i] for i in members]:
                box = Box(number, [nodes[i] for i in part])
                _needed(box, [counts(i) for i in part])
                of.update((nodes[i].name, number) for i in part)
                level.append(box)
                number += 1
        made.append(level)
    _tell_apart([box for level in made for box in level if box.count > 1])
    return made


def _tell_apart(several: Sequence[Box]) -> None:
    """Number the boxes that have one name: the star of their names stands for different steps."""
    same = Counter(box.name for box in several)
    seen: Counter[str] = Counter()
    for box in several:
        name = box.name
        if same[name] > 1:
            seen[name] += 1
            box.name = f"{name} #{seen[name]}"


def _likeness(node: Node, counts: Counter[int]) -> tuple[Any, ...]:
    """What steps that are drawn as one have in common."""
    family = _NUMBERED.sub("", _DIGITS.sub("*", node.name))
    when = None if node.when is None else _DIGITS.sub("*", node.when.cel or node.when.call or "")
    return family, node.task, node.join, node.map is None, node.child, when, tuple(sorted(counts))


def _needed(box: Box, members: Sequence[Counter[int]]) -> None:
    for counts in {id(one): one for one in members}.values():
        for source, count in counts.items():
            least, most = box.needs.get(source, (count, count))
            box.needs[source] = min(least, count), max(most, count)
    box.needs = dict(sorted(box.needs.items()))


def _common(names: Sequence[str]) -> str:
    """The names with a star for each number that is not the same in all of them."""
    parts = [_DIGITS.split(name) for name in names]
    texts = {tuple(part[::2]) for part in parts}
    if len(texts) > 1:  # such as double, double_2, double_3
        return min(names, key=len) + "*"
    columns = [set(column) for column in zip_longest(*parts)]
    return "".join(next(iter(column)) if len(column) == 1 else "*" for column in columns)
