"""Clocks that are wrong: set forward, set back, at 1970, while an engine runs and while it is away (F23, F24, S12)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perdure
from perdure import app
from perdure.authoring.registry import Registry
from perdure.clock import CONFIRM_US, DAY_US, EngineClock, Sighting, up_ns
from perdure.model import fact as f
from perdure.runtime.client import Client
from perdure.runtime.doubt import walls_seen
from perdure.runtime.suspects import Note
from perdure.state.store import EpochRow
from perdure.testing import SimulatedClock, World
from perdure.testing.clock import BORN_US
from tests.simulation.flows import approval, approved_nap, naps, two_steps

HOUR, YEARS = 3_600.0, 10 * 365.25 * 86_400
TO_1970 = -BORN_US / 1e6
# (step of the wall in seconds, how many seconds after it a timer of half an hour is due at the latest)
STEPS = {"+1h": (HOUR, 2), "+10y": (YEARS, 65), "-1h": (-HOUR, 1_800), "1970": (TO_1970, 1_800)}


def _fired(world: World, run: str) -> list[f.TimerFired]:
    return [fact for fact in world.history(run) if isinstance(fact, f.TimerFired)]


def _at(world: World, run: str) -> int:
    """When the run ended, by its own last fact."""
    return world.history(run)[-1].at


def _beside(world: World, run: str, said: str) -> None:
    """Signal from another process, whether or not an engine runs."""
    client = Client(world.store, world.settings, world.clock, Registry([]))  # type: ignore[arg-type]
    world.loop.run_until_complete(client.signal(run, "approval", said))


@pytest.mark.parametrize("restarted", [False, True], ids=["live", "across-a-restart"])
@pytest.mark.parametrize("name", STEPS)
def test_f23_f24_a_timer_fires_once_and_in_time_whatever_the_wall_says(name: str, restarted: bool) -> None:
    """Goal: it is neither frozen nor doubled; facts stay in order of time; a step forward is believed as S12 says."""
    step, latest = STEPS[name]
    with World() as world:
        world.start(naps, 1_800, id="r")
        world.start(naps, 400 * 86_400, 3, id="long")
        world.advance("10s")
        world.clock.step_wall(step)
        if restarted:
            world.restart()  # here the minute passes before any run moves
        began = world.clock.monotonic()
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


@pytest.mark.parametrize("rebooted", [False, True], ids=["same-boot", "rebooted"])
def test_s12_a_week_away_is_known_by_who_saw_the_wall_before_or_after_a_minute(rebooted: bool) -> None:
    """Goal: an engine on a machine that stayed up believes the week at once; on one that was off, a minute later.

    No run moves in that minute, so nothing is stamped with Friday's time on Monday, and S11's order holds.
    """
    with World() as world:
        world.start(approval, 1, id="late")
        world.start(approval, 8, id="early")
        due = world.row("late").wait.due
        world.stop()
        world.clock.advance("7d")
        if rebooted:
            world.clock.reboot()
        for run in ("late", "early"):
            _beside(world, run, "hello")
        back, said = world.clock.monotonic(), world.clock.wall_us()
        world.start(naps, 3_600, id="new")
        assert world.result("late") == "too late"
        assert world.result("early") == "hello"
        (fired,) = _fired(world, "late")
        assert (fired.at, fired.due) == (due, due)
        assert (_at(world, "early"), _at(world, "late")) == (said, due)
        assert world.clock.monotonic() - back == pytest.approx(60 if rebooted else 0, abs=1)
        assert world.result("new") == [3_600]
        assert world.clock.monotonic() - back >= 3_600
        assert world.audit_all() == []


def test_s12_under_a_day_away_is_believed_at_once() -> None:
    """Goal: no minute is lost after a night, even on a machine that was off."""
    with World() as world:
        world.start(naps, 3_600, id="r")
        world.stop()
        world.clock.advance("23h")
        world.clock.reboot()
        back = world.clock.monotonic()
        assert world.result("r") == pytest.approx([3_600], abs=2)
        assert world.clock.monotonic() - back < 1
        assert world.audit_all() == []


@pytest.mark.parametrize("rebooted", [False, True], ids=["same-boot", "rebooted"])
def test_f23_a_bad_answer_at_a_start_that_is_gone_within_the_minute_fires_and_freezes_nothing(rebooted: bool) -> None:
    """Goal: ten years ahead as the engine starts, and right again 50 seconds later: an hour stays an hour."""
    with World() as world:
        world.start(naps, 3_600, 2, id="r")
        world.advance("1m")
        world.stop()
        world.clock.step_wall(YEARS)
        if rebooted:
            world.clock.reboot()
        world.loop.call_later(50, world.clock.step_wall, -YEARS)
        assert world.status("r") == "waiting"  # the engine is there when the minute, or the doubt, is over
        assert world.clock.monotonic() == pytest.approx(1 + 60 + 50, abs=1)
        assert _fired(world, "r") == []
        assert world.result("r") == pytest.approx([3_600, 7_200], abs=2)
        assert world.clock.monotonic() < 7_300
        assert world.engine.clock.now_us() - world.clock.wall_us() < 1_000_000
        assert world.audit_all() == []


def test_s12_a_message_stamped_by_a_bad_wall_neither_fires_nor_freezes_timers() -> None:
    """Goal: a client's word said while the wall is ten years ahead waits until that is known, and is taken with our time."""
    with World() as world:
        world.start(approved_nap, 3_600, id="r")
        world.advance("1m")
        world.clock.step_wall(YEARS)
        world.advance("1s")
        _beside(world, "r", "hello")
        world.advance("30s")
        assert world.status("r") == "waiting"
        assert not any(isinstance(fact, f.SignalReceived) for fact in world.history("r"))
        world.clock.step_wall(-YEARS)
        began = world.clock.monotonic()
        assert world.result("r") == "hello"
        assert world.clock.monotonic() - began == pytest.approx(3_600, abs=3)
        assert world.audit_all() == []


