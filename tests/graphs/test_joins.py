"""F82, S29: what becomes of each step under the four join rules, against an oracle that knows only the rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import RunFailed, graph, task
from perdure.model import fact as f
from perdure.testing.world import World
from tests.graphs.random_graphs import SEEN, Plan, expected, fails_run, graph_of, inputs, name, plans, recorded


def play(nodes: list[Plan], seed: int) -> tuple[list[f.AnyFact], Any, World]:
    """Run the graph to its end in a world of its own; its history, and its result or `RunFailed`."""
    SEEN.clear()
    world = World(seed=seed)
    made = graph_of(nodes)
    try:
        outcome = world.run(made, *inputs(nodes), id="r")
    except RunFailed as error:
        outcome = error
    return world.history("r"), outcome, world


@settings(max_examples=250)
@given(nodes=plans(), seed=st.integers(0, 1 << 32))
def test_f82_each_join_rule_decides_as_it_is_written(nodes: list[Plan], seed: int) -> None:
    """Goal: whatever ends in whatever order, each step, and the run, ends as the rules say."""
    history, outcome, world = play(nodes, seed)
    with world:
        ends, found = expected(nodes), recorded(history)
        assert {name(i): end for i, end in enumerate(ends)} == {key: one[:2] for key, one in found.items()}
        if fails_run(nodes, ends):
            assert isinstance(outcome, RunFailed)
            first = min(i for i, (end, _) in enumerate(ends) if end == "failed" and f"n{i} " in str(outcome))
            assert ends[first][0] == "failed"
        else:
            needed = {k for node in nodes for k in node.needs()}
            leaves = [i for i in range(len(nodes)) if i not in needed]
            assert outcome == {name(i): f"n{i}!" if ends[i][0] == "ok" else None for i in leaves}
        report = world.audit("r")
        assert report.ok, "\n".join(report.lines())


@settings(max_examples=150)
@given(nodes=plans(), seed=st.integers(0, 1 << 32))
def test_f82_a_step_is_asked_for_in_the_turn_in_which_its_join_fires(nodes: list[Plan], seed: int) -> None:
    """Goal: `any` and n fire as soon as they can, the other joins when all dependencies have ended; a miss is None."""
    history, _, world = play(nodes, seed)
    with world:
        found = recorded(history)
        given = {step: values for step, values, _ in SEEN}
        for i, node in enumerate(nodes):
            end, _, _, asked = found[name(i)]
            if end == "skipped":
                continue
            needs = [found[name(k)] for k in node.needs()]
            good = sorted(one[2] for one in needs if one[0] == "ok")
            if isinstance(node.join, int) or (node.join == "any" and needs):
                fires = good[(node.join if isinstance(node.join, int) else 1) - 1]
            else:
                fires = max([one[2] for one in needs], default=1)
            assert asked == fires, (name(i), node)
            there = [k for k in node.data if found[name(k)][0] == "ok" and found[name(k)][2] <= asked]
            assert given[name(i)] == [f"n{k}!" if k in there else None for k in node.data]


@task
def good() -> int:
    return 1


@task
def bad() -> int:
    raise ValueError("no")


@task
def take(given: Any = None) -> str:
    return f"took {given}"


@graph
def one_fails() -> Any:
    a, b = good(), bad()
    return {
        "succeeded": take([a, b]).named("all"),
        "done": take([a, b]).named("settled").after(join="done"),
        "any": take([a, b]).named("first").after(join="any"),
        "two": take([a, b]).named("two").after(join=2),
    }


def test_s29_a_failed_step_that_a_join_takes_does_not_fail_the_run() -> None:
    """Goal: the four rules side by side over one success and one failure; a missing input is None."""
    with World() as world:
        assert world.run(one_fails, id="r") == {
            "succeeded": None,
            "done": "took [1, None]",
            "any": "took [1, None]",
            "two": None,
        }
        skipped = [(fact.key, fact.reason) for fact in world.history("r") if isinstance(fact, f.StepSkipped)]
        assert sorted(skipped) == [("all", "failed"), ("two", "failed")]
        assert world.audit("r").ok


@graph
def nobody_takes_it() -> Any:
    failed = bad()
    take(failed).named("behind")
    return take(good()).named("beside")


def test_s29_the_run_fails_after_all_that_can_run_has_run() -> None:
    """Goal: a failure that no join takes fails the run, but stops nothing that does not depend on it."""
    with World() as world:
        with pytest.raises(RunFailed, match="no"):
            world.run(nobody_takes_it, id="r")
        found = recorded(world.history("r"))
        assert found["beside"][0] == "ok"
        assert found["behind"][:2] == ("skipped", "failed")
        assert isinstance(world.history("r")[-1], f.RunFailed)
        assert world.audit("r").ok


@graph
def quorum(n: int) -> Any:
    return take([good(), good(), good()]).after(join=2)


def test_s29_a_join_of_n_does_not_wait_for_the_rest() -> None:
    """Goal: two of three are enough; the third ends beside it, and the run waits for it."""
    with World(seed=3) as world:
        result = world.run(quorum, 1, id="r")
        assert result.count("1") == 2
        found = recorded(world.history("r"))
        ends = sorted(found[key][2] for key in ("good", "good_2", "good_3"))
        assert found["take"][3] == ends[1]
