"""S16: what may be done at most once. Whatever ends an attempt in doubt, its probe decides, else a person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import perdure
from perdure import UNKNOWN, NeedsAttention, NotDone, Retry, RunFailed, task, workflow
from perdure.errors import WrongState
from perdure.model import fact as f
from perdure.testing import World
from tests.flows.tasks import DONE, Declined

TWICE = Retry(attempts=2, first="1s", jitter=False)


@pytest.fixture(autouse=True)
def _nothing_done() -> Iterator[None]:
    DONE.clear()
    yield
    DONE.clear()


async def _pays(how: str) -> str:
    """The first attempt ends as it is told; a second would go well."""
    DONE.append("paid")
    if DONE.count("paid") > 1:
        return "paid again"
    if how == "declared":
        raise Declined(7, "no funds")
    if how == "undeclared":
        raise ConnectionError("reset by peer")
    await asyncio.sleep(1000)  # work
    return "paid late"


def says_it_was(how: str) -> str:
    DONE.append("asked")
    return "found paid"


async def says_it_was_not(how: str) -> str:
    DONE.append("asked")
    raise NotDone


async def cannot_say(how: str) -> str:
    DONE.append("asked")
    raise ConnectionError("the bank is closed")


PROBES: dict[str, Callable[..., Any] | None] = {
    "no probe": None, "it was": says_it_was, "it was not": says_it_was_not, "cannot say": cannot_say
}  # fmt: skip


def paying(probe: str, **options: Any) -> Any:
    """A flow over a payment with this probe."""
    pay = task(
        at_most_once=True, probe=PROBES[probe], timeout="60s", raises=(Declined,), retry=TWICE, name="pay", **options
    )(_pays)

    async def pays_once(how: str) -> str:
        return await pay(how)

    return workflow(pays_once)


def _begun(world: World, flow: Any, how: str) -> None:
    """Let the attempt begin, and die in it where that is what is told."""
    world.serve(flow)
    world.start(flow, how, id="r")
    world.advance(10)
    if how == "death":
        world.restart()


IN_DOUBT = ["undeclared", "timeout", "death"]


@pytest.mark.parametrize("how", IN_DOUBT)
@pytest.mark.parametrize("probe", ["no probe", "cannot say"])
def test_s16_what_nobody_can_tell_waits_for_a_person(how: str, probe: str) -> None:
    """Goal: the attempt is made once, the run names the step and the ways out, and a person's word ends it."""
    with World("memory:") as world:
        _begun(world, paying(probe), how)
        with pytest.raises(NeedsAttention, match=r"perdure resolve r pay#1 --result") as caught:
            world.result("r")
        undeclared = how == "undeclared" or probe == "cannot say"
        assert ("does not declare left it" in caught.value.reason) == undeclared
        assert DONE.count("paid") == 1
        assert DONE.count("asked") == (probe != "no probe")
        with pytest.raises(WrongState, match="nobody knows whether step pay#1"):
            world.play(world.engine.retry("r"))
        world.restart()
        world.run_to_rest()
        assert (DONE.count("paid"), world.status("r")) == (1, "attention")
        world.play(world.engine.resolve("r", "pay#1", "result", "paid by hand", by="ann"))
        assert world.result("r") == "paid by hand"
        assert world.audit_all() == []


@pytest.mark.parametrize("how", IN_DOUBT)
def test_s16_a_probe_that_found_the_effect_gives_the_result(how: str) -> None:
    """Goal: its result is the step's, and the attempt is not made again."""
    with World("memory:") as world:
        _begun(world, paying("it was"), how)
        assert world.result("r") == "found paid"
        assert (DONE.count("paid"), DONE.count("asked")) == (1, 1)
        assert sum(isinstance(fact, f.StepCompleted) for fact in world.history("r")) == 1
        assert world.audit_all() == []


