"""F75: what is wrong with a graph is found when it is defined; the error names the graph, the step and the path."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import graph, task, workflow
from perdure.authoring.check import check
from perdure.authoring.definition import GraphBuilder
from perdure.authoring.load import load_graph
from perdure.errors import DefinitionError
from perdure.model.graph import Condition, GraphDefinition, InputRef, Many, Node, StepRef, Value


@task
def plain(a: Any = None, b: Any = None) -> Any:
    return a


@task
def typed(n: int, text: str) -> int:
    return n


@workflow
async def flow(a: Any) -> Any:
    return a


@workflow(name="plain")
async def named_alike(a: Any) -> Any:
    return a


def built(*edges: tuple[str, str], names: str = "abcde") -> Any:
    """A graph by hand with these edges, by order alone."""
    build = GraphBuilder("g")
    for name in names:
        build.add(plain, name=name, after=[before for before, after in edges if after == name])
    return build.build()


def test_a_cycle_is_shown_as_a_path() -> None:
    """Goal: the path goes from a step back to itself, in the order in which they would run."""
    with pytest.raises(DefinitionError, match=r"graph g: a cycle: b -> c -> d -> b$"):
        built(("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("d", "e"))


def test_a_self_edge_is_named() -> None:
    """Goal: a step that depends on itself, by order, by data or by its condition."""
    with pytest.raises(DefinitionError, match="graph g: step c depends on itself"):
        built(("a", "b"), ("c", "c"))
    build = GraphBuilder("g")
    build.add(plain, name="c", args={"a": StepRef("c", ("x",))})
    with pytest.raises(DefinitionError, match="graph g: step c depends on itself"):
        build.build()
    build = GraphBuilder("g")
    build.add(plain, name="c", when="c > 1")
    with pytest.raises(DefinitionError, match="graph g: step c depends on itself"):
        build.build()


def test_a_long_cycle_is_shown_shortened() -> None:
    """Goal: a cycle over 10,000 steps is found without recursion, and the message stays readable."""
    count = 10_000
    build = GraphBuilder("ring")
    for i in range(count):
        build.add(plain, name=f"s{i}", after=[f"s{(i - 1) % count}"])
    with pytest.raises(DefinitionError, match=r"a cycle: s.*\.\.\. 9,977 more \.\.\..*") as caught:
        build.build()
    assert len(str(caught.value)) < 500


@settings(max_examples=300)
@given(edges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_f75_a_cycle_is_found_where_there_is_one_and_only_there(edges: list[tuple[int, int]]) -> None:
    """Goal: for any edges the judgement is that of another sorter, and the cycle shown is made of given edges."""
    names = [f"s{i}" for i in range(10)]
    needs: dict[str, list[str]] = {name: [] for name in names}
    for before, after in edges:
        needs[names[after]].append(names[before])
    nodes = tuple(Node(name, "plain", after=tuple(dict.fromkeys(needs[name]))) for name in names)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError:
        with pytest.raises(DefinitionError) as caught:
            check(GraphDefinition("g", "1", (), nodes))
        said = str(caught.value)
        if "itself" in said:
            step = said.split()[3]
            assert step in needs[step]
        else:
            path = said.removeprefix("graph g: a cycle: ").split(" -> ")
            assert path[0] == path[-1]
            assert all(before in needs[after] for before, after in itertools.pairwise(path))
    else:
        check(GraphDefinition("g", "1", (), nodes))


# --- by hand -------------------------------------------------------------------------------------------


def adds(*, twice: bool = False, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        made = GraphBuilder("g", parameters=["day"])
        made.add(plain, name="extract")
        for _ in range(1 + twice):
            made.add(**{"task": plain, "name": "load", **options})
        return made.build()

    return build


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


BUILT: dict[str, tuple[Callable[[], Any], str]] = {
    "a missing step": (
        adds(args={"a": StepRef("extrct")}),
        "graph g, step load, argument a: there is no step 'extrct': did you mean 'extract'?",
    ),
    "a missing step inside a list": (
        adds(args={"a": [1, {"x": StepRef("nowhere")}]}),
        "graph g, step load, argument a: there is no step 'nowhere'",
    ),
    "a missing step in after": (adds(after=["extrakt"]), "graph g, step load, after: there is no step 'extrakt'"),
    "a missing parameter": (
        adds(args={"a": InputRef("dya")}),
        "graph g, step load, argument a: 'dya' is no parameter of the graph: did you mean 'day'?",
    ),
    "a name taken twice": (adds(twice=True), "graph g: two steps are named 'load': give one of them another name"),
    "a bad name": (adds(name="a b"), "graph g: step 'a b': a name is"),
    "a name too long": (adds(name="a" * 300), "a name is 1 to 255"),
    "an unknown argument": (
        adds(args={"x": 1}),
        "graph g, step load, argument x: there is no such parameter; plain takes (a",
    ),
    "a missing argument": (
        adds(task=typed, args={"n": 1}),
        "graph g, step load: no argument for 'text'; typed takes (n: int",
    ),
    "a wrong literal": (
        adds(task=typed, args={"n": "one", "text": "x"}),
        "graph g, step load, argument n: ",
    ),
    "a literal that is no JSON": (adds(args={"a": float("nan")}), "graph g, step load, argument a: "),
    "a map over no argument": (adds(map="a"), "it maps over 'a', which is not among its arguments"),
    "a map of no list": (adds(args={"a": 5}, map="a"), "map() fans out over a list, not over 5"),
    "a mapped workflow": (adds(task=flow, args={"a": [1]}, map="a"), "only a task can be mapped, not a workflow"),
    "an unknown join": (adds(join="all"), "graph g, step load: join='all' is none of"),
    "a join of a truth": (adds(join=True, after=["extract"]), "join=True is none of"),
    "a join of none": (adds(join=0, after=["extract"]), "join=0, but it depends on 1 steps"),
    "a join of too many": (adds(join=2, after=["extract"]), "join=2, but it depends on 1 steps"),
    "a condition on nothing": (
        adds(when=lambda extrct: True),
        "its condition names 'extrct', which is neither a step nor",
    ),
    "a condition of text on nothing": (
        adds(when="extrct > 1"),
        "names 'extrct', which is neither a step nor a parameter",
    ),
    "no CEL": (adds(when="extract >"), "graph g, step load: the condition 'extract >' is no CEL: "),
    "CEL that gives no truth": (adds(when="1 + 2"), "gives int, not true or false"),
    "CEL without end": (adds(when="1 == 1 ||" * 2_000 + "true"), "more than 10,000"),
    "an async condition": (adds(when=flow.fn), "a condition is a plain function, not an async one"),
    "a condition with *args": (adds(when=lambda *args: True), "each of its parameters must name a step"),
    "no condition": (adds(when=5), "when() takes a function of steps or CEL text, not 5"),
    "no task": (adds(task=print), "add() takes a task or a workflow, not"),
    "a task and a workflow of one name": (adds(task=named_alike, args={"a": 1}), "are both named 'plain'"),
    "nesting without end": (adds(args={"a": nested(StepRef("extract"), 40)}), "nested more than 32 deep"),
    "after what is no step": (adds(after=[5]), "graph g, step load: after() takes steps, not 5"),
    "an empty graph name": (lambda: GraphBuilder("").build(), "its name '' is no text of 1 to 255 characters"),
    "a parameter taken twice": (
        lambda: GraphBuilder("g", parameters=["a", "a"]).build(),
        "two parameters are named 'a'",
    ),
    "a default that is no JSON": (
        lambda: GraphBuilder("g", parameters={"a": {1, print}}).build(),
        "graph g, default of a: ",
    ),
    "an output from nowhere": (lambda: GraphBuilder("g").build(StepRef("x")), "graph g, output: there is no step 'x'"),
}


@pytest.mark.parametrize("what", BUILT)
def test_f75_what_is_wrong_by_hand_names_its_path(what: str) -> None:
    """Goal: each mistake is found at `build` at the latest, with the step, the argument and a hint."""
    make, said = BUILT[what]
    with pytest.raises(DefinitionError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- traced --------------------------------------------------------------------------------------------


def too_many() -> Any:
    return typed(1, "a", 3)  # type: ignore[call-arg]


def missing() -> Any:
    return typed(1)  # type: ignore[call-arg]


def wrong() -> Any:
    return typed("one", "a")  # type: ignore[arg-type]


def misnamed() -> Any:
    return typed(n=1, txt="a")  # type: ignore[call-arg]


def map_nothing() -> Any:
    return plain.map()


def map_wrong() -> Any:
    return typed.map([1, "two"], "x")


def twice_when() -> Any:
    return plain(1).when("true").when("true")


def renamed_late() -> Any:
    first = plain(1)
    plain(first)
    first.named("other")  # type: ignore[attr-defined]


def renamed_twice() -> Any:
    plain(1).named("x")  # type: ignore[attr-defined]
    plain(2).named("x")  # type: ignore[attr-defined]


def no_step_after() -> Any:
    return plain(1).after("nowhere")  # type: ignore[attr-defined]


def of_parameters(*days: str) -> Any:
    return plain(days)


TRACED: dict[Callable[..., Any], str] = {
    too_many: "graph too_many, step typed: too many positional arguments; typed takes (n: int, text: str)",
    missing: "graph missing, step typed: missing a required argument: 'text'; typed takes",
    wrong: "graph wrong, step typed, argument n: ",
    misnamed: "graph misnamed, step typed: ",
    map_nothing: "map() takes the list to fan out over as its first argument",
    map_wrong: "graph map_wrong, step typed, argument n, item 1: ",
    twice_when: "graph twice_when, step plain: it has two conditions: put both into one",
    renamed_late: "it is named 'other' after it was passed on",
    renamed_twice: "two steps are named 'x': give one of them another name",
    no_step_after: "graph no_step_after, step plain, after: there is no step 'nowhere'",
    of_parameters: "has no fixed number of parameters",
}


@pytest.mark.parametrize("body", TRACED, ids=lambda body: str(body.__name__))
def test_f75_what_is_wrong_while_traced_names_its_path(body: Callable[..., Any]) -> None:
    """Goal: a wrong call inside a graph's function says which step, which parameter, and what it takes."""
    with pytest.raises(DefinitionError) as caught:
        graph(body)
    assert TRACED[body] in str(caught.value)


