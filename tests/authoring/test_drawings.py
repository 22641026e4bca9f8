"""Drawings: readable whatever the size, with steps that are alike as one, and still the whole graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from perdure import GraphBuilder, task
from perdure.authoring.draw import STYLES, draw, levels
from perdure.authoring.likeness import ALIKE_MIN, Box, boxes
from perdure.authoring.wfformat import read_trace
from perdure.cli.trace_tasks import graph_of_trace
from perdure.model.graph import GraphDefinition, dependencies
from tests.authoring.definitions import definitions

TRACES = sorted((Path(__file__).parent.parent / "data" / "traces").glob("*.json"))


@task
def load(n: int) -> int:
    return n


@task
def merge(parts: list[int]) -> int:
    return sum(parts)


def _boxes(definition: GraphDefinition, *, each: bool = False) -> list[Box]:
    needs = dependencies(definition)
    return [box for level in boxes(definition, needs, levels(definition, needs), each=each) for box in level]


def _fifty() -> Any:
    """Fifty steps of which 47 are alike in two ways, and names that are long."""
    build = GraphBuilder("fifty", parameters=["n"])
    first = build.add(load, name="the_first_of_all_steps_" + "of_a_long_name_" * 3, args={"n": build.input("n")})
    left = [build.add(load, name=f"left_{k}", args={"n": first}) for k in range(23)]
    right = [build.add(load, name=f"right_{k}", args={"n": first}, when=f"left_{k} > 0") for k in range(23)]
    half = build.add(merge, name="half", args={"parts": left[:12]})
    last = build.add(merge, name="last", args={"parts": [*left, *right]}, after=[half], join="done")
    build.add(load, name="left_over", args={"n": 1}, after=[last])
    return build.build()


def test_a_graph_of_fifty_steps_fits_a_screen() -> None:
    """Goal: at a glance: what there is, how many, what needs how many of what; no line wraps on a usual terminal."""
    text = draw(_fifty().definition)
    assert text.splitlines() == [
        "fifty(n), version 1: 50 steps, 129 edges, 5 levels, at most 24 wide",
        "0  the_first_of_…_long_name_of_a_long_name_ = load",
        "1  left_* x 23 = load  <- the_first_of_…_long_name_of_a_long_name_",
        "2  right_* x 23 = load  <- the_first_of_…_long_name_of_a_long_name_, left_* (1 of 23)  when left_0 > 0",
        "   half = merge         <- left_* (12 of 23)",
        "3  last = merge  <- left_* (all 23), right_* (all 23), half  (when all are done)",
        "4  left_over = load  <- last",
    ]


def test_each_step_by_itself_where_that_is_wanted() -> None:
    """Goal: nothing is hidden from who asks for all of it, in each style."""
    definition = _fifty().definition
    for style in ("mermaid", "dot"):
        few, all_of_it = draw(definition, style), draw(definition, style, each=True)
        assert "left_17" not in few
        assert all(node.name in all_of_it or len(node.name) > 40 for node in definition.nodes)
        assert all_of_it.count("->") == 129
    assert "left_17 = load" in draw(definition, each=True)


def test_steps_that_differ_are_not_drawn_as_one() -> None:
    """Goal: another task, join, source or condition is another box; boxes of one name are told apart by a number."""
    build = GraphBuilder("differ", parameters=["n"])
    a, b = (build.add(load, name=name, args={"n": build.input("n")}) for name in ("a", "b"))
    for k in range(4):
        build.add(load, name=f"of_{k}", args={"n": a})
        build.add(load, name=f"of_{k + 10}", args={"n": b})
        build.add(load, name=f"of_{k + 20}", args={"n": a}, join="done")
        build.add(merge, name=f"of_{k + 30}", args={"parts": [a]})
    for k in range(ALIKE_MIN - 1):
        build.add(load, name=f"few_{k}", args={"n": a})
    made = _boxes(build.build().definition)
    assert [box.name for box in made if box.count > 1] == ["of_* #1", "of_* #2", "of_* #3", "of_* #4"]
    assert len(made) == 2 + 4 + ALIKE_MIN - 1


@pytest.mark.parametrize("path", TRACES, ids=lambda path: str(path.stem))
def test_a_recorded_execution_is_readable(path: Path) -> None:
    """Goal: real graphs of up to 200 steps: few lines, none much wider than a terminal, every style with the same boxes."""
    definition = graph_of_trace(read_trace(path), 1.0, 1.0, "files", "").definition
    made = _boxes(definition)
    assert sum(box.count for box in made) == len(definition.nodes)
    lines = draw(definition).splitlines()
    assert max(map(len, lines)) <= 240
    assert len(lines) <= 1 + len(made)
    assert draw(definition, "mermaid").count('["') == len(made)
    assert draw(definition, "dot").count("[label=") >= len(made)
    if "rnaseq" not in path.name:  # its steps are all different
        assert len(lines) <= 36


@settings(max_examples=50)
@given(definitions())
def test_every_step_and_edge_is_in_the_drawing(definition: GraphDefinition) -> None:
    """Goal: whatever the graph, each step stands in one box, each edge between two of them, and every style works."""
    needs = dependencies(definition)
    for each in (False, True):
        made = _boxes(definition, each=each)
        assert sum(box.count for box in made) == len(definition.nodes)
        assert len({box.name for box in made}) == len(made)
        if each:
            assert sum(len(box.needs) for box in made) == sum(map(len, needs))
        _within(made)
    for style in STYLES:
        assert draw(definition, style)


def _within(made: Sequence[Box]) -> None:
    """Edges lead from earlier boxes, and need no more steps of them than there are."""
    for box in made:
        for source, (least, most) in box.needs.items():
            assert source < box.number
            assert 1 <= least <= most <= made[source].count
