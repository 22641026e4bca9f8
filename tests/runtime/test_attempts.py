"""Attempts on virtual time: timeouts, deadlines, heartbeats and progress, retries, bounds, and what a task may ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import perdure
from perdure import NeedsAttention, NotDone, NotInWorkflow, Retry, RunFailed, task, workflow
from perdure.testing import World
from tests.runtime.timed import failed

SAID: list[Any] = []
NOW: list[World] = []


@pytest.fixture(autouse=True)
def _nothing_said() -> Iterator[None]:
    SAID.clear()
    yield
    SAID.clear()
    NOW.clear()


def _second() -> float:
    """The world's time, in seconds since this test's first look at it."""
    return round(NOW[0].clock.mono_ns / 1e9 - 1, 1)


def _world(**settings: Any) -> World:
    world = World("memory:", **settings)
    NOW.append(world)
    return world


# --- timeouts and deadlines -----------------------------------------------------------------------


@task(timeout="10s", retry=Retry(attempts=3, first="5s", factor=3, jitter=False))
async def slow(seconds: float) -> str:
    SAID.append((perdure.attempt(), _second()))
    await asyncio.sleep(seconds)  # work
    return "done"


@workflow
async def calls_slow(seconds: float) -> str:
    return await slow(seconds)


@pytest.mark.parametrize("crash", [False, True])
def test_a_timeout_bounds_each_attempt_and_a_retry_waits_as_it_says(crash: bool) -> None:
    """Goal: each attempt gets the whole timeout, the delays are those of the policy, over an engine's death too."""
    with _world() as world:
        world.start(calls_slow, 60, id="r")
        if crash:
            world.advance(12)
            world.restart()
        with pytest.raises(RunFailed, match="attempt 3 took more than 10s"):
            world.result("r")
        assert SAID == [(1, 0.0), (2, 15.0), (3, 40.0)]
        assert failed(world) == [(1, "timeout", 5.0), (2, "timeout", 15.0), (3, "timeout", None)]
        assert world.audit_all() == []


def test_an_attempt_just_within_its_timeout_counts() -> None:
    """Goal: the bound is the one that is given, to the millisecond."""
    with _world() as world:
        assert world.run(calls_slow, 9.999) == "done"
        assert world.run(calls_slow, 0) == "done"


@task(deadline="25s", retry=Retry(attempts=100, first="10s", factor=1, jitter=False))
async def within(seconds: float, fails: bool) -> str:
    SAID.append((perdure.attempt(), _second()))
    await asyncio.sleep(seconds)  # work
    if fails:
        raise ValueError("again")
    return "done"


@workflow
async def calls_within(seconds: float, fails: bool) -> str:
    return await within(seconds, fails)


def test_a_deadline_bounds_the_step_with_all_its_attempts() -> None:
    """Goal: no retry is planned behind it, and an attempt that crosses it fails there, for good."""
    with _world() as world:
        with pytest.raises(RunFailed, match="again"):
            world.run(calls_within, 3, True, id="r")
        assert SAID == [(1, 0.0), (2, 13.0)]
        assert failed(world) == [(1, "error", 10.0), (2, "error", None)]
        SAID.clear()
        with pytest.raises(RunFailed, match="deadline of 25s is over"):
            world.run(calls_within, 30, False, id="q")
        assert failed(world, "q") == [(1, "deadline", None)]
        assert world.audit_all() == []


def test_a_deadline_goes_on_while_nothing_runs() -> None:
    """Goal: the time in which the engine was down counts; a step whose deadline has passed is not begun again."""
    with _world() as world:
        world.start(calls_within, 20, False, id="r")
        world.advance(5)
        world.restart(away="1h")
        with pytest.raises(RunFailed, match="deadline"):
            world.result("r")
        assert SAID == [(1, 0.0)]
        assert world.audit_all() == []


def found(seconds: float, fails: bool) -> str:
    SAID.append("asked")
    return "found"


def not_done(seconds: float, fails: bool) -> str:
    SAID.append("asked")
    raise NotDone


def _once(probe: Any) -> Any:
    policy = Retry(attempts=5, first="10s", jitter=False)

    @task(deadline="25s", at_most_once=True, probe=probe, retry=policy, name="once")
    async def once(seconds: float, fails: bool) -> str:
        SAID.append("begun")
        await asyncio.sleep(seconds)  # work
        if fails:
            raise ConnectionError("lost")
        return "done"

    async def calls_once(seconds: float, fails: bool) -> str:
        return await once(seconds, fails)

    return workflow(calls_once)


def test_a_probe_is_asked_whatever_the_hour() -> None:
    """Goal: an at-most-once step that may have begun is asked for, also when its deadline is long over."""
    flow = _once(found)
    with _world(serve=[flow]) as world:
        world.start(flow, 20, False, id="r")
        world.advance(5)
        world.restart(away="1h")
        assert world.result("r") == "found"
        assert SAID == ["begun", "asked"]
        assert world.audit_all() == []


