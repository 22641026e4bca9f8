"""The node between its store and its callers: nothing is told before it is true, lost on the way, or kept for ever."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Retry, RunFailed, task, wait_signal, workflow
from perdure.errors import IdInUse, StoreError, StoreUnavailable
from perdure.kernel.decider import Trouble
from perdure.model import message as m
from perdure.state.store import Batch
from perdure.testing import World
from perdure.testing.faults import SimulatedCrash
from tests.runtime import elsewhere


@task
async def echo(value: int) -> int:
    return value


@task
async def long_text(size: int) -> str:
    return "x" * size


@workflow
async def listens(count: int) -> list[int]:
    return [await wait_signal("go", int) for _ in range(count)]


@workflow
async def gives_much(size: int) -> str:
    await wait_signal("go", int)
    return await long_text(size)


@workflow
async def asks_a_child(size: int) -> int:
    return len(await gives_much(size))


MENDED = threading.Event()


@task(retry=Retry(attempts=1))
async def fails_until_mended(value: int) -> int:
    if not MENDED.is_set():
        raise ValueError("not yet")
    return value


@workflow
async def fails_at_first(value: int) -> int:
    await wait_signal("go", int)
    return await fails_until_mended(value)


def told(world: World, message: Any) -> None:
    """Another process writes a message to the inbox."""
    batch = Batch()
    batch.inbox.append(message)
    world.store.inner.commit(batch)
    world.store._posted = True


# --- what is told is true ---------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory:", "sqlite:///r.db"])
def test_a_signal_beside_a_start_that_is_refused_reaches_the_run_that_has_the_id(store: str) -> None:
    """Goal: a start under an id in use is refused; a signal folded in the same batch is not lost with it."""

    async def scenario(world: World) -> Any:
        engine = world.engine
        again, _ = await asyncio.gather(
            engine.start(listens, 2, id="r"), engine.signal("r", "go", 7), return_exceptions=True
        )
        assert isinstance(again, IdInUse)
        return await engine.result("r", "1h")

    with World(store, serve=[listens], runs_resident_max=0) as world:
        world.start(listens, 1, id="r")
        world.run_to_rest()
        assert "r" not in world.engine.node.advance.runs
        assert world.play(scenario(world)) == [7]
        assert world.audit_all() == []


def test_two_starts_at_once_under_an_id_in_use_are_both_refused() -> None:
    """Goal: the second is not told the first one's id before that is known to be its own."""

    async def scenario(world: World) -> list[Any]:
        starts = (world.engine.start(listens, 2, id="r") for _ in range(2))
        return await asyncio.gather(*starts, return_exceptions=True)

    with World("memory:", serve=[listens], runs_resident_max=0) as world:
        world.start(listens, 1, id="r")
        world.run_to_rest()
        assert [type(answer) for answer in world.play(scenario(world))] == [IdInUse, IdInUse]


# --- nothing is lost on the way -----------------------------------------------------------------------


def test_callers_that_wait_for_room_go_on_though_nothing_was_committed() -> None:
    """Goal: with room for one message, a signal that was said before is answered, however often it is said at once."""

    async def scenario(world: World) -> None:
        said = (world.engine.signal("r", "go", 1, request_id="once") for _ in range(2_000))
        await asyncio.gather(*said)

    with World("memory:", serve=[listens], queue_max=16) as world:
        world.start(listens, 1, id="r")
        world.signal("r", "go", 1, request_id="once")
        assert world.result("r") == [1]
        world.play(scenario(world))


@pytest.mark.parametrize("way", ["retry", "fork"])
def test_a_way_back_that_meets_a_store_in_need_is_gone_when_it_can(way: str) -> None:
    """Goal: a message of another process is not taken off the inbox, refused, because a read failed once."""
    failed: list[str] = []

    def meets_trouble(world: World) -> None:
        load = world.store.inner.load

        async def once(ids: Any, *, whole: bool = False, snapshot: bool = False) -> Any:
            if whole and not failed:
                failed.append(way)
                raise StoreUnavailable("simulated: it cannot be read now")
            return await load(ids, whole=whole, snapshot=snapshot)

        world.store.load = once  # type: ignore[attr-defined]

    with World("memory:", serve=[fails_at_first]) as world:
        world.start(fails_at_first, 5, id="r")
        MENDED.clear()
        if way == "retry":
            world.signal("r", "go", 0)
            with pytest.raises(RunFailed):
                world.result("r")
        MENDED.set()
        meets_trouble(world)
        if way == "fork":
            told(world, m.Fork(run="s", origin="r", upto=1, request="f-1"))
            world.advance(5)
            world.signal("s", "go", 1)
            assert world.result("s") == 5
        else:
            told(world, m.Retry(run="r", by="ann", why="again", request="r-1"))
            world.advance(5)
            assert world.result("r") == 5
        assert failed == [way]
        assert world.audit_all() == []


# --- one run's damage is its own --------------------------------------------------------------------------


