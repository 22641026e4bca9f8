"""Definitions as JSON and YAML: what is written is read again as it was; what is wrong is said with its line."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings

from perdure import Retry, graph, task, workflow
from perdure.authoring.check import check
from perdure.authoring.document import from_json, from_yaml, to_data, to_json, to_yaml
from perdure.authoring.load import load_graph
from perdure.errors import DefinitionError
from perdure.model.graph import GraphDefinition, canonical_json, definition_hash
from tests.authoring.definitions import definitions


@settings(max_examples=150)
@given(definitions())
def test_a_definition_survives_json_and_yaml(definition: GraphDefinition) -> None:
    """Goal: any well-formed definition, in both forms and from one to the other, is the same."""
    check(definition)
    for text, read in ((to_json(definition), from_json), (to_yaml(definition), from_yaml)):
        again = read(text, "text")
        assert canonical_json(again) == canonical_json(definition)
        assert again == definition
        assert definition_hash(again) == definition_hash(definition)
        assert str(again) == str(definition)
        assert from_yaml(to_yaml(again), "text") == from_json(to_json(again), "text")


@settings(max_examples=60)
@given(definitions())
def test_the_yaml_is_yaml_to_others(definition: GraphDefinition) -> None:
    """Goal: what is written means the same to any reader of YAML, with no tag and no alias in it."""
    written = to_yaml(definition)
    assert yaml.safe_load(written) == to_data(definition)


@task
def extract(day: str) -> list[int]:
    return [1]


@task
def load(rows: list[int], mode: str = "all", *, day: str) -> int:
    return len(rows)


@task
def undo(day: str, result: Any) -> None: ...


@workflow
async def ask(day: str) -> str:
    return day


@graph(version="7")
def shop(day: str, limit: int = 10) -> Any:
    rows = extract.options(timeout="90s", retry=Retry(attempts=5, on=(ValueError,)), compensate=undo)(day)
    some = load.map([rows, rows], day="x").named("each")
    last = load(rows, "fast", day=ask(day)).when(lambda extract, limit: len(extract) < limit)
    text = load(rows, day=day).named("by_text").when("extract.size() > 0 && limit > 1")
    extract("end").named("end").after(last, text, some, join=2)
    return [last, {"each": some[0]}]


THIS = sys.modules[__name__]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_traced_graph_is_loaded_from_its_document(form: str) -> None:
    """Goal: references to code are written as module:name, and bound again where imports are allowed."""
    written = shop.to_json() if form == "json" else shop.to_yaml()
    again = load_graph(written, imports=True, what=f"shop.{form}")
    assert again.definition == shop.definition
    assert again.definition_hash == shop.definition_hash
    assert again.tasks["extract"].timeout_us == 90_000_000
    assert again.tasks["extract"].retry.on == (ValueError,)
    assert again.tasks["extract"].compensate is undo
    assert again.workflows["ask"] is ask
    assert again.conditions["load"]({"extract": [1], "limit": 2}) is True
    assert again.conditions["by_text"]({"extract": [], "limit": 2}) is False
    assert again.signature.names == ("day", "limit")
    assert f"{THIS.__name__}:load" in written


def test_without_imports_a_document_runs_no_code() -> None:
    """Goal: references lead nowhere unless that is allowed, for all modules or for those named."""
    with pytest.raises(DefinitionError, match="may import nothing unless that is allowed"):
        load_graph(shop.to_yaml())
    with pytest.raises(DefinitionError, match="may import nothing unless that is allowed"):
        load_graph(shop.to_yaml(), imports=["os"])
    assert load_graph(shop.to_yaml(), imports=[THIS.__name__]).definition == shop.definition


BAD: dict[str, tuple[str, str]] = {
    "an unknown key": (
        "graph: g\nnodes:\n- name: a\n  task: t\n  arg: {}\n",
        "doc, line 3: a step has no 'arg'; it has after",
    ),
    "an unknown key of the graph": ("graph: g\nnode: []\n", "doc, line 1: "),
    "no name": ("graph: g\nnodes:\n\n- task: t\n", "doc, line 4: name: None is no text"),
    "a number for a name": (
        "graph: g\nnodes:\n- {name: 1, task: t}\n",
        "doc, line 3: name: 1 is no text: put it in quotes",
    ),
    "a list for a step": ("graph: g\nnodes:\n- [a]\n", "a step is a mapping, not"),
    "no list of nodes": ("graph: g\nnodes: {a: b}\n", "nodes"),
    "after a text": (
        "graph: g\nnodes:\n- {name: a, task: t, after: b}\n",
        "doc, line 3: step a: after: 'b' is no list of steps",
    ),
    "a reference with more": (
        "graph: g\nnodes:\n- name: a\n  task: t\n  args:\n    x: {step: b, of: c}\n",
        "doc, line 6: step a, argument x: ",
    ),
    "a bad path": (
        "graph: g\nnodes:\n- {name: a, task: t, args: {x: {step: b, path: c}}}\n",
        "path: 'c' is no list of names and numbers",
    ),
    "no document": ("", "it holds 0 documents instead of one"),
    "two documents": ("graph: g\n---\ngraph: h\n", "doc, line 2: a second document begins"),
    "no mapping": ("- a\n", "doc, line 1: "),
    "a plain text": ("hello", "is a mapping, not 'hello'"),
    "no yaml": ("graph: [g\n", "doc, line 2: no YAML: "),
    "a tab": ("graph:\n\t- g\n", "doc, line 2: no YAML: "),
    "no text": ("graph: \x00\n", "no YAML: "),
    "a key said twice": ("graph: g\ngraph: h\n", "doc, line 2: the key 'graph' stands there twice"),
    "a join of a truth": (
        "graph: g\nnodes:\n- {name: a, task: t, join: true}\n",
        "join: True is none of succeeded, done, any and a number",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_in_a_document_is_said_with_its_line(what: str) -> None:
    """Goal: one line that names the document, the line, what is wrong and what is expected."""
    text, said = BAD[what]
    with pytest.raises(DefinitionError) as caught:
        from_yaml(text, "doc")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


JSON_BAD: dict[str, tuple[str, str]] = {
    "no json": ('{"graph": ', "doc"),
    "no mapping": ("[1]", "is a mapping"),
    "deep": ('{"graph": ' + "[" * 5_000 + "]" * 5_000 + "}", "doc"),
    "a key said twice": ('{"graph": "g", "graph": "h", "nodes": []}', "graph"),
    "not finite": ('{"graph": "g", "nodes": [{"name": "a", "task": "t", "args": {"x": NaN}}]}', "doc"),
    "a huge number": (
        '{"graph": "g", "nodes": [{"name": "a", "task": "t", "args": {"x": 1' + "0" * 500 + "}}]}",
        "doc",
    ),
}


@pytest.mark.parametrize("what", JSON_BAD)
def test_what_is_wrong_in_json_is_refused(what: str) -> None:
    """Goal: the JSON form is as strict, and never overflows a stack."""
    text, said = JSON_BAD[what]
    with pytest.raises(DefinitionError, match=said):
        from_json(text, "doc")


def test_a_definition_is_plain_frozen_data() -> None:
    """Goal: `etl.definition` is (N, A, D, C, P) as data: it prints, it compares, and nobody changes it."""
    definition = shop.definition
    assert isinstance(definition, GraphDefinition)
    with pytest.raises(AttributeError):
        definition.name = "other"  # type: ignore[misc]
    assert msgspec.json.decode(canonical_json(definition), type=GraphDefinition) == definition
    lines = str(definition).splitlines()
    assert lines[0] == "graph shop (version 7), parameters: day, limit"
    assert lines[2] == '  each = load.map(rows=[extract, extract], day="x")'
    assert lines[-1] == "  -> [load, {each: each[0]}]"
    assert "join 2" in lines[-2]
