"""Retries: how long after, how often, of what (on virtual time)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from perdure import Retry, RunFailed, StepFailed, task, workflow
from perdure.testing import World
from tests.runtime.timed import failed

SAID: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_said() -> Iterator[None]:
    SAID.clear()
    yield
    SAID.clear()


class Busy(Exception):
    """A service that says when to come again."""

    def __init__(self, retry_after: Any) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


def _raising(error: Any, **options: Any) -> Any:
    @task(name="raises", **options)
    async def raises(value: int) -> int:
        SAID.append(value)
        raise error

    async def calls(value: int) -> int:
        return await raises(value)

    return workflow(calls)


def test_delays_grow_up_to_their_maximum() -> None:
    """Goal: first, first x factor, … up to max, and not more attempts than are allowed."""
    flow = _raising(ValueError("no"), retry=Retry(attempts=6, first="2s", factor=3, max="30s", jitter=False))
    with World("memory:") as world:
        with pytest.raises(RunFailed) as caught:
            world.run(flow, 1, id="r")
        assert [delay for _, _, delay in failed(world)] == [2.0, 6.0, 18.0, 30.0, 30.0, None]
        assert caught.value.failure.attempts == 6


def test_jitter_is_drawn_from_the_runs_seed() -> None:
    """Goal: within the bound, different from step to step, and the same when it is folded again."""
    flow = _raising(ValueError("no"), retry=Retry(attempts=8, first="10s", factor=2, max="1m"))
    delays = []
    for seed in range(5):
        with World("memory:", seed) as world:
            with pytest.raises(RunFailed):
                world.run(flow, 1, id="r")
            found = [delay for _, _, delay in failed(world)][:-1]
            bounds = [10, 20, 40, 60, 60, 60, 60]
            assert all(0 <= delay <= bound for delay, bound in zip(found, bounds, strict=True) if delay is not None)
            delays.append(found)
            assert world.audit_all() == []
    assert len({tuple(found) for found in delays}) == 5


@pytest.mark.parametrize(
    "after, delay",
    [
        (40, 40.0), (40.5, 40.5), ("1m", 60.0), (timedelta(hours=1), 3600.0), (3, 10.0), (0, 10.0), (-5, 10.0),
        ("soon", 10.0), (None, 10.0), (object(), 10.0), (float("nan"), 10.0), (1e300, 10.0),
    ],
)  # fmt: skip
def test_an_exception_may_ask_for_a_later_retry(after: Any, delay: float) -> None:
    """Goal: `retry_after` is obeyed where it is later than the policy's delay; nonsense in it harms nobody."""
    flow = _raising(Busy(after), retry=Retry(attempts=2, first="10s", jitter=False))
    with World("memory:") as world:
        with pytest.raises(RunFailed, match="busy"):
            world.run(flow, 1, id="r")
        assert failed(world) == [(1, "error", delay), (2, "error", None)]


@pytest.mark.parametrize(
    "error, attempts",
    [(ConnectionError("x"), 3), (ConnectionResetError("x"), 1), (TimeoutError("x"), 3), (ValueError("x"), 1),
     (KeyboardInterrupt("x"), 1), (SystemExit(3), 1)],
)  # fmt: skip
def test_only_what_is_to_be_retried_is_retried(error: BaseException, attempts: int) -> None:
    """Goal: `on` says what, `never` what not though it is one of those, and what is no Exception never."""
    policy = Retry(attempts=3, first="1s", on=(ConnectionError, TimeoutError), never=(ConnectionResetError,))
    with World("memory:") as world:
        with pytest.raises(RunFailed):
            world.run(_raising(error, retry=policy), 1, id="r")
        assert len(SAID) == attempts


def test_nothing_is_retried_unless_asked() -> None:
    """Goal: one attempt, unless a policy or the options of a call say otherwise."""
    with World("memory:") as world:
        with pytest.raises(RunFailed):
            world.run(_raising(ValueError("no")), 1)
        assert len(SAID) == 1
        SAID.clear()
        with pytest.raises(RunFailed):
            world.run(options_of_a_call, 5)
        assert len(SAID) == 4


@task
async def plainly_fails(value: int) -> None:
    SAID.append(value)
    raise ValueError(value)


@workflow
async def options_of_a_call(value: int) -> None:
    try:
        await plainly_fails(value)
    except StepFailed:
        await plainly_fails.options(retry=Retry(attempts=3, first=0))(value)
