"""Child runs: started once, told once, cancelled with their parent, bounded in depth (F50, F76, S18)."""

from __future__ import annotations

import pytest

from perdure import NeedsAttention, RunFailed
from perdure.model import fact as f
from perdure.testing import World
from tests.flows import children as flows
from tests.flows.tasks import DONE
from tests.flows.ways import Case, crashes, evicted, live

GOOD = {
    "a failure": (flows.catching, ("it",), '["ValueError","it in attempt 1","break_down#1"]'),
    "two at once": (flows.calls_two, (3,), "[6,8]"),
    "a sleeper": (flows.calls_sleeper, (86_400,), '"slept"'),
    "one given up": (flows.gives_up, (86_400,), '"too slow"'),
    "one called and left": (flows.called_and_left, (3,), '"returned"'),
    "one set free": (flows.frees, (86_400,), '"freed"'),
}


@pytest.mark.simulation
@pytest.mark.parametrize("name", GOOD)
def test_f50_a_child_is_started_once_whatever_commit_its_parent_dies_beside(name: str) -> None:
    """Goal: the child's id follows from the parent's step, so asking twice is asking once."""
    flow, args, expected = GOOD[name]
    case = Case(flow, args)
    wanted, commits = live(case)
    assert wanted.outcome == f"result {expected}"
    assert evicted(case)[0] == wanted
    assert all(other == wanted for other in crashes(case, commits))


@pytest.mark.simulation
def test_f50_no_death_leaves_a_child_twice_or_none() -> None:
    """Goal: after each death there are exactly the runs that there are without one."""
    case = Case(flows.calls_two, (3,))
    _, commits = live(case)
    for commit in range(2, commits + 1):
        for kind in ("crash_before", "crash_after"):
            with World("memory:", serve=[flows.calls_two]) as world:
                world.store.fail_at(commit, kind)  # type: ignore[arg-type]
                try:
                    world.run(flows.calls_two, 3, id="r")
                except SystemExit:
                    assert world.result("r") == [6, 8]
                assert world.store.fired
                assert sorted(row.workflow for row in world.rows()) == ["bough", "calls_two", "leaf", "leaf"]
                assert world.audit_all() == []


def test_s18_a_parent_that_returns_waits_for_the_child_that_it_called() -> None:
    """Goal: the child's end stands before the parent's (S18)."""
    with World("memory:") as world:
        world.run(flows.called_and_left, 3, id="r")
        kinds = [type(fact) for fact in world.history("r")]
        assert kinds == [f.RunStarted, f.ChildEnded, f.RunCompleted]
        with pytest.raises(RunFailed, match="it in attempt 1"):
            world.run(flows.called_failing_and_left, "it")
        assert world.audit_all() == []


def test_s18_a_detached_child_lives_on() -> None:
    """Goal: the parent ends at once, its child much later and on its own."""
    with World("memory:") as world:
        began = world.engine.clock.now_us()
        assert world.run(flows.frees, 86_400, id="r") == "freed"
        assert world.engine.clock.now_us() - began < 60_000_000
        child = next(row for row in world.rows() if row.parent == "r")
        assert child.status == "waiting"
        assert world.result(child.id) == "slept"
        assert world.audit_all() == []


def test_a_child_that_is_given_up_is_cancelled_and_cleans_up() -> None:
    """Goal: wait_for over a child cancels it; its end is recorded."""
    DONE.clear()
    with World("memory:") as world:
        assert world.run(flows.gives_up, 86_400, id="r") == "too slow"
        assert [row.status for row in world.rows() if row.parent] == ["cancelled"]
        assert DONE == ["child tidied up"]


@pytest.mark.parametrize("flow", [flows.deeper, flows.deeper_by_generations])
def test_f76_recursion_of_child_runs_ends_at_a_depth(flow: object) -> None:
    """Goal: a workflow that calls itself without end fails at the bound, also where each level continues as new."""
    with World("memory:", children_depth_max=7) as world:
        with pytest.raises((RunFailed, NeedsAttention), match="7 deep"):
            world.run(flow, 0, id="r")  # type: ignore[arg-type]
        assert len(world.rows()) == 8
        assert all(row.status == "failed" for row in world.rows())
        assert world.audit_all() == []


def test_a_call_to_an_unknown_child_is_an_error_at_the_call() -> None:
    """Goal: a child that nobody serves is told where it is called, and nothing waits for it (S24)."""
    from tests.flows.mutants import made

    child = made("async def good(n: int) -> int:\n    return n\n")
    parent = made("async def parent(n: int) -> int:\n    return await unknown[0](n)\n", "parent", unknown=[child])
    with World("memory:") as world, pytest.raises(RunFailed, match=r"workflow good .* is not served here"):
        world.run(parent, 3)