async def ended(world: World, run: str) -> None:
    await world.engine.signal(run, "go", 1)
    await world.engine.result(run)


def test_a_childs_result_that_is_lost_stops_its_parent_alone() -> None:
    """Goal: of a store in which one value is missing everything else is served (F15)."""
    with World("memory:", serve=[asks_a_child, gives_much, listens], blob_min=1_024, runs_resident_max=0) as world:
        world.start(asks_a_child, 5_000, id="p")
        world.start(listens, 1, id="other")
        world.run_to_rest()
        child = world.row("p").wait.children[0]
        world.store.fail_at(world.store.commits + 2, "crash_after")  # that of the child's end
        with pytest.raises(SimulatedCrash):
            world.play(ended(world, child))
        world.store.inner._blobs.clear()
        world.restart()
        world.advance(5)
        assert world.status("p") == "attention"
        world.signal("other", "go", 3)
        assert world.result("other") == [3]


def test_a_damaged_run_that_is_ended_by_force_stops_nobody_else() -> None:
    """Goal: a person who ends a run whose facts were altered is told, and the engine goes on (F15)."""
    with World("memory:", serve=[listens]) as world:
        world.start(listens, 2, id="r")
        world.start(listens, 1, id="other")
        world.signal("r", "go", 1)
        facts = world.store.inner._runs["r"].facts
        seq, _, digest = facts[1]
        facts[1] = (seq, b"[", digest)
        with pytest.raises(StoreError):
            world.cancel("r", force=True)
        world.signal("other", "go", 3)
        assert world.result("other") == [3]


