"""Other code under running runs: found where it differs, told, kept apart, and resumed once it is mended (F71, S3, S19)."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from perdure import NeedsAttention, PerdureError
from perdure.model import fact as f
from perdure.testing import World
from tests.flows.children import waiting_child
from tests.flows.mutants import GOOD, MUTANTS, OUTSIDE, made, mutated

EXPECTED = [4, 15, 30, 45, 66, 132, 135, 14]


def _waiting(world: World, flow: Any) -> None:
    """Bring a run to where it waits for its signal, and another one that waits as well."""
    world.serve(flow, waiting_child)
    world.start(flow, 2, id="the-run")
    world.start(waiting_child, "other", id="other")
    world.advance("2d")
    assert world.row("the-run").wait.signals == ("go",)


def test_the_good_workflow_runs_to_its_end() -> None:
    """Goal: what the mutants are made of is correct, and comes to the same end when its own text is made anew."""
    with World("memory:") as world:
        _waiting(world, made(GOOD))
        world.restart(serve=[made(GOOD), waiting_child])
        world.signal("the-run", "go", 7)
        assert world.result("the-run") == EXPECTED
        assert world.audit_all() == []


@pytest.mark.parametrize("name", MUTANTS)
def test_f71_each_mutant_is_caught_and_the_run_resumes_once_mended(name: str) -> None:
    """Goal: attention with the step, what was recorded and what is asked; others go on; mended, the run goes on."""
    with World("memory:") as world:
        _waiting(world, made(GOOD))
        known = len(world.history("the-run"))
        world.restart(serve=[made(mutated(GOOD, *MUTANTS[name])), waiting_child])
        world.signal("the-run", "go", 7)
        with pytest.raises(NeedsAttention) as caught:
            world.result("the-run")
        said = caught.value.reason
        assert "recorded was" in said
        assert "the code now asks for" in said
        history = world.history("the-run")
        assert isinstance(history[-1], f.AttentionSet)
        assert (len(history), history[-1].cause) == (known + 1, "nondeterminism")
        assert history[-1].step
        world.signal("other", "other", 5)
        assert world.result("other") == 5
        world.restart(serve=[made(GOOD), waiting_child])
        assert world.result("the-run") == EXPECTED
        assert world.audit_all() == []


def test_f71_a_mutant_is_neither_failed_nor_tried_for_ever() -> None:
    """Goal: the same code is not tried at every start; a person's retry is refused with the difference."""
    with World("memory:") as world:
        _waiting(world, made(GOOD))
        bad = mutated(GOOD, *MUTANTS["a step removed"])
        world.restart(serve=[made(bad), waiting_child])
        world.signal("the-run", "go", 7)
        world.run_to_rest()
        facts = len(world.history("the-run"))
        for _ in range(3):
            world.restart(serve=[made(bad), waiting_child])
            world.run_to_rest()
        with pytest.raises(PerdureError, match="recorded was thrice#1"):
            world.play(world.engine.retry("the-run"))
        assert world.status("the-run") == "attention"
        assert len(world.history("the-run")) == facts


@pytest.mark.parametrize("name", OUTSIDE)
def test_f71_what_a_flow_reads_from_outside_is_caught_at_its_first_difference(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a flow whose own code reads what changes is found by the arguments that differ, though nobody refused it."""
    monkeypatch.setenv("FLOW_TEST", "before")
    answer, more = {"value": 1}, {"COUNTER": itertools.count(), "OBJECTS": []}
    text = mutated(
        GOOD, "    a = await double(order)\n", f"    a = await double(order)\n    await echo(str({OUTSIDE[name]}))\n"
    )
    flow = made(text, ANSWER=answer, **more)
    with World("memory:") as world:
        _waiting(world, flow)
        monkeypatch.setenv("FLOW_TEST", "after")
        answer["value"] = 2
        assert os.environ["FLOW_TEST"] == "after"
        with _one_more_thread():
            world.restart()
            world.signal("the-run", "go", 7)
            with pytest.raises(NeedsAttention, match=r"echo#1 with other arguments"):
                world.result("the-run")


class _one_more_thread:  # noqa: N801 - reads as what it does
    """Within it the process has a thread that it had not before."""

    def __enter__(self) -> None:
        import threading

        self.over = threading.Event()
        self.thread = threading.Thread(target=self.over.wait)
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


PATCHED = mutated(
    GOOD, '    variables["stage"]', '    if patched("more"):\n        await echo("new")\n    variables["stage"]'
)


def test_f72_a_patch_keeps_old_runs_and_reaches_new_ones() -> None:
    """Goal: old turns take the old branch, a run that begins now takes the new one, each on every replay (S4)."""
    with World("memory:") as world:
        _waiting(world, made(GOOD))
        world.restart(serve=[made(PATCHED), waiting_child])
        world.start(world.served[0], 2, id="new")
        world.advance("2d")
        world.restart()
        for run in ("the-run", "new"):
            world.signal(run, "go", 7)
            assert world.result(run) == EXPECTED
        patches = [
            [fact.id for fact in world.history(run) if isinstance(fact, f.PatchTaken)] for run in ("the-run", "new")
        ]
        assert patches == [[], ["more"]]
        assert world.audit_all() == []


def test_f72_a_patch_behind_what_is_recorded_is_taken_by_an_old_run() -> None:
    """Goal: a turn that is folded for the first time takes the new code, and the fact holds it there (S4)."""
    late = mutated(GOOD, "    last = await", '    if patched("late"):\n        await echo("late")\n    last = await')
    with World("memory:") as world:
        _waiting(world, made(GOOD))
        world.restart(serve=[made(late), waiting_child])
        world.store.fail_at(world.store.commits + 2, "crash_after")
        with pytest.raises(SystemExit):
            world.play(_signalled(world))
        assert world.result("the-run") == EXPECTED
        assert [fact.id for fact in world.history("the-run") if isinstance(fact, f.PatchTaken)] == ["late"]
        assert world.audit_all() == []


async def _signalled(world: World) -> Any:
    await world.engine.signal("the-run", "go", 7)
    return await world.engine.result("the-run")


def test_f72_a_pinned_version_goes_on_beside_the_new_one() -> None:
    """Goal: several versions are open at once, and a run keeps its own (S23)."""
    from perdure import workflow

    old = made(GOOD)
    new = workflow(version="2")(made(mutated(GOOD, *MUTANTS["a step removed"])).fn)
    with World("memory:") as world:
        _waiting(world, old)
        world.restart(serve=[old, new, waiting_child])
        world.start(new, 2, id="new")
        world.advance("2d")
        for run in ("the-run", "new"):
            world.signal(run, "go", 7)
            assert world.result(run) == EXPECTED
        assert [world.row(run).version for run in ("the-run", "new")] == ["1", "2"]
        assert world.audit_all() == []
        world.restart(serve=[new, waiting_child])
        assert world.row("the-run").status == "completed"


def test_f72_a_changed_type_of_an_argument_is_told() -> None:
    """Goal: an input or a result that does not fit the new annotations is attention with the place, no crash."""
    with World("memory:") as world:
        _waiting(world, made(GOOD))
        world.restart(serve=[made(mutated(GOOD, "good(order: int)", "good(order: list[str])")), waiting_child])
        world.signal("the-run", "go", 7)
        with pytest.raises(NeedsAttention, match="recorded input does not fit"):
            world.result("the-run")
        world.restart(serve=[made(GOOD), waiting_child])
        assert world.result("the-run") == EXPECTED
        assert world.audit_all() == []