def _shown(machine: SimulatedClock, notes: list[Sighting]) -> bool:
    """Whether an engine of this boot saw what the wall says now, within a day."""
    now = machine.engine_clock(0).sighting()
    drifts = [now.wall_us - note.wall_us - (now.up_us - note.up_us) for note in notes if note.boot == now.boot]
    return any(abs(drift) <= DAY_US for drift in drifts)


steps = st.one_of(
    st.tuples(st.just("pass"), st.integers(0, 3 * 3_600)),
    st.tuples(st.just("step"), st.integers(-400 * 86_400, 400 * 86_400)),
    st.tuples(st.just("restart"), st.integers(0, 3 * 86_400)),
    st.tuples(st.just("reboot"), st.integers(0, 3 * 86_400)),
)


@given(st.lists(steps, max_size=30))
def test_s12_the_engines_clock_never_goes_back_and_never_stands_still(told: list[tuple[str, int]]) -> None:
    """Goal: whatever happens to the wall: strictly increasing, at least as fast as the machine, and slow to believe a day.

    `since` is how long the wall was not touched: only what then showed for a minute may carry the clock over a day, or
    what an engine of this boot saw before, within a day.
    """
    machine = SimulatedClock()
    clock = machine.engine_clock(0)
    last, since, notes = clock.now_us(), 0, [clock.sighting()]
    for what, seconds in told:
        if what == "step":
            machine.step_wall(max(seconds, -machine.wall_ns / 1e9))
            since = 0
        else:
            machine.advance(seconds)
            since += seconds * 1_000_000
        if what == "reboot":
            machine.reboot()
        known = _shown(machine, notes)
        if what in {"restart", "reboot"}:
            earlier = [_epoch(note) for note in notes]
            clock = machine.engine_clock(last, walls_seen(machine.sighting(), last, earlier, places=()))
            notes.append(clock.sighting())
        before, last = last, clock.now_us()
        assert last > before
        passed = seconds * 1_000_000 if what == "pass" else 0
        assert last - before >= passed - 4 * len(told)  # each reading may be one ahead
        assert last - before - passed <= DAY_US + 1 or since >= CONFIRM_US or known
        if what == "reboot":
            assert last - before <= DAY_US + 1
        assert bool(clock.doubt_us()) == (machine.wall_us() - last > DAY_US)
        last = clock.now_us()