def test_a_function_that_is_not_traced_plainly_is_refused() -> None:
    """Goal: @graph says what it takes, for async functions, generators and what is no function."""

    async def later() -> None: ...

    def many() -> Any:
        yield 1

    for wrong_one in (later, many, 5, print):
        with pytest.raises(DefinitionError, match="@graph takes a plain `def` function"):
            graph(wrong_one)  # type: ignore[call-overload]


def test_an_error_of_the_functions_own_stays_its_own() -> None:
    """Goal: what the function raises while it is traced is seen as it is."""

    def breaks() -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        graph(breaks)


# --- as data -------------------------------------------------------------------------------------------


def nested_many(depth: int) -> Any:
    value: Any = Value(msgspec.Raw(b"1"))
    for _ in range(depth):
        value = Many((value,))
    return value


DATA: dict[str, tuple[GraphDefinition, str]] = {
    "two conditions": (
        GraphDefinition("g", "1", (), (Node("a", "t", when=Condition((), cel="true", call="m:g#a")),)),
        "either CEL text or a reference, not both or none",
    ),
    "no JSON": (GraphDefinition("g", "1", (), (Node("a", "t", {"x": Value(msgspec.Raw(b"{"))}),)), "no valid JSON"),
    "a default of nothing": (GraphDefinition("g", "1", (), (), None, {"x": msgspec.Raw(b"1")}), "no parameter"),
    "options of a child": (
        GraphDefinition("g", "1", (), (Node("a", "t", child=True, options={"timeout": msgspec.Raw(b"1")}),)),
        "a child run takes no options",
    ),
    "an argument of another kind": (
        GraphDefinition("g", "1", (), (Node("a", "t", {"x": 5}),)),
        "is no argument of a step",
    ),  # type: ignore[dict-item]
    "nesting": (GraphDefinition("g", "1", (), (), nested_many(50)), "nested more than 32 deep"),
    "no version": (GraphDefinition("g", "", (), ()), "its version '' is no text"),
}