def test_a_run_that_is_set_aside_while_it_is_loaded_needs_attention_once(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: the audit's word and a load that is under way write no fact twice, and a neighbour pays for neither."""

    async def scenario(world: World, ahead: int) -> None:
        engine = world.engine
        first = asyncio.create_task(engine.signal("r", "go", 1))
        for _ in range(ahead):
            await asyncio.sleep(0)  # durable: so far as the load has come
        await engine.loader.aside.quarantine("r", Trouble("damaged", "as the audit found"), [])
        await first
        await engine.signal("other", "go", 3)

    for ahead in range(8):
        with World("memory:", serve=[listens], runs_resident_max=0) as world:
            world.start(listens, 2, id="r")
            world.start(listens, 1, id="other")
            world.run_to_rest()
            world.play(scenario(world, ahead))
            assert world.result("other") == [3]
            world.run_to_rest()
            tags = [type(fact).__name__ for fact in world.history("r")]
            assert (ahead, tags.count("AttentionSet"), world.status("r")) == (ahead, 1, "attention")
    assert "refused by the store" not in caplog.text


# --- nothing is kept for ever ------------------------------------------------------------------------------


@workflow
async def steps_within_a_day(count: int) -> int:
    async with asyncio.timeout(86_400):
        for number in range(count):
            await echo(number)
        return await wait_signal("go", int)


def test_a_runs_far_timer_is_noted_once() -> None:
    """Goal: thousands of steps before one deadline leave no note each of when the run is due."""
    with World("memory:", serve=[steps_within_a_day]) as world:
        world.start(steps_within_a_day, 5_000, id="r")
        world.advance(5)
        assert world.row("r").wait.open == 0
        assert len(world.engine.node.dues.times) < 2_500


@task(deadline="1d", retry=Retry(first="1ms"))
async def due_tomorrow() -> None:
    """It has another time left whenever it is made."""
    if perdure.attempt() == 1:
        raise ValueError("once more")


@workflow
async def all_due_tomorrow(count: int) -> int:
    for _ in range(count):
        await due_tomorrow()
    return await wait_signal("go", int)


def test_a_steps_far_deadline_is_forgotten_with_the_step() -> None:
    """Goal: thousands of steps that ended a day before their deadline leave no clock, nor themselves, in memory."""
    with World("memory:", serve=[all_due_tomorrow]) as world:
        world.start(all_due_tomorrow, 5_000, id="r")
        world.advance(60)
        assert world.row("r").wait.open == 0
        assert len(world.engine.node.pools.expiries.entries) < 2_500


# --- stopping -----------------------------------------------------------------------------------------------


GATE = threading.Event()
BEGUN: list[int] = []


@task(pool="thread")
def waits_at_the_gate(number: int) -> None:
    BEGUN.append(number)
    GATE.wait(20)


@workflow
async def many_at_the_gate(count: int) -> None:
    await asyncio.gather(*(waits_at_the_gate(number) for number in range(count)))


async def test_nothing_begins_while_the_engine_stops() -> None:
    """Goal: sync attempts that were handed to threads, and have not begun, do not begin in the grace of those that run."""
    GATE.clear()
    BEGUN.clear()
    async with perdure.open("memory:", workflows=[many_at_the_gate], threads_max=1, stop_grace_s=5) as engine:
        await engine.start(many_at_the_gate, 20, id="r")
        while not BEGUN:  # noqa: ASYNC110 - a thread tells no event of the loop's
            await asyncio.sleep(0)  # durable: until the first has begun
        asyncio.get_running_loop().call_later(0.05, GATE.set)
    assert BEGUN == [0]


# --- the sweep ------------------------------------------------------------------------------------------------


@workflow
async def naps(seconds: float) -> str:
    await asyncio.sleep(seconds)  # durable
    return "rested"


def test_a_sleeper_behind_many_that_are_not_served_wakes() -> None:
    """Goal: five hundred runs that are due, and that this engine does not serve, hide nobody who is due after them."""

    async def starts(world: World) -> None:
        for number in range(600):
            await world.engine.start(elsewhere.naps_elsewhere, 60, id=f"e-{number}")
        await world.engine.start(naps, 120, id="r")

    with World("memory:", serve=[naps, elsewhere.naps_elsewhere]) as world:
        world.play(starts(world))
        world.restart(kill=False, serve=[naps])
        world.advance("10m")
        assert world.status("r") == "completed"
        assert {world.status(f"e-{number}") for number in range(600)} == {"waiting"}


def test_a_sweep_that_meets_what_nobody_foresaw_goes_on() -> None:
    """Goal: an error that is no store error ends no sweep: clients are heard, and sleepers wake, after it."""
    met: list[int] = []

    with World("memory:", serve=[listens], runs_resident_max=0) as world:
        world.start(listens, 1, id="r")
        inbox = world.store.inner.inbox

        async def once(after: int, limit: int, shards: Any = None) -> Any:
            if not met:
                met.append(after)
                raise ValueError("what a later version wrote")
            return await inbox(after, limit, shards)

        world.store.inbox = once  # type: ignore[attr-defined]
        told(world, m.Signal(run="r", name="go", value=msgspec.Raw(b"4"), request="s-1"))
        world.advance(5)
        assert met
        assert world.result("r") == [4]


def test_a_batch_that_cannot_be_written_for_an_unforeseen_reason_blames_one_run() -> None:
    """Goal: nothing of a batch is lost by an error that the store does not name; the run at fault is set aside alone."""

    def refuse(batch: Batch) -> None:
        if any(ref.id == "bad" for ref, *_ in batch.facts) and not any(
            b'"not_recorded"' in row[2] for row in batch.facts
        ):
            raise OverflowError("int too large")

    async def scenario(world: World) -> list[Any]:
        world.store.refuse = refuse
        said = (world.engine.signal(id, "go", 1) for id in ("one", "bad", "two"))
        return await asyncio.gather(*said)

    with World("memory:", serve=[listens]) as world:
        for id in ("one", "bad", "two"):
            world.start(listens, 1, id=id)
        world.play(scenario(world))
        assert (world.result("one"), world.result("two")) == ([1], [1])
        assert world.status("bad") == "attention"
        assert world.audit_all() == []


@pytest.mark.parametrize("flight", [0, 1], ids=["on the loop", "in flight"])
def test_what_follows_from_a_commit_and_fails_costs_no_run_anything(flight: float, caplog: Any) -> None:
    """Goal: an unforeseen error between a commit and its attempts: callers are told, every run goes on, none is blamed."""
    broken: list[Any] = []
    with World("memory:", serve=[fails_at_first, gives_much]) as world:
        world.start(gives_much, 3, id="one")
        world.store.flight = lambda: flight
        begin = world.engine.node.pools.begin

        def begins(attempts: Any) -> None:
            if len(broken) < 3:
                broken.append(attempts)
                raise RuntimeError("unforeseen")
            begin(attempts)

        world.engine.node.pools.begin = begins  # type: ignore[method-assign]
        MENDED.set()
        world.start(fails_at_first, 7, id="two")
        world.signal("one", "go", 1)
        world.signal("two", "go", 1)
        world.run_to_rest()
        assert len(broken) == 3
        assert (world.result("one"), world.result("two")) == ("xxx", 7)
        assert world.audit_all() == []
    assert "what follows from a commit was not done" in caplog.text


@task
async def lasts() -> None:
    await asyncio.Event().wait()


@workflow
async def lasts_for_ever() -> None:
    await lasts()


async def test_a_client_is_heard_while_many_runs_are_recovered() -> None:
    """Goal: with thousands of runs to be loaded after a start, what a client asks is done before they are (S15)."""
    address, many = "sqlite:///many.db", 4_000
    async with perdure.open(address, [lasts_for_ever], stop_grace_s=0) as engine:
        await asyncio.gather(*(engine.start(lasts_for_ever) for _ in range(many)))
    async with (
        perdure.open(address, [lasts_for_ever, listens], stop_grace_s=0, audit_open=False) as engine,
        perdure.connect(address, [listens]) as client,
    ):
        run = await client.start(listens, 0, id="r")
        await run.result("60s")
        assert engine.sweep.recovering
        while len(engine.node.advance.runs) < many:  # noqa: ASYNC110 - a load tells nobody
            await asyncio.sleep(0)  # durable: until all are there
        assert not engine.loader.wanted