@pytest.mark.parametrize("how", IN_DOUBT)
def test_s16_a_probe_that_found_nothing_lets_it_be_made_again(how: str) -> None:
    """Goal: NotDone promises that the earlier attempt can have no effect any more, so its policy counts it."""
    with World("memory:") as world:
        _begun(world, paying("it was not"), how)
        assert world.result("r") == "paid again"
        assert (DONE.count("paid"), DONE.count("asked")) == (2, 1)
        assert world.audit_all() == []


@pytest.mark.parametrize("probe", ["no probe", "it was"])
def test_s16_a_declared_exception_is_no_doubt(probe: str) -> None:
    """Goal: an exception that the task declares says what happened: the step fails, nobody is asked, nothing is retried."""
    with World("memory:") as world:
        _begun(world, paying(probe), "declared")
        with pytest.raises(RunFailed, match="no funds"):
            world.result("r")
        assert DONE == ["paid"]
        assert world.audit_all() == []


@pytest.mark.parametrize("how", ["retry", "fail"])
def test_s19_each_word_of_a_person_on_a_step(how: Any) -> None:
    """Goal: `resolve --retry` makes it again though it is at most once, `--fail` fails it; both are on record."""
    with World("memory:") as world:
        _begun(world, paying("no probe"), "undeclared")
        with pytest.raises(NeedsAttention):
            world.result("r")
        world.play(world.engine.resolve("r", "pay#1", how, by="ann"))
        if how == "retry":
            assert world.result("r") == "paid again"
        else:
            with pytest.raises(RunFailed, match="failed by ann"):
                world.result("r")
        resolved = [fact for fact in world.history("r") if isinstance(fact, f.StepResolved)]
        assert [(fact.how, fact.by) for fact in resolved] == [(how, "ann")]
        assert DONE.count("paid") == (2 if how == "retry" else 1)
        assert world.audit_all() == []


@task
async def refund(how: str, result: Any) -> None:
    DONE.append(f"refunded {'unknown' if result is UNKNOWN else result}")


@pytest.mark.parametrize("how", ["undeclared", "timeout"])
def test_s17_a_doubtful_effect_that_is_failed_by_hand_is_not_undone(how: str) -> None:
    """Goal: a person who fails a step says that it had no effect: nothing is refunded; a timeout's is, as unknown."""
    with World("memory:") as world:
        _begun(world, paying("no probe", compensate=refund), how)
        with pytest.raises(NeedsAttention):
            world.result("r")
        world.play(world.engine.resolve("r", "pay#1", "fail"))
        with pytest.raises(RunFailed):
            world.result("r")
        assert [one for one in DONE if one.startswith("refunded")] == []
        assert world.audit_all() == []


def _undoable(probe: str) -> Any:
    return task(
        at_most_once=True, probe=PROBES[probe], timeout="60s", retry=TWICE, compensate=refund, name=f"pay {probe}"
    )(_pays)  # fmt: skip


pay_without_probe, pay_found, pay_not_found = _undoable("no probe"), _undoable("it was"), _undoable("it was not")


@workflow
async def pays_then_waits(how: str, probe: str) -> None:
    pay = {"no probe": pay_without_probe, "it was": pay_found, "it was not": pay_not_found}[probe]
    await pay(how)
    await perdure.wait_signal("never")


@pytest.mark.parametrize("how", IN_DOUBT)
@pytest.mark.parametrize("probe", ["no probe", "it was", "it was not"])
def test_s16_a_forced_cancel_refunds_what_is_known_to_be_done(how: str, probe: str) -> None:
    """Goal: a run that is ended without its code undoes what its facts say was done."""
    with World("memory:", serve=[pays_then_waits]) as world:
        world.start(pays_then_waits, how, probe, id="r")
        world.advance(10)
        if how == "death":
            world.restart()
        world.run_to_rest()
        world.cancel("r", "enough", force=True)
        with pytest.raises(perdure.RunCancelled):
            world.result("r")
        expected = {"no probe": [], "it was": ["refunded found paid"], "it was not": ["refunded paid again"]}
        undone = [one for one in DONE if one.startswith("refunded")]
        assert undone == expected[probe]
        assert world.audit_all() == []