def _epoch(seen: Sighting) -> EpochRow:
    note = msgspec.json.encode(Note(seen=seen))
    return EpochRow(epoch=1, node="n", pid=1, started_at=0, clean=True, note=note)


def test_s12_a_jump_seen_a_minute_ago_must_be_the_same_one() -> None:
    """Goal: two days that are honest do not vouch for ten years, nor a bad answer of an hour ago for the next one."""
    machine = SimulatedClock()
    clock = machine.engine_clock(machine.wall_us())
    machine.step_wall(2 * 86_400)
    assert clock.doubt_us()
    machine.advance("59s")
    machine.step_wall(YEARS)
    machine.advance("2s")
    assert clock.doubt_us() > 9 * 365 * DAY_US
    machine.step_wall(-YEARS - 2 * 86_400)
    assert not clock.doubt_us()
    machine.advance("1h")
    machine.step_wall(YEARS)
    assert clock.doubt_us()
    machine.advance("60s")
    assert not clock.doubt_us()


def test_s12_a_crash_loop_comes_to_believe_the_wall() -> None:
    """Goal: engines that die within the minute, one after the other, do not keep the next from knowing the time."""
    machine = SimulatedClock()
    persisted = machine.wall_us()
    machine.advance("7d")
    machine.reboot()
    earlier: list[EpochRow] = []
    for _ in range(3):
        doubted = machine.engine_clock(
            persisted, walls_seen(machine.sighting(), persisted, earlier, places=())
        ).doubt_us()
        earlier.append(_epoch(machine.sighting()))
        machine.advance("40s")
    assert not doubted


@pytest.mark.parametrize("ago_s, left_s", [(3_600, 0), (45, 15), (90_000, 60), (-10, 60)])
def test_s12_a_file_that_changed_today_vouches_for_the_wall(ago_s: float, left_s: float, tmp_path: Path) -> None:
    """Goal: one that changed within the day and a minute ago does at once, a younger one sooner, an older one not."""
    (tmp_path / "file").write_text("x")
    changed = (tmp_path / "file").stat().st_ctime_ns
    machine = SimulatedClock(born_us=(changed + round(ago_s * 1e9)) // 1000)
    persisted = machine.wall_us() - 7 * DAY_US
    clock = machine.engine_clock(
        persisted, walls_seen(machine.sighting(), persisted, [], places=[str(tmp_path), "/no/such"])
    )
    assert bool(clock.doubt_us()) == (left_s > 0)
    if left_s:
        machine.advance_ns(round((left_s - 0.5) * 1e9))
        assert clock.doubt_us()
        machine.advance("1s")
        assert not clock.doubt_us()


def test_s12_a_sighting_tells_this_machines_start() -> None:
    """Goal: two looks at the real machine agree on its start, and the time it is up goes on with the wall."""
    first, then = EngineClock().sighting(), EngineClock().sighting()
    assert first.boot == then.boot
    assert 0 <= then.up_us - first.up_us <= then.wall_us - first.wall_us + 1_000_000


class _AWeekAgo(EngineClock):
    """This machine's clock of a week ago."""

    def __init__(self, persisted_us: int = 0, *, seen: Iterable[int] = ()) -> None:
        week_ns = 7 * DAY_US * 1000
        super().__init__(
            persisted_us, lambda: time.time_ns() - week_ns, time.monotonic_ns, lambda: up_ns() - week_ns, seen=seen
        )


async def test_s12_a_real_engine_knows_a_week_that_this_machine_stayed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: notes of engines are kept and read by those that users open: there is no minute to wait for."""
    address = f"sqlite:///{tmp_path}/week.db"
    with monkeypatch.context() as then:
        then.setattr(app, "EngineClock", _AWeekAgo)
        async with perdure.open(address, workflows=[naps]) as engine:
            await engine.start(naps, 86_400, id="r")
    async with asyncio.timeout(30), perdure.open(address, workflows=[naps]) as engine:
        assert await engine.result("r", timeout=10) == [86_400]
        assert (await engine.verify("r")).ok
