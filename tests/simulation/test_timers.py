"""Timers: thousands due at once, deaths while they fire, and the order of what was said and what was due (F26, F28, S11)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from perdure.authoring.registry import Registry
from perdure.clock import EngineClock
from perdure.model import fact as f
from perdure.runtime.client import Client
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Batch
from perdure.testing import World, run_with_crashes
from tests.simulation import flows

MANY = 10_000
DAY_S = 86_400


class Seen:
    """What went into the store: the timers that fired, by batch, with the run and when they were due."""

    def __init__(self, world: World) -> None:
        self.fired: list[tuple[int, str]] = []
        self.batches: list[int] = []
        self.there_at: int | None = None
        world.store.refuse = self._batch

    def _batch(self, batch: Batch) -> None:
        facts = [(ref.id, f.decode_fact(body)) for ref, _, body, _ in batch.facts]
        self.fired.extend((fact.due, run) for run, fact in facts if isinstance(fact, f.TimerFired))
        self.batches.append(len(facts))
        if self.there_at is None and any(run == "other" and isinstance(fact, f.RunCompleted) for run, fact in facts):
            self.there_at = len(self.fired)


async def _start(world: World, count: int) -> None:
    """Sleepers that are due within the same second, in another order than they were started."""
    for begun in range(0, count, 500):
        starts = (
            world.engine.start(flows.naps, 3600 + (n * 7919 % count) / count, id=f"r{n}")
            for n in range(begun, begun + 500)
        )
        await asyncio.gather(*starts)


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize("away", [False, True], ids=["live", "after-a-restart-over-sqlite"])
def test_f26_ten_thousand_timers_in_one_second(away: bool, tmp_path: Path) -> None:
    """Goal: each fires once, those in memory and those out of it in the order of their due times, in bounded batches,
    and other work does not wait until all have fired.
    """
    address = f"sqlite:///{tmp_path / 'w.db'}" if away else "memory:"
    with World(address, serve=[flows.naps, flows.two_steps], batch_facts_max=1_000) as world:
        world.play(_start(world, MANY))
        there = set(world.engine.node.advance.runs)
        assert len(there) < 2_100
        seen = Seen(world)
        if away:
            world.restart(away="2h")
        else:
            world.advance(3600.3)
            assert 0 < len(seen.fired) < MANY
        world.play(_other(world))
        world.run_to_rest()
        assert len(seen.fired) == MANY
        assert len({run for _, run in seen.fired}) == MANY
        assert max(seen.batches) <= 1_000 + 2
        assert seen.there_at is not None
        assert seen.there_at < 0.8 * MANY
        assert _disorder(due for due, run in seen.fired if not away and run in there) == 0
        assert _disorder(due for due, run in seen.fired if away or run not in there) < 0.01 * MANY
        assert {row.status for row in world.rows()} == {"completed"}


async def _other(world: World) -> None:
    handle = await world.engine.start(flows.two_steps, 1, id="other")
    assert await handle.result() == 2


def _disorder(fired: Iterable[int]) -> int:
    """How many fired after one that was due later."""
    latest, count = 0, 0
    for due in fired:
        count += due < latest
        latest = max(latest, due)
    return count


@pytest.mark.simulation
def test_s9_a_restart_wakes_nobody_who_is_not_due_and_a_hint_fires_nothing(tmp_path: Path) -> None:
    """Goal: sleepers are found by the wait in their rows alone; one that is woken early records nothing, and sleeps on."""
    with World(f"sqlite:///{tmp_path / 'w.db'}", serve=[flows.naps]) as world:
        for n in range(50):
            world.start(flows.naps, 3_600 + n * 60, id=f"r{n}")
        world.restart(away="30m")
        world.advance("20m")
        moved = world.engine.node.advance.runs
        assert not moved, "somebody was replayed to learn that it sleeps"
        before = {row.id: (row.seq, row.wait) for row in world.rows()}
        world.engine.node.on_load("r7", None)
        world.advance("1m")
        assert list(moved) == ["r7"]
        assert {row.id: (row.seq, row.wait) for row in world.rows()} == before
        world.advance("9m30s")
        assert world.status("r0") == "completed"
        assert list(moved) == ["r7"]
        world.advance("1h")
        assert {row.status for row in world.rows()} == {"completed"}
        assert world.audit_all() == []


@pytest.mark.simulation
def test_f28_a_death_between_a_timers_firing_and_its_record() -> None:
    """Goal: three timers, three facts, whichever two commits the engine dies beside."""

    def once(world: World, run: str) -> None:
        fired = [fact.key for fact in world.history(run) if isinstance(fact, f.TimerFired)]
        assert fired == ["timer#1", "timer#2", "timer#3"]

    explored = run_with_crashes(flows.sleeps, 60.0, 3, crash_depth=2, check=once)
    assert explored.crashes["crash_before"] > explored.commits
    assert explored.crashes["crash_after"] > explored.commits


# --- what was said, and what was due, while nothing ran (S11) --------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'w.db'}"


def _say(world: World, run: str, name: str, value: Any, *, earlier_us: int = 0, request: str | None = None) -> None:
    """A client of another process speaks while no engine runs; its clock is behind by so much."""

    async def said() -> None:
        store: Any = world.store.inner
        if isinstance(store, SqliteStore):
            store = await SqliteStore.open_client(store.path, world.settings)
        clock = EngineClock(wall_ns=lambda: (world.clock.wall_us() - earlier_us) * 1_000)
        client = Client(store, world.settings, clock, Registry(world.served))
        await client.signal(run, name, value, request_id=request)
        if store is not world.store.inner:
            await store.close()

    asyncio.run(said())


@pytest.mark.parametrize("kill", [True, False])
@pytest.mark.parametrize("said_s, came", [(0.5 * DAY_S, "yes"), (DAY_S, "yes"), (1.5 * DAY_S, "too late")])
def test_s11_fridays_approval_beats_saturdays_deadline(address: str, said_s: float, came: str, kill: bool) -> None:
    """Goal: the engine was down until Monday; what was acknowledged before the deadline counts, on a tie too, and what
    came after it does not; the facts carry the times at which it was said and due.
    """
    with World(address, serve=[flows.approval]) as world:
        world.start(flows.approval, 1.0, id="r")
        due = world.row("r").wait.due
        assert due is not None
        world.die() if kill else world.stop()
        world.clock.advance_ns((due - world.clock.wall_us()) * 1_000 - round((DAY_S - said_s) * 1e9))
        said_at = world.clock.wall_us()
        _say(world, "r", "approval", "yes")
        world.clock.advance(3 * DAY_S)
        if came == "yes":
            assert world.result("r") == "yes"
            (fact,) = [fact for fact in world.history("r") if isinstance(fact, f.SignalReceived)]
            assert fact.at == said_at
        else:
            assert world.result("r") == "too late"
            (fired,) = [fact for fact in world.history("r") if isinstance(fact, f.TimerFired)]
            assert fired.at == due
        times = [fact.at for fact in world.history("r")]
        assert times == sorted(times)
        assert world.audit_all() == []


def test_s11_what_was_said_after_the_timer_that_ended_its_run_is_refused(address: str) -> None:
    """Goal: its sender is not told of a fact that there is none of: the timer was due before, and the run was over."""
    with World(address, serve=[flows.naps]) as world:
        world.start(flows.naps, 60.0, id="r")
        world.die()
        world.clock.advance(100)
        _say(world, "r", "n", 1, request="late")
        world.run_to_rest()
        assert world.status("r") == "completed"
        assert world.play(world.store.answers(["late"]))["late"] == ("r", b'{"refused":true}')
        assert world.play(world.store.inbox(0, 10)) == []
        assert world.audit_all() == []


def test_s11_what_waited_is_folded_in_the_order_of_its_times(address: str) -> None:
    """Goal: signals between naps, all of them while the engine was away: the history is as if it had been there."""
    with World(address, serve=[flows.naps_and_hears]) as world:
        world.start(flows.naps_and_hears, 100.0, 3, id="r")
        world.die()
        for n in range(3):
            world.clock.advance(50)
            _say(world, "r", "n", n)
            world.clock.advance(50)
        world.clock.advance("1d")
        assert world.result("r") == [0, 1, 2]
        kinds = [type(fact).__name__ for fact in world.history("r")]
        assert kinds == ["RunStarted", *["SignalReceived", "TimerFired"] * 3, "RunCompleted"]
        times = [fact.at for fact in world.history("r")]
        assert times == sorted(times)
        assert times[-1] - times[0] < 301 * 1_000_000
        assert world.audit_all() == []


def test_s11_what_was_said_by_two_clocks_is_folded_in_the_order_of_its_time() -> None:
    """Goal: a row that came into the inbox before another, and bears a later time, is folded after it."""
    with World(serve=[flows.naps_and_hears]) as world:
        world.start(flows.naps_and_hears, 100.0, 2, id="r")
        world.stop()
        world.clock.advance(50)
        _say(world, "r", "n", 2)
        _say(world, "r", "n", 1, earlier_us=10_000_000)
        assert world.result("r") == [1, 2]
        times = [fact.at for fact in world.history("r") if isinstance(fact, f.SignalReceived)]
        assert times == sorted(times)
        assert times[1] - times[0] >= 9_000_000
        assert world.audit_all() == []


def test_s11_the_same_order_when_the_run_was_only_out_of_memory() -> None:
    """Goal: a run that sleeps elsewhere and is loaded for a signal fires first what was due before that."""
    with World(serve=[flows.naps_and_hears], runs_resident_max=0) as world:
        world.start(flows.naps_and_hears, 100.0, 2, id="r")
        for n in range(2):
            world.advance(150 if n == 0 else 120)
            world.signal("r", "n", n)
        assert world.result("r") == [0, 1]
        kinds = [type(fact).__name__ for fact in world.history("r")]
        assert kinds == ["RunStarted", "TimerFired", "SignalReceived", "TimerFired", "SignalReceived", "RunCompleted"]
        assert world.audit_all() == []