@pytest.mark.parametrize("what", DATA)
def test_f75_what_is_wrong_as_data_names_its_path(what: str) -> None:
    """Goal: a definition that comes as data is held to the same rules."""
    definition, said = DATA[what]
    with pytest.raises(DefinitionError, match="graph g") as caught:
        check(definition)
    assert said in str(caught.value)


def test_what_a_document_names_must_be_known() -> None:
    """Goal: an unknown task, a reference that may not be imported, and code that is not there are said at the load."""
    with pytest.raises(DefinitionError, match=r"step a: no task 'nope' is known here \(known: plain\)"):
        load_graph("graph: g\nnodes: [{name: a, task: nope}]", {"plain": plain})
    with pytest.raises(DefinitionError, match="a document may import nothing unless that is allowed"):
        load_graph("graph: g\nnodes: [{name: a, task: 'os:system'}]")
    with pytest.raises(DefinitionError, match="step a: 'os:system' is neither a task nor a workflow"):
        load_graph("graph: g\nnodes: [{name: a, task: 'os:system'}]", imports=True)
    with pytest.raises(DefinitionError, match=r"no_such_module_x cannot be imported: ModuleNotFoundError"):
        load_graph("graph: g\nnodes: [{name: a, task: 'no_such_module_x:f'}]", imports=True)
    with pytest.raises(DefinitionError, match="is a task, not a workflow"):
        load_graph("graph: g\nnodes: [{name: a, task: plain, child: true}]", {"plain": plain})
    with pytest.raises(DefinitionError, match="there is no such option"):
        load_graph("graph: g\nnodes: [{name: a, task: plain, options: {retries: 3}}]", {"plain": plain})
    with pytest.raises(DefinitionError, match=r"step a.*timeout"):
        load_graph("graph: g\nnodes: [{name: a, task: plain, options: {timeout: soon}}]", {"plain": plain})


OPTIONS = {
    "timeout: soon": "timeout",
    "timeout: [1]": "timeout",
    "pool: cloud": "pool='cloud' is none of",
    "concurrency: 0": "at least 1",
    "needs: {cpu: -1}": "is no amount",
    "priority: urgent": "is neither low",
    "retry: 3": "is no mapping such as",
    "retry: {tries: 3}": "retry has no 'tries'",
    "retry: {attempts: many}": "attempts",
    "retry: {first: soon}": "first",
    "retry: {on: ValueError}": "is no list",
    "retry: {on: ['builtins:print']}": "is not known here",
    "raises: ['builtins:int']": "is not known here",
    "compensate: nobody": "is not known here",
    "compensate: 5": "is no text",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_bad_option_in_a_document_names_the_step(option: str) -> None:
    """Goal: options as data are held to the rules of @task, and the error says at which step."""
    with pytest.raises(DefinitionError, match="graph g, step a") as caught:
        load_graph(f"graph: g\nnodes:\n- {{name: a, task: plain, options: {{{option}}}}}", {"plain": plain})
    assert OPTIONS[option] in str(caught.value)
