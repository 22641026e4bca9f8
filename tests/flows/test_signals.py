"""Signals: typed, kept before the wait, each consumed once and in order, across crashes and generations (F44 to F47)."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from perdure import PerdureError, RunFailed
from perdure.errors import UnknownRun, WrongState
from perdure.model import fact as f
from perdure.runtime.desk import Handle
from perdure.testing import World
from tests.flows import talking as flows
from tests.flows.ways import Case, crashes, evicted, live


def _notes(world: World, run: str) -> list[bytes]:
    return [bytes(fact.value) for fact in world.history(run) if isinstance(fact, f.SignalReceived)]


@pytest.mark.parametrize("times", [1, 2, 100])
def test_f44_a_signal_said_again_counts_once(times: int) -> None:
    """Goal: one request id is one signal: at once, together, after a restart, and hours later."""
    with World("memory:") as world:
        world.start(flows.collects, 2, id="r")

        async def together() -> None:
            said = (world.engine.signal("r", "note", 1, request_id="hook-1") for _ in range(times))
            await asyncio.gather(*said)

        for _ in range(3):
            world.play(together())
            world.restart(away="5h")
        assert _notes(world, "r") == [b"1"]
        world.signal("r", "note", 2, request_id="hook-2")
        assert world.result("r") == [1, 2]
        world.signal("r", "note", 1, request_id="hook-1")
        assert world.audit_all() == []


@pytest.mark.parametrize("seed", range(10))
def test_f45_signals_are_consumed_in_the_order_of_their_arrival(seed: int) -> None:
    """Goal: whatever order they come in, that is the order in the history, for the flow, and on every replay."""
    order = random.Random(seed).sample(range(12), 12)
    with World("memory:", seed) as world:
        world.start(flows.collects, 12, id="r")
        for number in order:
            world.signal("r", "note", number)
            if number % 5 == 0:
                world.restart()
        assert world.result("r") == order
        assert [int(value) for value in _notes(world, "r")] == order
        assert world.audit_all() == []


def _at(second: float) -> Any:
    def script(world: World, handle: Handle) -> None:
        world.signal_at(second, handle, "go", 7)

    return script


@pytest.mark.simulation
@pytest.mark.parametrize("second", [0, 5, 10, 10.000001, 15, 20, 25, 30, 30.000001, 31, 40])
def test_f46_a_signal_between_the_check_and_the_wait_is_not_lost(second: float) -> None:
    """Goal: before, between, with and behind each of the steps, and with a death beside each commit."""
    case = Case(flows.checks_then_waits, (3,), _at(second))
    seen, commits = live(case)
    assert seen.outcome == "result [7,3]"
    for other in crashes(case, commits):
        assert other == seen


def test_f47_a_signal_to_no_run_or_an_ended_one_is_an_error() -> None:
    """Goal: the sender is told, and nothing is kept for a run that may never be."""
    with World("memory:", serve=[flows.collects]) as world:
        with pytest.raises(UnknownRun, match="no-such"):
            world.signal("no-such", "note", 1)
        world.start(flows.collects, 1, id="r")
        world.signal("r", "note", 1)
        assert world.result("r") == [1]
        with pytest.raises(WrongState, match="has ended"):
            world.signal("r", "note", 2)
        with pytest.raises(PerdureError, match="1 to 200 characters"):
            world.signal("r", "", 2)
        assert _notes(world, "r") == [b"1"]


def test_a_signal_is_seen_as_its_type() -> None:
    """Goal: the flow sees the type that it waits for, live and out of memory (S8)."""

    def script(world: World, handle: Handle) -> None:
        world.signal_at("1d", handle, "approval", {"by": "ann", "ok": True})

    case = Case(flows.approves, (), script)
    seen, commits = live(case)
    assert seen.outcome == 'result "Approval ann True"'
    assert evicted(case) == (seen, 1)
    assert all(other == seen for other in crashes(case, commits))


def test_a_signal_of_another_type_reaches_the_flow_as_an_error() -> None:
    """Goal: a value that does not fit is told where it is awaited, naming the signal, and nowhere else."""
    with World("memory:") as world:
        world.start(flows.approves, id="r")
        world.signal("r", "approval", {"by": 5})
        with pytest.raises(RunFailed, match="signal 'approval'"):
            world.result("r")
        assert world.audit_all() == []


@pytest.mark.parametrize("order", list(itertools.permutations("aaaabb"))[::60])
def test_each_signal_is_consumed_once_by_whoever_waits_longest(order: tuple[str, ...]) -> None:
    """Goal: three waiters share two names; every signal reaches exactly one of them."""
    with World("memory:") as world:
        world.start(flows.two_waiters, id="r")
        for number, name in enumerate(order):
            world.signal("r", name, number)
            world.restart()
        found = world.result("r")
        assert sorted(itertools.chain(*found)) == list(range(6))
        assert found[1] == [number for number, name in enumerate(order) if name == "b"]
        assert found[0] == [number for number, name in enumerate(order) if name == "a"][0::2]
        assert world.audit_all() == []


def test_waits_that_timed_out_leave_nothing_behind() -> None:
    """Goal: a thousand waits in vain neither swallow the signal that comes then nor stay in memory."""

    def script(world: World, handle: Handle) -> None:
        world.signal_at(9_995, handle, "late", 5)

    with World("memory:") as world:
        handle = world.start(flows.asks_often, 2_000, id="r")
        script(world, handle)
        world.advance(9_000)
        signals = world.engine.node.advance.runs["r"].decider._signals  # type: ignore[attr-defined]
        assert sum(len(waiters) for waiters in signals._waiters.values()) == 1
        assert world.result(handle) == 999_005
        assert world.audit_all() == []


@pytest.mark.simulation
def test_a_flow_signals_another_exactly_once() -> None:
    """Goal: what a flow sends arrives once and in order, whatever commit the machine dies beside."""
    with World("memory:") as world:
        world.start(flows.receives, id="to")
        world.run(flows.sends, "to", id="from")
        assert world.result("to") == [7, 8]
        commits = world.store.commits
    fired = 0
    for commit in range(2, commits + 1):
        for kind in ("crash_before", "crash_after"):
            with World("memory:", serve=[flows.receives, flows.sends]) as world:
                world.store.fail_at(commit, kind)  # type: ignore[arg-type]
                _through(world)
                fired += len(world.store.fired)
                assert _notes(world, "to") == [b"7", b"8"]
                assert world.audit_all() == []
    assert fired >= 2 * (commits - 1)


def _through(world: World) -> None:
    for act in (
        lambda: world.start(flows.receives, id="to"),
        lambda: world.start(flows.sends, "to", id="from"),
        lambda: world.result("from"),
        lambda: world.result("to"),
    ):
        while True:
            try:
                act()
                break
            except SystemExit:
                continue


@pytest.mark.simulation
def test_what_was_not_consumed_goes_over_to_the_next_generation() -> None:
    """Goal: signals, variables and tags are carried by continue_as_new in the same commit (S20)."""

    def script(world: World, handle: Handle) -> None:
        for number in range(3):
            world.signal_at(1 + number, handle, "note", f"n{number}")

    case = Case(flows.carries, (3, []), script)
    seen, commits = live(case)
    assert seen.outcome == 'result ["n0","n1","n2","3"]'
    assert all(other == seen for other in crashes(case, commits))
    assert evicted(case)[0] == seen
    with World("memory:") as world:
        handle = world.start(flows.carries, 3, [], id="r", tags={"region": "eu"})
        script(world, handle)
        world.result(handle)
        row = world.row(handle)
        assert (row.generation, row.tags) == (4, {"region": "eu"})
        assert [fact.seq for fact in world.play(world.engine.state("r")).history] == list(range(1, row.seq + 1))
