"""Words of a flow that cannot be kept: the run fails and names them, and its engine goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure import Retry, RunFailed, task
from perdure.errors import DefinitionError
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
