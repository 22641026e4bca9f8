"""A death in every window of an attempt, for every kind of step (F03)."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure import NeedsAttention
from perdure.model import fact as f
from tests.crash.harness import SIGKILLED, Program, audited, deaths, outcomes_of
from tests.crash.programs import kinds
from tests.crash.witness import notes

pytestmark = pytest.mark.crash
ADDRESS = "sqlite:///kinds.db"


@pytest.fixture(autouse=True)
def _witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", str(tmp_path))


async def resumed(kind: str) -> int:
    """Start another engine on the store; the client asks again for what it did not see acknowledged."""
    async with perdure.open(ADDRESS, workflows=[kinds.one, kinds.below]) as engine:
        if not notes("acks"):
            await engine.start(kinds.one, kind, 21, id="one", request_id="start-1")
        return await engine.get("one").result(timeout="60s")


@pytest.mark.parametrize("window", kinds.WINDOWS)
@pytest.mark.parametrize("kind", ["async", "thread", "probed", "child"])
async def test_f03_f50_the_engine_dies_around_a_step(kind: str, window: str) -> None:
    """Goal: whichever side of its code the death is on, a step is made again or asked for, and recorded once."""
    with Program("kinds", ADDRESS, kind, env={"DIE": window}) as program:
        assert program.ends() == SIGKILLED
    assert [where for where, _ in deaths()] == [window]
    assert await resumed(kind) == 42
    histories = await audited(ADDRESS, kinds.one, kinds.below)
    assert len(histories) == (2 if kind == "child" else 1)
    step = next(history for id, history in histories.items() if kind != "child" or id != "one")
    assert set(outcomes_of(step).values()) == {1}
    begun = [words for words in notes("steps") if words[0] == "start"]
    keys = {key for (key,) in notes("effects")}
    assert len(keys) == 1, "each attempt of a step has the same idempotency key"
    if kind == "probed":
        again = 1 if window in {"after", "reported"} else 2
        assert len(begun) == (again if window != "before" else 1)
    else:
        assert len(begun) == (1 if window == "before" else 2)
        # A crash does not raise the number of the attempt (S14).
        assert {number for _, number in begun} == {"1"}


@pytest.mark.parametrize("window", kinds.WINDOWS)
async def test_f03_a_process_of_the_pool_dies_around_a_step(window: str) -> None:
    """Goal: a process that dies fails its attempt and nothing else; the next attempt is the second."""
    with Program("kinds", ADDRESS, "process", env={"DIE": window, "POOLED": "1"}) as program:
        assert program.ends() == 0, program.said
        assert program.lines == ["42"]
    assert [where for where, _ in deaths()] == [window]
    assert int(deaths()[0][1]) != program.pid
    (history,) = (await audited(ADDRESS, kinds.one, kinds.below)).values()
    lost = [fact for fact in history if isinstance(fact, f.AttemptFailed)]
    assert [(fact.attempt, fact.failure.kind) for fact in lost] == [(1, "lost")]
    assert set(outcomes_of(history).values()) == {1}
    assert [number for what, number in notes("steps") if what == "start"] == (
        ["2"] if window == "before" else ["1", "2"]
    )


@pytest.mark.parametrize("window", ["during", "after", "reported"])
async def test_f03_what_may_be_done_once_only_waits_for_a_person(window: str) -> None:
    """Goal: without a probe nobody guesses: the step is not made again, and a person's word ends it."""
    with Program("kinds", ADDRESS, "once", env={"DIE": window}) as program:
        assert program.ends() == SIGKILLED
    assert [where for where, _ in deaths()] == [window]
    with pytest.raises(NeedsAttention, match="may have begun before its node died"):
        await resumed("once")
    histories = await audited(ADDRESS, kinds.one, kinds.below)
    key = next(fact.key for fact in histories["one"] if isinstance(fact, f.IntentRecorded))
    async with perdure.open(ADDRESS, workflows=[kinds.one, kinds.below]) as engine:
        await engine.resolve("one", key, "result", {"number": 42}, by="ann")
        assert await engine.get("one").result(timeout="60s") == 42
    await audited(ADDRESS, kinds.one, kinds.below)
    assert len([words for words in notes("steps") if words[0] == "start"]) == 1