def test_a_deadline_that_is_over_before_an_attempt_leaves_no_doubt() -> None:
    """Goal: a retry that became due while nothing ran is not made, and its step fails without a person's word."""
    flow = _once(not_done)
    with _world(serve=[flow]) as world:
        world.start(flow, 2, True, id="r")
        world.advance(5)
        world.restart(away="1h")
        with pytest.raises(RunFailed, match="deadline of 25s is over"):
            world.result("r")
        assert SAID == ["begun", "asked"]
        assert world.audit_all() == []


@task(timeout="10m", heartbeat="10s")
async def beats_for_a_while(seconds: int) -> str:
    for _ in range(seconds):
        perdure.heartbeat()
        await asyncio.sleep(1)  # work
    return "done"


@workflow
async def calls_beats_for_a_while(seconds: int) -> str:
    return await beats_for_a_while(seconds)


@pytest.mark.parametrize("jump", [3_600, -3_600, 30 * 86_400])
def test_a_clock_that_jumps_ends_no_attempt(jump: float) -> None:
    """Goal: an attempt's timeout is of its own time: a step of the wall clock is neither too long nor for ever."""
    with _world() as world:
        world.start(calls_beats_for_a_while, 60, id="r")
        world.advance(30)
        world.clock.step_wall(jump)
        assert world.result("r") == "done"
        world.start(calls_beats_for_a_while, 601, id="q")
        world.advance(300)
        world.clock.step_wall(jump)
        with pytest.raises(RunFailed, match="took more than 600s"):
            world.result("q")


@task(timeout="1d")
async def long_bounded(seconds: float) -> None:
    await asyncio.sleep(seconds)  # work


@workflow
async def calls_long_bounded(rounds: int) -> None:
    first = long_bounded(3600)
    for _ in range(rounds):
        await asyncio.gather(*(long_bounded(0) for _ in range(1_000)))
    await first


def test_the_clocks_of_ended_attempts_are_not_kept() -> None:
    """Goal: ten thousand attempts that ended long before their timeout of a day leave nothing in memory."""
    with _world() as world:
        world.start(calls_long_bounded, 10, id="r")
        world.advance(60)
        assert world.row("r").wait.open == 1
        kept = len(world.engine.node.pools.expiries.entries)
        assert 1 <= kept <= 2_100
        world.result("r")
        world.advance("2d")
        assert world.engine.node.pools.expiries.entries == []


@task(deadline="25s", at_most_once=True)
async def doubtful_within(seconds: float) -> str:
    SAID.append("begun")
    if len(SAID) == 1:
        raise ConnectionError("lost")
    return "done"


@workflow
async def calls_doubtful_within(seconds: float) -> str:
    return await doubtful_within(seconds)


def test_a_deadline_begins_anew_with_a_persons_word() -> None:
    """Goal: a run that is retried, or a step that is resolved to be made again, days later has its whole time again."""
    with _world() as world:
        with pytest.raises(RunFailed):
            world.run(calls_within, 30, False, id="r")
        world.advance("2d")
        SAID.clear()
        world.play(world.engine.retry("r"))
        world.restart()
        with pytest.raises(RunFailed, match="deadline"):
            world.result("r")
        assert [number for number, _ in SAID] == [1, 1]  # once more after the death
        SAID.clear()
        with pytest.raises(NeedsAttention):
            world.run(calls_doubtful_within, 1, id="q")
        world.advance("2d")
        world.play(world.engine.resolve("q", "doubtful_within#1", "retry"))
        assert world.result("q") == "done"
        assert world.audit_all() == []


# --- heartbeats and progress ----------------------------------------------------------------------


@task(heartbeat="10s", retry=Retry(attempts=2, first="1s", jitter=False))
async def beats(beats: int, pause: float, then: float) -> list[Any]:
    found = [perdure.attempt(), perdure.progress()]
    for number in range(beats):
        perdure.heartbeat({"attempt": perdure.attempt(), "row": number})
        await asyncio.sleep(pause)  # work
    await asyncio.sleep(then if perdure.attempt() == 1 else 0)  # work
    return found


@workflow
async def calls_beats(beats_: int, pause: float, then: float) -> list[Any]:
    return await beats(beats_, pause, then)


def test_heartbeats_keep_an_attempt_alive() -> None:
    """Goal: an attempt may take a hundred times its heartbeat, as long as it says that it lives."""
    with _world() as world:
        assert world.run(calls_beats, 100, 9.5, 0) == [1, None]


