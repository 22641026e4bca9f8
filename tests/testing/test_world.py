"""The simulated world: virtual time, planned acts, deaths, stops, and what it says when nothing can happen."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from perdure.model import fact as f
from perdure.testing import AtRest, FaultKind, SimulatedClock, SimulatedCrash, World
from perdure.testing.programs import SIGNAL, effects, perform
from tests.testing import shop

DAY_US = 86_400_000_000


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_three_virtual_days_take_no_time(store: str, tmp_path: Path) -> None:
    """Goal: a flow that sleeps for three days ends at once, and its own clock has moved by three days."""
    address = store if store == "memory:" else f"sqlite:///{tmp_path / 'w.db'}"
    began = time.monotonic()
    with World(address) as world:
        born = world.clock.wall_us()
        assert world.run(shop.remind, "ann", id="r") == "reminded ann"
        first, last = world.history("r")[0], world.history("r")[-1]
        assert 3 * DAY_US <= last.at - first.at < 3 * DAY_US + 1_000_000
        assert world.clock.wall_us() - born >= 3 * DAY_US
        assert world.audit_all() == []
    assert time.monotonic() - began < 60


def test_one_seed_is_one_run() -> None:
    """Goal: the same seed gives the same history, to the byte; chance drawn by tasks' delays follows it too."""
    program = [["gather", [["sync", 1], ["flaky", 2, 2]], [["sync", 3], ["chance"]]], ["sleep", 60]]

    def bodies(seed: int) -> list[bytes]:
        with World(seed=seed) as world:
            world.run(perform, program, id="r")
            return [f.encode_fact(fact) for fact in world.history("r")]

    assert bodies(5) == bodies(5)
    assert bodies(5) != bodies(6)


def test_what_is_planned_is_said_once_although_its_engine_dies() -> None:
    """Goal: a signal at a time is repeated after a crash that left it without an answer, and counts once."""
    for kind in ("crash_before", "crash_after"):
        with World() as world:
            world.start(perform, [["signal", "go"], ["signal", "go"]], id="r")
            world.signal_at("1h", "r", "go", SIGNAL)
            world.store.fail_next(kind)  # type: ignore[arg-type]
            with pytest.raises(SimulatedCrash):
                world.advance("2h")
            world.advance("2h")
            assert len(world.store.fired) == 1
            assert [type(fact) for fact in world.history("r")] == [f.RunStarted, f.SignalReceived]
            world.signal("r", "go", SIGNAL)
            assert world.result("r") == 10


@pytest.mark.parametrize("kind", ["unavailable", "unknown_lost", "unknown_kept"])
def test_an_outage_is_lived_through(kind: FaultKind) -> None:
    """Goal: each kind of fault at each commit, one at a time: it fires, and the run ends as without."""
    with World() as world:
        assert world.run(shop.tally, 3, id="r") == 12
        commits = world.store.commits
    for commit in range(1, commits + 1):
        with World() as world:
            world.store.fail_at(commit, kind)
            assert world.run(shop.tally, 3, id="r") == 12
            assert [fired.commit for fired in world.store.fired] == [commit]
            assert world.audit_all() == []


def test_a_dead_engine_does_nothing_any_more() -> None:
    """Goal: what ran when the machine died neither goes on nor cleans up, and is made again by the next engine."""
    with World() as world:
        effects.clear()
        world.start(perform, [["stop", 3600]], id="r")
        world.restart()
        world.restart(kill=False)
        assert world.result("r") == 1
        ((key, times),) = [(key, times) for (kind, key), times in effects.items() if kind == "endless"]
        assert key == "r:1:endless#1"
        assert times == 3
        assert world.starts == 3
        assert world.audit_all() == []


def test_a_world_at_rest_says_what_is_waited_for() -> None:
    """Goal: a wait for what never comes is an error that names the run and its wait, not a test that hangs."""
    with World() as world:
        world.start(perform, [["signal", "go"]], id="r")
        with pytest.raises(AtRest, match="run r of perform is waiting, waits for signal 'go'"):
            world.result("r")
        world.run_to_rest()
        world.signal("r", "go", SIGNAL)
        assert world.result("r") == SIGNAL


def test_the_clock_moves_only_when_told_to() -> None:
    """Goal: both clocks advance together, the wall alone can be set, and an engine's clock follows S12."""
    clock = SimulatedClock()
    wall, mono = clock.wall_us(), clock.monotonic()
    assert (clock.wall_us(), clock.monotonic()) == (wall, mono)
    clock.advance("1h")
    assert clock.wall_us() - wall == 3_600_000_000
    assert clock.monotonic() - mono == 3600
    engines = clock.engine_clock(clock.wall_us())
    before = engines.now_us()
    clock.step_wall(-86_400)
    clock.advance("1s")
    assert abs(engines.now_us() - before - 1_000_000) <= 1
