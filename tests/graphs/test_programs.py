"""Graphs in the simulated world: the program of the documentation, data flow, maps, conditions, options, children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from perdure import NeedsAttention, Retry, RunFailed, attempt, graph, task, workflow
from perdure.authoring.definition import GraphBuilder
from perdure.model import fact as f
from perdure.testing.world import World
from tests.graphs.random_graphs import recorded

SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _afresh() -> None:
    SEEN.clear()


# --- the program of the documentation, as printed ---------------------------------------------------


@dataclass
class Check:
    rows: int


@task
def extract(day: str) -> list[int]:
    return [] if day == "sunday" else [1, 2, 3]


@task
def check(raw: list[int]) -> Check:
    return Check(len(raw))


@task
def inspect(raw: list[int]) -> str:
    return f"{len(raw)} rows"


@task
def split(good: Check) -> list[int]:
    return list(range(good.rows))


@task
def transform(part: int) -> int:
    return part * part


@task
def load(parts: list[int]) -> int:
    SEEN.append(("load", parts))
    return sum(parts)


@task
def report(day: str) -> None:
    SEEN.append(("report", day))


@graph
def etl(day: str):  # type: ignore[no-untyped-def]
    raw = extract(day)  # data flow makes the edges
    good, bad = check(raw), inspect(raw)
    parts = transform.map(split(good))  # dynamic fan-out over the list that `split` returns
    loaded = load(parts).when(lambda check: check.rows > 0)  # condition over results by step name
    report(day).after(loaded, bad, join="done")
    return loaded


def test_the_program_of_the_documentation_runs_as_printed() -> None:
    """Goal: edges, fan-out, condition, `after` and the join of the printed program do what it says."""
    with World() as world:
        assert world.run(etl, "monday", id="m") == 5
        assert SEEN == [("load", [0, 1, 4]), ("report", "monday")]
        found = recorded(world.history("m"))
        assert {key for key in found if key.startswith("transform")} == {"transform[0]", "transform[1]", "transform[2]"}
        assert world.audit("m").ok


def test_a_false_condition_skips_a_step_and_what_follows_obeys_its_join() -> None:
    """Goal: on an empty day the load is skipped, the fan-out is over nothing, the report comes all the same."""
    with World() as world:
        assert world.run(etl, "sunday", id="s") is None
        assert SEEN == [("report", "sunday")]
        skipped = [(fact.key, fact.reason) for fact in world.history("s") if isinstance(fact, f.StepSkipped)]
        assert skipped == [("load", "condition")]
        assert not any(key.startswith("transform") for key in recorded(world.history("s")))
        assert world.audit("s").ok


# --- values ---------------------------------------------------------------------------------------------


@task
def pair(a: Any, b: Any = "nothing") -> list[Any]:
    return [a, b]


@task
def lookup() -> dict[str, Any]:
    return {"rows": [{"id": 7}, {"id": 8}], "name": "x"}


@graph
def paths(limit: int = 3) -> Any:
    found = lookup()
    return {
        "item": pair(found["rows"][1]["id"], found.name),
        "nested": pair([found["rows"][0], {"limit": limit, "fixed": [1, "two"]}]),
        "default": pair(limit),
        "given": limit,
    }


def test_arguments_are_paths_nested_lists_mappings_and_literals() -> None:
    """Goal: what the function passes on is what tasks are given, whatever its form; the output may be nested too."""
    with World() as world:
        assert world.run(paths) == {
            "item": [8, "x"],
            "nested": [[{"id": 7}, {"limit": 3, "fixed": [1, "two"]}], "nothing"],
            "default": [3, "nothing"],
            "given": 3,
        }
        assert world.run(paths, 9)["default"] == [9, "nothing"]


@graph
def lost_path() -> Any:
    return pair(lookup()["no such"])


@graph
def lost_output() -> Any:
    return lookup()["rows"][5]


@pytest.mark.parametrize("made, said", [(lost_path, "no such"), (lost_output, "has no 5")])
def test_a_path_that_leads_nowhere_fails_the_run_and_says_where(made: Any, said: str) -> None:
    """Goal: a missing field is a failure of the run that names it; the node's loop goes on."""
    with World() as world:
        with pytest.raises(RunFailed, match=said):
            world.run(made, id="p")
        report = world.audit("p")
        assert report.ok, report.lines()
        assert world.run(etl, "monday") == 5