def test_a_beat_in_the_moment_in_which_one_is_missed_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: the clocks of an attempt that beats just in time are armed once, time and again, without a word."""
    with caplog.at_level(logging.WARNING), _world() as world:
        assert world.run(calls_beats, 20, 9.999, 0) == [1, None]
        world.advance("1h")
        assert world.engine.node.pools.expiries.entries == []
        assert caplog.text == ""


def test_silence_fails_an_attempt_and_its_progress_goes_to_the_next() -> None:
    """Goal: ten seconds after the last heartbeat; the next attempt is told how far this one was."""
    with _world() as world:
        assert world.run(calls_beats, 3, 4, 60, id="r") == [2, {"attempt": 1, "row": 2}]
        assert failed(world) == [(1, "heartbeat", 1.0)]
        assert world.audit_all() == []


def test_progress_outlives_the_engine() -> None:
    """Goal: what was told before a crash is there for the attempt that is made again, and can be seen meanwhile."""
    with _world() as world:
        world.start(calls_beats, 8, 5, 0, id="r")
        world.advance(18)
        assert world.play(world.engine.state("r")).metadata.progress == {"beats#1": {"attempt": 1, "row": 3}}
        world.restart()
        assert world.result("r") == [1, {"attempt": 1, "row": 3}]
        assert world.play(world.engine.state("r")).metadata.progress == {}


@task
async def chatters(times: int) -> None:
    for number in range(times):
        perdure.heartbeat(number)
        await asyncio.sleep(0.01)  # work


@workflow
async def calls_chatters(times: int) -> None:
    await chatters(times)


def test_progress_is_written_at_most_once_a_second() -> None:
    """Goal: a thousand heartbeats in ten seconds cost ten writes, and the last of them is seen."""
    with _world() as world:
        world.start(calls_chatters, 1000, id="r")
        before = world.store.commits
        world.advance(9.5)
        assert 8 <= world.store.commits - before <= 11
        assert world.play(world.engine.state("r")).metadata.progress["chatters#1"] >= 800
        world.result("r")


# --- bounds ---------------------------------------------------------------------------------------


PEAK = {"now": 0, "most": 0}


async def _counted(seconds: float) -> None:
    PEAK["now"] += 1
    PEAK["most"] = max(PEAK["most"], PEAK["now"])
    try:
        await asyncio.sleep(seconds)  # work
    finally:
        PEAK["now"] -= 1


@task(concurrency=3, timeout="30s")
async def three_at_once(seconds: float) -> None:
    await _counted(seconds)


@task
async def as_many_as_there_are(seconds: float) -> None:
    await _counted(seconds)


@workflow
async def calls_many(count: int, seconds: float) -> float:
    begun = perdure.now()
    await asyncio.gather(*(three_at_once(seconds) for _ in range(count)), return_exceptions=True)
    return (perdure.now() - begun).total_seconds()


@workflow
async def calls_all(count: int, seconds: float) -> float:
    begun = perdure.now()
    await asyncio.gather(*(as_many_as_there_are(seconds) for _ in range(count)))
    return (perdure.now() - begun).total_seconds()


def test_a_tasks_concurrency_holds_over_all_runs() -> None:
    """Goal: three at once on the node, whoever calls; a place is free again when its attempt is over."""
    PEAK["most"] = 0
    with _world() as world:
        runs = [world.start(calls_many, 6, 10) for _ in range(2)]
        assert max(world.result(run) for run in runs) == pytest.approx(40, abs=0.1)
        assert PEAK["most"] == 3
        PEAK["most"] = 0
        assert world.run(calls_many, 6, 1000) == pytest.approx(60, abs=0.1)
        assert PEAK["most"] == 3
        assert world.run(calls_many, 3, 10) == pytest.approx(10, abs=0.1)


def test_a_node_makes_so_many_async_attempts_at_once() -> None:
    """Goal: the setting is the bound, and all come to their turn."""
    PEAK["most"] = 0
    with _world(async_max=7) as world:
        assert world.run(calls_all, 20, 10) == pytest.approx(30, abs=0.1)
        assert PEAK["most"] == 7


# --- what a task may ask --------------------------------------------------------------------------


def _asked(value: str) -> list[Any]:
    SAID.append([perdure.run_id(), perdure.attempt(), perdure.idempotency_key(), perdure.progress()])
    if perdure.attempt() < 3:
        raise ValueError(value)
    return list(SAID[-1])


@task(retry=Retry(attempts=3, first="1s"))
async def asks(value: str) -> list[Any]:
    return _asked(value)


@task(retry=Retry(attempts=3, first="1s"))
def asks_in_a_thread(value: str) -> list[Any]:
    return _asked(value)


@workflow
async def calls_asks(threads: bool) -> list[Any]:
    assert perdure.run_id() == "r"
    return await (asks_in_a_thread("x") if threads else asks("x"))


@pytest.mark.parametrize("threads", [False, True])
def test_a_task_knows_its_run_its_attempt_and_its_key(threads: bool) -> None:
    """Goal: one idempotency key for all attempts of a step; the number tells them apart."""
    with _world() as world:
        world.run(calls_asks, threads, id="r")
        name = "asks_in_a_thread" if threads else "asks"
        assert [["r", number, f"r:1:{name}#1", None] for number in (1, 2, 3)] == SAID


@pytest.mark.parametrize("name", ["heartbeat", "progress", "attempt", "idempotency_key", "run_id"])
def test_outside_a_task_they_say_where_they_work(name: str) -> None:
    """Goal: calling them in plain code is told as what it is."""
    with pytest.raises(NotInWorkflow, match=f"{name} works inside a task"):
        getattr(perdure, name)()
