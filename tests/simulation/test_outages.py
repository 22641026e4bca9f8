"""Stores that take nothing for a while, lose answers, refuse one run; and engines that stop or are lost meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from perdure import NeedsAttention
from perdure.errors import EngineStopped, StoreLost, StoreUnavailable
from perdure.model import fact as f
from perdure.state.store import Batch, BatchRefused
from perdure.testing import FaultKind, World, run_with_crashes
from perdure.testing.programs import SIGNAL, effects, perform
from tests.simulation import flows

pytestmark = pytest.mark.simulation
OUTAGES: tuple[FaultKind, ...] = ("unavailable", "unknown_lost", "unknown_kept")
# Steps of each kind, in parallel and one after another. Their attempts succeed at once.
BUSY = [["gather", [["step", 1], ["sync", 2]], [["book", 3], ["once", 4]], [["child", [["step", 5]]]]], ["step", 6]]


@pytest.fixture(autouse=True)
def _clean() -> None:
    effects.clear()
    flows.BEGUN.clear()


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("kind", OUTAGES)
def test_s14_a_full_disk_repeats_no_attempt(kind: FaultKind, length: int) -> None:
    """Goal: whichever commits fail, and however many in a row: what has run is recorded and never run again."""
    with World() as world:
        expected = world.run(perform, BUSY, id="r")
        commits = world.store.commits
        done = Counter(effects)
    assert set(done.values()) == {1}
    for commit in range(1, commits + 1):
        effects.clear()
        with World() as world:
            for one in range(commit, commit + length):
                world.store.fail_at(one, kind)
            world.serve(perform)
            world.play(_said_until_heard(world))
            assert world.result("r") == expected
            assert 1 <= len(world.store.fired) <= length  # fewer at the end, where there is nothing more to write
            assert effects == done
            facts = [fact for fact in world.history("r") if isinstance(fact, f.StepCompleted)]
            assert all(fact.attempt == 1 for fact in facts)
            assert world.audit_all() == []


async def _said_until_heard(world: World) -> None:
    while True:
        try:
            await world.engine.start(perform, BUSY, id="r")
            return
        except StoreUnavailable:
            await asyncio.sleep(0.1)  # durable


def test_s14_an_attempt_that_still_runs_is_kept_over_a_reload() -> None:
    """Goal: a step of an hour, outages at its beginning, in its middle: one attempt, and its run was loaded anew."""
    with World(serve=[flows.lives_dangerously, flows.hears]) as world:
        world.start(flows.lives_dangerously, 3, id="r")
        for _ in range(3):
            world.advance("10m")
            world.store.fail_next("unavailable")
            world.play(_poke(world))
        assert len(world.store.fired) == 3
        assert world.result("r") == 3
        assert flows.BEGUN["r"] == 1
        assert world.audit_all() == []


async def _poke(world: World) -> None:
    """Touch the run in the batch that fails: a signal that it does not wait for."""
    for _ in range(10):
        try:
            await world.engine.signal("r", "poke", 1)
            return
        except StoreUnavailable:
            await asyncio.sleep(1)  # durable


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_s16_what_is_in_doubt_is_probed_whichever_commits_fail(fails: int) -> None:
    """Goal: an at-most-once step, sure and unsure, with two nested deaths: between two doings there is a probe."""
    program = [["unsure", 3, fails]] if fails else [["once", 3], ["once", 4]]

    def prepare(world: World, run: str) -> None:
        effects.clear()

    def probed(world: World, run: str) -> None:
        for (kind, key), times in effects.items():
            assert kind == "probe" or times <= 1 + effects["probe", key]

    explored = run_with_crashes(perform, program, crash_depth=2, prepare=prepare, check=probed)
    assert explored.expected.status == "completed"
    assert explored.crashes["crash_after"] > 10


# --- the batch that a store refuses (D3) -----------------------------------------------------------------


def _refusing(world: World, bad: str, *, all: bool = False) -> Counter[str]:  # noqa: A002
    """Let the store refuse every batch with a step of this run; `all`: with anything of it. Counts what was refused."""
    counts: Counter[str] = Counter()

    def refuse(batch: Batch) -> None:
        bodies = [body for ref, _, body, _ in batch.facts if ref.id == bad]
        if any(all or body.startswith(b'["step_completed"') for body in bodies):
            counts["refused"] += 1
            counts["neighbours"] += len({ref.id for ref, *_ in batch.facts} - {bad})
            raise BatchRefused("it dislikes this run")

    world.store.refuse = refuse
    return counts


async def _many(world: World, count: int) -> None:
    handles = [world.engine.start(flows.two_steps, n, id=f"r{n}") for n in range(count)]
    await asyncio.gather(*handles)


def test_d3_what_was_recorded_before_the_store_refused_a_run_still_holds() -> None:
    """Goal: only the refused turn is not recorded; the one before it keeps its decisions, here a patch, when it goes on."""
    with World(serve=[perform]) as world:
        counts = _refusing(world, "r")
        world.start(perform, [["patch", "p1"], ["step", 6]], id="r")
        world.run_to_rest()
        assert counts["refused"]
        assert world.status("r") == "attention"
        world.store.refuse = lambda _: None
        world.play(world.engine.retry("r"))
        assert world.result("r") == 7
        assert world.audit_all() == []


@pytest.mark.parametrize("bad", ["r0", "r13", "r39"])
def test_d3_a_refused_batch_is_split_until_the_run_at_fault_stands_alone(bad: str) -> None:
    """Goal: forty runs in one batch, one of which the store never takes: it alone goes to attention, soon."""
    with World(serve=[flows.two_steps]) as world:
        counts = _refusing(world, bad)
        world.play(_many(world, 40))
        world.run_to_rest()
        assert counts["refused"] >= 2
        assert counts["neighbours"] >= 39
        assert counts["refused"] <= 4
        assert {row.id for row in world.rows() if row.status != "completed"} == {bad}
        with pytest.raises(NeedsAttention, match="the store refuses its facts: it dislikes this run"):
            world.result(bad)
        assert world.store.commits < 120
        world.store.refuse = lambda _: None
        world.play(world.engine.retry(bad))
        assert world.result(bad) == 2 * int(bad[1:])
        assert set(flows.BEGUN.values()) <= {2, 3, 4}
        assert all(flows.BEGUN[f"r{n}"] == 2 for n in range(40) if f"r{n}" != bad)
        assert world.audit_all() == []


def test_d3_two_runs_at_fault_are_both_found() -> None:
    """Goal: each of them stands alone, one after the other, and nobody else is harmed."""
    with World(serve=[flows.two_steps]) as world:
        one, two = _refusing(world, "r3"), world.store.refuse
        other = _refusing(world, "r7")
        first = world.store.refuse

        def both(batch: Batch) -> None:
            two(batch)
            first(batch)

        world.store.refuse = both
        world.play(_many(world, 10))
        world.run_to_rest()
        assert one["refused"] >= 1
        assert other["refused"] >= 1
        assert {row.id for row in world.rows() if row.status == "attention"} == {"r3", "r7"}
        assert sum(row.status == "completed" for row in world.rows()) == 8
        assert world.audit_all() == []


def test_d3_a_run_of_which_nothing_is_taken_stops_nobody() -> None:
    """Goal: even its attention is refused: it stays as it is, the others go on, and the engine does not spin."""
    with World(serve=[flows.two_steps, flows.hears]) as world:
        world.start(flows.hears, 1, id="bad")
        counts = _refusing(world, "bad", all=True)
        world.play(_signalled(world, "bad"))
        world.play(_many(world, 5))
        world.run_to_rest()
        assert 1 <= counts["refused"] < 20
        assert sum(row.status == "completed" for row in world.rows()) == 5
        assert world.store.commits < 60
        world.store.refuse = lambda _: None
        world.restart()
        world.signal("bad", "n", 4)
        assert world.status("bad") in {"completed", "attention"}
        assert world.audit_all() == []


async def _signalled(world: World, run: str) -> None:
    """A signal whose sender does not wait for ever."""
    try:
        await asyncio.wait_for(world.engine.signal(run, "n", 1), 5)
    except (TimeoutError, BatchRefused):
        return


# --- engines that end meanwhile (S25, S27) ---------------------------------------------------------------


def test_s25_an_engine_that_stops_in_an_outage_writes_nothing_more() -> None:
    """Goal: what was tried again later is not: the next engine alone writes, and the run goes on there."""
    with World(serve=[flows.two_steps]) as world:
        world.start(flows.hears, 2, id="r")
        world.store.choose = lambda _: "unavailable"
        old = world.engine
        world.play(_asked_in_vain(world))
        world.stop()
        world.store.choose = lambda _: None
        commits = world.store.commits
        world.restart(kill=False)
        assert world.store.commits - commits <= 2
        world.advance("1h")
        assert old.node.queue == type(old.node.queue)()
        assert old.node.lost is not None
        for n in range(2):
            world.signal("r", "n", n)
        assert world.result("r") == [0, 1]
        assert world.audit_all() == []


async def _asked_in_vain(world: World) -> None:
    with pytest.raises((StoreUnavailable, TimeoutError)):
        await asyncio.wait_for(world.engine.start(flows.two_steps, 1, id="never"), 1)


@pytest.mark.parametrize("how", ["stopped", "lost"])
def test_s25_s27_everyone_who_waits_is_told_when_the_engine_ends(how: str) -> None:
    """Goal: callers for a result, for an answer, for a run that is being loaded, for room in the queue: nobody hangs."""
    error: Any = EngineStopped if how == "stopped" else StoreLost
    with World(serve=[flows.hears], runs_resident_max=0, queue_max=16) as world:
        for n in range(3):
            world.start(flows.hears, 1, id=f"r{n}")
        told = world.play(_told(world, how))
        assert len(told) == 31
        assert all(isinstance(one, error | StoreUnavailable) for one in told), told
        assert sum(isinstance(one, error) for one in told) >= 20
        world.restart()
        assert {row.id for row in world.rows()} >= {"r0", "r1", "r2"}
        assert world.audit_all() == []


async def _told(world: World, how: str) -> list[Any]:
    """What those hear who wait when it happens."""
    engine = world.engine
    result = asyncio.create_task(engine.result("r0"))
    await asyncio.sleep(0)
    world.store.choose = lambda _: "lost" if how == "lost" else "unavailable"
    asks = [asyncio.create_task(engine.signal(f"r{n % 3}", "n", n)) for n in range(30)]
    if how == "stopped":
        await asyncio.sleep(0)
        stopping = asyncio.create_task(engine.stop())
        await stopping
        world._engine = None
    return await asyncio.gather(result, *asks, return_exceptions=True)


@pytest.mark.parametrize("kind", OUTAGES)
def test_s26_a_signal_in_an_outage_counts_once(kind: FaultKind) -> None:
    """Goal: the caller that got no answer says it again with its request id, before and after the store is back."""
    with World(serve=[flows.hears]) as world:
        world.start(flows.hears, 2, id="r")
        world.store.fail_next(kind)
        world.signal("r", "n", SIGNAL, request_id="one")
        world.signal("r", "n", SIGNAL, request_id="one")
        assert world.status("r") == "waiting"
        world.signal("r", "n", SIGNAL, request_id="two")
        assert world.result("r") == [SIGNAL, SIGNAL]
        assert len(world.store.fired) == 1
        assert world.audit_all() == []