@task
def positive(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n


@graph
def mapped(items: list[Any], b: int) -> Any:
    return pair.map(items, b=b)


@graph
def checked(items: list[Any]) -> Any:
    made = positive.map(items)
    return pair(made, 1).after(join="done")


@pytest.mark.parametrize("items", [[], [1], [3, 1, 2], [None, "x", {"a": [1]}]])
def test_a_map_keeps_the_order_of_its_list(items: list[Any]) -> None:
    """Goal: one step for each item, the results in the order of the items, over the empty list too."""
    with World(seed=5) as world:
        assert world.run(mapped, items, 9, id="m") == [[item, 9] for item in items]
        assert world.audit("m").ok


def test_a_map_of_which_one_item_fails_fails_as_a_whole() -> None:
    """Goal: the other items are made, the step fails with the item's failure, and a `done` join goes on with None."""
    with World() as world:
        assert world.run(checked, [1, -2, 3], id="c") == [None, 1]
        found = recorded(world.history("c"))
        assert [found[f"positive[{i}]"][0] for i in range(3)] == ["ok", "failed", "ok"]
        assert world.audit("c").ok


@pytest.mark.parametrize("items", [[1, "two"], "abc", {"a": 1}, None])
def test_a_map_over_what_does_not_fit_makes_no_step_at_all(items: Any) -> None:
    """Goal: an item of a wrong type, or no list, fails the step before any of its items was begun."""
    build = GraphBuilder("unfit", parameters=["items"])
    build.add(positive, args={"n": build.input("items")}, map="n")
    with World() as world:
        with pytest.raises(RunFailed, match="positive"):
            world.run(build.build(), items, id="u")
        assert recorded(world.history("u")) == {}
        report = world.audit("u")
        assert report.ok, report.lines()


# --- options ---------------------------------------------------------------------------------------------


@task
def flaky(n: int) -> int:
    SEEN.append(attempt())
    if attempt() < 3:
        raise OSError("again")
    return n


@graph
def retried() -> Any:
    return flaky.options(retry=Retry(attempts=3, first="10s", jitter=False))(1)


@graph
def not_retried() -> Any:
    return flaky(1)


def test_options_hold_for_the_step_they_are_given_to() -> None:
    """Goal: one step of a task retries, another does not; the definition says what differs."""
    with World() as world:
        begun = world.clock.wall_us()
        assert world.run(retried, id="r") == 1
        assert SEEN == [1, 2, 3]
        assert world.clock.wall_us() - begun >= 30_000_000
        with pytest.raises(RunFailed, match="again"):
            world.run(not_retried)
        assert SEEN == [1, 2, 3, 1]
    assert set(retried.definition.nodes[0].options) == {"retry"}
    assert not_retried.definition.nodes[0].options == {}


# --- conditions --------------------------------------------------------------------------------------------


@dataclass
class Limits:
    low: int
    high: int


@graph
def ranged(limits: Limits, n: int) -> Any:
    value = positive(n)
    return pair(value).when(lambda positive, limits: limits.low <= positive <= limits.high)


@graph
def by_text(limits: Limits, n: int) -> Any:
    value = positive(n)
    return pair(value).when("limits.low <= positive && positive <= limits.high && [1, 2].exists(x, x < limits.high)")


@pytest.mark.parametrize("made", [ranged, by_text])
@pytest.mark.parametrize("n, expected", [(5, [5, "nothing"]), (50, None)])
def test_a_condition_reads_results_and_parameters_by_name(made: Any, n: int, expected: Any) -> None:
    """Goal: Python sees decoded values (a dataclass), CEL their JSON; false skips, in both."""
    with World() as world:
        assert world.run(made, Limits(1, 10), n, id="c") == expected
        assert world.audit("c").ok


@graph
def map_read(n: int) -> Any:
    checks = check.map([[1], [1, 2], [n] * 3])
    return pair("big").when(lambda check: sum(one.rows for one in check) == 6).after(checks)


def test_a_condition_sees_the_decoded_items_of_a_map() -> None:
    """Goal: the results of a mapped step are a list of what its task returns, not of their JSON."""
    with World() as world:
        assert world.run(map_read, 1) == ["big", "nothing"]


@graph
def untrue(n: int) -> Any:
    return pair(positive(n)).when("positive.rows > 3")


@graph
def raising(n: int) -> Any:
    return pair(positive(n)).when(lambda positive: positive.rows > 3)


@pytest.mark.parametrize("made, said", [(untrue, "positive.rows > 3"), (raising, "AttributeError")])
def test_a_condition_that_cannot_be_judged_needs_a_person(made: Any, said: str) -> None:
    """Goal: an error in a condition is neither true nor false: CEL's errors are values, and must not count as true."""
    with World() as world:
        with pytest.raises(NeedsAttention, match=said):
            world.run(made, 1, id="c")
        assert recorded(world.history("c")).keys() == {"positive"}
        assert world.audit("c").ok


def test_a_condition_that_was_mended_is_judged_when_the_run_is_retried() -> None:
    """Goal: attention keeps the run; the mended condition decides, and nothing is made twice."""
    broken = GraphBuilder("mended", parameters=["n"])
    broken.add(positive, args={"n": broken.input("n")})
    broken.add(pair, args={"a": 1}, when=lambda positive: positive.rows)
    mended = GraphBuilder("mended", parameters=["n"])
    mended.add(positive, args={"n": mended.input("n")})
    mended.add(pair, args={"a": 1}, when=lambda positive: positive > 0)
    with World() as world:
        with pytest.raises(NeedsAttention):
            world.run(broken.build(), 4, id="c")
        world.restart(serve=[mended.build()])
        world.play(world.engine.retry("c"))
        assert world.result("c") == {"pair": [1, "nothing"]}
        assert world.audit("c").ok


# --- runs within runs --------------------------------------------------------------------------------------


@graph
def inner(n: int) -> int:
    return positive(n)


@workflow
async def doubled(n: int) -> int:
    return 2 * await positive(n)


@graph
def outer(n: int) -> Any:
    return pair(inner(n), doubled(inner(n).named("again")))


@workflow
async def around(n: int) -> Any:
    return await outer(n), await inner(n + 1)


def test_graphs_and_flows_are_children_of_each_other() -> None:
    """Goal: a graph in a graph, a flow in a graph, a graph in a flow: each is a run of its own, and all verify."""
    with World() as world:
        assert world.run(around, 4, id="a") == [[4, 8], 5]
        assert sorted(row.workflow for row in world.rows()) == ["around", "doubled", "inner", "inner", "inner", "outer"]
        assert world.audit_all() == []


def test_a_child_that_fails_fails_its_step() -> None:
    """Goal: the failure of a child goes up as that of the step which asked for it, to the root."""
    with World() as world:
        with pytest.raises(RunFailed, match="-1 is negative"):
            world.run(around, -1, id="a")
        assert world.audit_all() == []


def test_a_graph_within_itself_is_stopped_at_a_depth() -> None:
    """F76: recursion of runs is bounded, and says by which setting."""
    build = GraphBuilder("deep", parameters=["n"])
    build.add(deeper, name="next", args={"n": build.input("n")})
    made = build.build()
    with World(children_depth_max=5) as world:
        world.serve(made)
        with pytest.raises(RunFailed, match="children_depth_max"):
            world.run(deeper, 1, id="d")
        assert len(world.rows()) <= 7


@workflow
async def deeper(n: int) -> Any:
    return await deeper(n + 1)


# --- limits -------------------------------------------------------------------------------------------------


@task
def wide(n: int) -> str:
    return "x" * n


@task
def joined(parts: list[str]) -> int:
    return sum(map(len, parts))


def test_f84_what_a_graph_puts_together_is_bounded() -> None:
    """F84: results that together make arguments or a result over the limit fail the run, and name the step."""
    build = GraphBuilder("large", parameters=["n"])
    parts = [build.add(wide, name=f"w{i}", args={"n": build.input("n")}) for i in range(4)]
    build.add(joined, name="all", args={"parts": parts})
    gathered = GraphBuilder("gathered", parameters=["n"])
    parts = [gathered.add(wide, name=f"w{i}", args={"n": gathered.input("n")}) for i in range(4)]
    with World(payload_max=2_000) as world:
        assert world.run(build.build(), 100)["all"] == 400
        with pytest.raises(RunFailed, match="arguments of all takes"):
            world.run(build.build(), 900, id="a")
        with pytest.raises(RunFailed, match="result of run o takes"):
            world.run(gathered.build(parts), 900, id="o")
        assert world.audit("a").ok
        assert world.audit("o").ok


def test_large_results_go_by_blobs_and_come_back() -> None:
    """Goal: a result above `blob_min` is spliced into arguments whole, live and after a kill."""
    build = GraphBuilder("blobs", parameters=["n"])
    part = build.add(wide, args={"n": build.input("n")})
    made = build.build(build.add(pair, args={"a": part, "b": 1}))
    for commit in (None, 3, 4):
        with World(blob_min=1_024) as world:
            world.serve(made)
            assert world.engine is not None
            if commit is not None:
                world.store.fail_at(commit, "crash_after")
            try:
                result = world.run(made, 5_000, id="b")
            except SystemExit:
                world.restart()
                result = world.result("b")
            assert result == ["x" * 5_000, 1]
            assert world.audit("b").ok
