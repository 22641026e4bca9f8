"""Clocks that are wrong: set forward, set back, at 1970, while an engine runs and while it is away (F23, F24, S12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.clock import CONFIRM_US, DAY_US
from perdure.model import fact as f
from perdure.testing import SimulatedClock, World
from perdure.testing.clock import BORN_US
from tests.simulation.flows import naps, two_steps

HOUR, YEARS = 3_600.0, 10 * 365.25 * 86_400
TO_1970 = -BORN_US / 1e6
# (step of the wall in seconds, how many seconds after it a timer of half an hour is due at the latest)
STEPS = {"+1h": (HOUR, 2), "+10y": (YEARS, 65), "-1h": (-HOUR, 1_800), "1970": (TO_1970, 1_800)}


def _fired(world: World, run: str) -> list[f.TimerFired]:
    return [fact for fact in world.history(run) if isinstance(fact, f.TimerFired)]


@pytest.mark.parametrize("restarted", [False, True], ids=["live", "across-a-restart"])
@pytest.mark.parametrize("name", STEPS)
def test_f23_f24_a_timer_fires_once_and_in_time_whatever_the_wall_says(name: str, restarted: bool) -> None:
    """Goal: it is neither frozen nor doubled; facts stay in order of time; a step forward is believed as S12 says."""
    step, latest = STEPS[name]
    with World() as world:
        world.start(naps, 1_800, id="r")
        world.start(naps, 400 * 86_400, 3, id="long")
        world.advance("10s")
        began = world.clock.monotonic()
        world.clock.step_wall(step)
        if restarted:
            world.restart()
        world.advance("1s")
        world.advance(latest)
        assert world.status("r") == "completed"
        (fired,) = _fired(world, "r")
        assert fired.at >= fired.due
        ended = world.row("r").ended_at
        assert ended is not None
        assert world.clock.monotonic() - began <= latest + 2
        assert len(_fired(world, "long")) == (3 if name == "+10y" else 0)
        assert world.run(two_steps, 3) == 6
        times = [fact.at for fact in world.history("r")]
        assert times == sorted(times)
        assert world.audit_all() == []


@pytest.mark.parametrize("name", ["-1h", "1970"])
def test_f24_a_clock_set_back_neither_stops_nor_shortens_time(name: str) -> None:
    """Goal: an hour is an hour of the machine's own time, through stops and kills, before and after."""
    with World() as world:
        world.start(naps, 3_600, 3, id="r")
        world.advance("30m")
        world.clock.step_wall(STEPS[name][0])
        began = world.clock.monotonic()
        world.restart(kill=False)
        world.advance("29m")
        assert len(_fired(world, "r")) == 0
        world.advance("2m")
        assert len(_fired(world, "r")) == 1
        world.restart()  # what passed since the last commit is lost with the engine
        assert world.result("r") == pytest.approx([3_600, 7_200, 10_800], abs=2)
        assert world.clock.monotonic() - began == pytest.approx(9_000 + 60, abs=2)
        assert world.audit_all() == []


def test_s12_one_bad_answer_of_ten_years_is_not_believed() -> None:
    """Goal: the wall jumps by ten years and is right again within the minute: nothing is due, nothing is frozen."""
    with World() as world:
        world.start(naps, 3_600, 2, id="r")
        world.advance("1m")
        world.clock.step_wall(YEARS)
        world.run(two_steps, 1)
        world.advance("50s")
        assert _fired(world, "r") == []
        world.clock.step_wall(-YEARS)
        assert world.result("r") == pytest.approx([3_600, 7_200], abs=2)
        assert world.clock.monotonic() < 7_300
        assert world.audit_all() == []


def test_s12_a_jump_that_was_believed_wrongly_freezes_nothing() -> None:
    """Goal: ten years ahead of a wall that is right again, hours still take an hour; also for the next engine."""
    with World() as world:
        world.clock.step_wall(YEARS)
        world.run(two_steps, 1)
        world.clock.step_wall(-YEARS)
        ahead = world.engine.clock.now_us() - world.clock.wall_us()
        assert ahead > 9 * 365 * DAY_US
        began = world.clock.monotonic()
        world.start(naps, 3_600, 2, id="r")
        for _ in range(90):
            world.advance("1m")
        world.restart()
        assert world.result("r") == pytest.approx([3_600, 7_200], abs=2)
        assert 7_200 <= world.clock.monotonic() - began < 7_200 + 65
        assert world.audit_all() == []


def test_s12_time_passes_while_nothing_runs() -> None:
    """Goal: an engine that was away for a week finds due what fell due meanwhile, with the time at which it was due."""
    with World() as world:
        world.start(naps, 86_400, id="r")
        due = world.row("r").wait.due
        world.restart(away="7d")
        world.run_to_rest()
        (fired,) = _fired(world, "r")
        assert (fired.at, fired.due) == (due, due)
        assert world.audit_all() == []


steps = st.one_of(
    st.tuples(st.just("pass"), st.integers(0, 3 * 3_600)),
    st.tuples(st.just("step"), st.integers(-400 * 86_400, 400 * 86_400)),
    st.tuples(st.just("restart"), st.integers(0, 3 * 86_400)),
)


@given(st.lists(steps, max_size=30))
def test_s12_the_engines_clock_never_goes_back_and_never_stands_still(told: list[tuple[str, int]]) -> None:
    """Goal: whatever happens to the wall: strictly increasing, at least as fast as the machine, and slow to believe a day."""
    machine = SimulatedClock()
    clock = machine.engine_clock(0)
    last, unconfirmed = clock.now_us(), 0
    for what, seconds in told:
        if what == "pass":
            machine.advance(seconds)
        elif what == "step":
            machine.step_wall(max(seconds, -machine.wall_ns / 1e9))
        else:
            machine.advance(seconds)
            clock = machine.engine_clock(last)
        before = last
        last = clock.now_us()
        assert last > before
        if what == "pass":
            assert last - before >= seconds * 1_000_000 - len(told)  # each reading may be one ahead
            unconfirmed += seconds * 1_000_000
            jumped = last - before - seconds * 1_000_000
            assert jumped <= DAY_US or unconfirmed >= CONFIRM_US
        elif what == "step":
            assert last - before <= DAY_US + 1 or unconfirmed >= CONFIRM_US
        else:
            unconfirmed = 0
