"""W9, F75: defining, hashing, writing, reading, drawing large graphs takes time that grows with their edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.authoring.definition import Graph
from perdure.authoring.document import to_json, to_yaml
from perdure.authoring.draw import STYLES, draw
from perdure.authoring.load import load_graph
from perdure.authoring.yamltext import BYTES_MAX, NODES_MAX, read_yaml, write_yaml
from perdure.errors import DefinitionError
from perdure.kernel.plan import Plan
from perdure.model.graph import definition_hash, dependencies
from tests.graphs.large import SHAPES, TASKS, TIMES, layers, steady

EDGES = {"chain": 9_999, "wide": 10_000, "layers": 990_100, "ordered": 990_000, "joined": 30_000}


@pytest.mark.slow
@pytest.mark.parametrize("shape", EDGES)
def test_w9_tracing_grows_with_the_edges(shape: str) -> None:
    """Goal: tracing, checking and freezing four times the steps takes far less than sixteen times as long."""
    make, size = SHAPES[shape]
    assert steady(lambda size: lambda: make(size), size // TIMES, size)


def planned(made: Graph[..., Any]) -> Callable[[], Any]:
    return lambda: Plan(made.definition)


def hashed(made: Graph[..., Any]) -> Callable[[], Any]:
    return lambda: definition_hash(made.definition)


def said(made: Graph[..., Any]) -> Callable[[], Any]:
    return lambda: str(made.definition)


@pytest.mark.slow
@pytest.mark.parametrize("shape", EDGES)
def test_w9_what_is_made_of_a_definition_grows_with_the_edges(shape: str) -> None:
    """Goal: the plan, the hash and the text; and the number of edges is as it should be."""
    make, size = SHAPES[shape]
    small, large = make(size // TIMES), make(size)
    assert sum(map(len, dependencies(large.definition))) == EDGES[shape]
    for work in (planned, hashed, said):
        assert steady(work, small, large)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", ["chain", "wide", "layers"])
def test_w9_drawing_grows_with_the_edges(shape: str, style: str) -> None:
    """Goal: each style, of shapes that are long, wide and dense."""
    make, size = SHAPES[shape]
    small, large = make(size // 2 // TIMES), make(size // 2)
    assert steady(lambda made: lambda: draw(made.definition, style), small, large)


def reading(documents: dict[int, str]) -> Callable[[Graph[..., Any]], Callable[[], Any]]:
    return lambda made: lambda: load_graph(documents[id(made)], TASKS)


@pytest.mark.slow
def test_w9_documents_grow_with_the_edges() -> None:
    """Goal: writing and reading JSON, of a chain and of dense layers; the graph that is read is the same."""
    for small, large in ((SHAPES["chain"][0](2_500), SHAPES["chain"][0](10_000)), (layers(8, 50), layers(32, 50))):
        assert steady(lambda made: lambda: to_json(made.definition), small, large)
        documents = {id(made): to_json(made.definition) for made in (small, large)}
        assert steady(lambda made: lambda: load_graph(documents[id(made)], TASKS), small, large)  # noqa: B023 - called at once
        assert load_graph(documents[id(large)], TASKS).definition == large.definition


@pytest.mark.slow
def test_w9_yaml_grows_with_the_edges_up_to_its_limit() -> None:
    """Goal: the same for YAML, as far as YAML may be large; beyond that both say to write JSON, which goes on."""
    small, large = SHAPES["chain"][0](1_000), SHAPES["chain"][0](4_000)
    assert steady(lambda made: lambda: to_yaml(made.definition), small, large)
    documents = {id(made): to_yaml(made.definition) for made in (small, large)}
    assert steady(reading(documents), small, large)
    assert load_graph(documents[id(large)], TASKS).definition == large.definition
    larger, more = SHAPES["chain"][0](10_000), "".join(f"- {{name: more_{i}, task: add}}\n" for i in range(2_000))
    with pytest.raises(DefinitionError, match="write large graphs as JSON"):
        to_yaml(larger.definition)
    with pytest.raises(DefinitionError, match="50,000 values: write large graphs as JSON"):
        load_graph(documents[id(large)].replace("nodes:\n", f"nodes:\n{more}"), TASKS)
    assert load_graph(to_json(larger.definition), TASKS).definition == larger.definition


def test_what_can_be_written_as_yaml_can_be_read() -> None:
    """Goal: a writer counts as a reader does: what is just allowed is read again, one value more is not written."""
    data: dict[str, Any] = {"x": [{"a": [1]}] * ((NODES_MAX - 3) // 4)}
    data["x"].extend([1] * ((NODES_MAX - 3) % 4))
    assert read_yaml(write_yaml(data), "doc")[0] == data
    data["x"].append(1)
    with pytest.raises(DefinitionError, match="50,001 values"):
        write_yaml(data)
    with pytest.raises(DefinitionError, match="bytes of YAML, more than"):
        write_yaml({"x": "x" * BYTES_MAX})
