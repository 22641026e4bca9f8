"""Words of a flow that cannot be kept: the run fails and names them, and its engine goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure import NeedsAttention, Retry, RunFailed, graph, task, workflow
from perdure.errors import BadDuration, DefinitionError, NotInWorkflow
from perdure.testing import World
from tests.flows import misspoken as flows


@pytest.mark.parametrize("store", ["memory:", "sqlite:"])
def test_what_cannot_be_kept_fails_the_run_where_it_is_said(
    store: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Goal: a wrong name is told at its call; it left a run that nothing could wake, and a traceback of the engine."""
    address = store if store == "memory:" else f"sqlite:///{tmp_path_factory.mktemp('said')}/s.db"
    with World(address, serve=[flows.leaf_alone]) as world:
        for number, (what, (_, words)) in enumerate(flows.WORDS.items()):
            with pytest.raises(RunFailed, match=words):
                world.run(flows.says, what, id=f"r{number}")
        assert world.run(flows.leaf_alone, 2) == 2
        assert world.audit_all() == []


def yields() -> Any:
    yield 1


async def yields_at_times() -> Any:
    yield 1


@pytest.mark.parametrize("what", flows.TEXTS)
def test_s29_the_text_of_what_was_not_awaited_is_refused(what: str) -> None:
    """Goal: an f-string over a step would embed nonsense in silence, other nonsense on replay: `await` is named."""
    _, said = flows.TEXTS[what]
    with World(serve=[flows.leaf_alone]) as world:
        with pytest.raises(NeedsAttention, match=said):
            world.run(flows.writes, what)
        assert world.audit_all() == []


def test_s29_a_step_can_still_be_shown_gathered_and_compared() -> None:
    """Goal: only its text is refused: `repr`, sets, `gather` and what looks for an attribute go on as ever."""
    with World() as world:
        assert world.run(flows.handles_steps) == [3, 4]
        with pytest.raises(
            RunFailed, match=r"leaf\(\.\.\.\) was not awaited, so it has no attribute 'upper'"
        ) as failed:
            world.run(flows.takes_an_attribute)
        assert failed.value.failure.where.splitlines()[-1].endswith("in takes_an_attribute")
        assert world.audit_all() == []


WRONG: dict[str, Callable[[], Any]] = {
    r"Retry\(on=\) takes exception types": lambda: Retry(on=("ValueError",)),  # type: ignore[arg-type]
    r"Retry\(never=\) takes exception types": lambda: Retry(never=(5,)),  # type: ignore[arg-type]
    r"Retry\(first='1h'\): longer than max=": lambda: Retry(first="1h"),
    r"Retry\(attempts=0\): at least 1": lambda: Retry(attempts=0),
    r"Retry\(factor=0\.5\): at least 1": lambda: Retry(factor=0.5),
    "yields: it yields": lambda: task(yields),
    "yields_at_times: it yields": lambda: task(yields_at_times),
    "not <task leaf>": lambda: task(flows.leaf),
}


@pytest.mark.parametrize("said", WRONG)
def test_a_task_that_could_only_fail_is_refused_when_it_is_defined(said: str) -> None:
    """Goal: what would fail each attempt, or end the thread that tries it, is told before a run begins."""
    with pytest.raises(DefinitionError, match=said):
        WRONG[said]()
    assert Retry(on=ValueError).allows(ValueError())  # type: ignore[arg-type]


@task
async def pays(order: str, cents: int = 1, *, note: str = "") -> str:
    return f"{order} {cents} {note}"


UNDONE: list[tuple[Any, ...]] = []


@task(name="undo")
async def undo(order: str, cents: int, *, note: str, paid: str, more: int = 0) -> None:
    UNDONE.append((order, cents, note, paid))


@task(name="undo")
async def undo_named(order: str, cents: int, *, note: str, paid: str) -> None:
    UNDONE.append((order, cents, note, paid))


@task(name="undo")
async def undo_placed(order: str, cents: int, note: str, paid: str, more: int = 0) -> None:
    UNDONE.append((order, cents, note, paid))


@task(name="undo")
async def undo_less(order: str, paid: str) -> None: ...


@task(name="undo")
async def undo_all(*everything: Any) -> None: ...


@task(name="undo")
async def undo_more(order: str, cents: int, note: str, paid: str, more: int) -> None: ...


@task(name="undo")
async def undo_nothing() -> None: ...


@pytest.mark.parametrize("given", [undo_named, undo_placed])
def test_a_compensation_that_fits_is_given_the_arguments_then_the_result(given: Any) -> None:
    """Goal: what is accepted at definition is what can be called, with names or in order."""
    UNDONE.clear()
    paying = pays.options(compensate=given)

    @workflow
    async def fails() -> None:
        await paying("a", 2, note="n")
        raise RuntimeError("no")

    with World() as world:
        with pytest.raises(RunFailed, match="no"):
            world.run(fails)
        assert UNDONE == [("a", 2, "n", "a 2 n")]
        assert world.audit_all() == []


@pytest.mark.parametrize("given", [undo, undo_less, undo_all, undo_more, undo_nothing])
def test_a_compensation_that_does_not_fit_is_refused_when_it_is_defined(given: Any) -> None:
    """Goal: one that could only fail when it is needed is told before, with the parameters that it must take."""
    expected = r"its arguments, then its result, so undo must take \(order, cents, note, result\), and it takes \("
    with pytest.raises(DefinitionError, match=f"task pays: .*{expected}"):
        pays.options(compensate=given)
    for make in (flow_with, graph_with):
        with pytest.raises(DefinitionError, match=r"must take \(n, \*more, result\)|must take \(n, m, result\)"):
            make(given)


def flow_with(given: Any) -> Any:
    async def one(n: int, *more: int) -> None: ...

    return workflow(compensate=given)(one)


def graph_with(given: Any) -> Any:
    def one(n: int, m: int) -> Any:
        return flows.leaf(n)

    return graph(compensate=given)(one)


def test_a_compensation_may_take_stars_as_its_task_does() -> None:
    """Goal: `*items` of the task go to `*items` of its compensation."""
    UNDONE.clear()

    @task
    async def back(order: str, *items: int, paid: str) -> None:
        UNDONE.append((order, items, paid))

    @task(compensate=back)
    async def buys(order: str, *items: int) -> str:
        return order

    @workflow
    async def fails() -> None:
        await buys("a", 1, 2)
        raise RuntimeError("no")

    with World() as world:
        with pytest.raises(RunFailed, match="no"):
            world.run(fails)
        assert UNDONE == [("a", (1, 2), "a")]


def test_a_duration_that_is_none_is_shown_where_it_stands() -> None:
    """Goal: `timeout='3x'`, as it was written."""
    with pytest.raises(BadDuration, match=r"task leaf: timeout='3x' is no duration: give a timedelta"):
        flows.leaf.options(timeout="3x")
    with pytest.raises(BadDuration, match=r"^Retry\(first='3x'\) is no duration"):
        Retry(first="3x")
    with pytest.raises(BadDuration, match=r"timeout=-1 is not between 0 and 100 years"):
        flows.leaf.options(timeout=-1)


def test_what_is_called_outside_a_workflow_says_what_to_write_instead() -> None:
    """Goal: names as the code has them, though the task's own is another."""
    with pytest.raises(
        NotInWorkflow, match=r"^undo\(\) .*call undo_less\.fn\(.*call undo_less\(\.\.\.\) in a @workflow"
    ):
        undo_less("a", "b")
    with pytest.raises(NotInWorkflow, match=r"call undo_less\.fn\(\.\.\.\) for each.*undo_less\.map\(\.\.\.\)"):
        undo_less.map(["a"])
    with pytest.raises(NotInWorkflow, match=r"perdure\.run\(leaf_alone, \.\.\.\)"):
        flows.leaf_alone(1)
