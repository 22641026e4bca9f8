"""Turns, digests, scopes, dropped coroutines, decoded values: the named cases of S1, S3, S5, S6, S7 and S8."""

from __future__ import annotations

import asyncio
import importlib
import logging
import platform
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import perdure
from perdure import NeedsAttention, task, variables, wait_signal, workflow
from perdure.kernel.audit_report import AuditReport
from perdure.model import fact as f
from perdure.runtime.desk import Handle
from perdure.testing import World
from tests.flows.mutants import made
from tests.flows.tasks import DONE, double, thrice
from tests.flows.ways import Case, crashes, evicted, live


@pytest.fixture(autouse=True)
def _nothing_done() -> Iterator[None]:
    DONE.clear()
    yield
    DONE.clear()


# --- S1: one fact, one turn -----------------------------------------------------------------------


@task
async def at_once(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)  # work
    return name


@workflow
async def counts_what_is_done() -> list[int]:
    """How many are done whenever the first of those that are left is."""
    left: set[Any] = {at_once(f"step {number}", 5) for number in range(4)}
    left |= {asyncio.create_task(asyncio.sleep(5)) for _ in range(3)}  # durable
    seen = []
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        seen.append(len(done))
    return seen


def test_s1_what_ends_together_is_seen_one_by_one() -> None:
    """Goal: four outcomes in one batch and three timers due together are seven turns, live and whenever it is replayed."""
    case = Case(counts_what_is_done)
    wanted, commits = live(case)
    assert wanted.outcome == "result [1,1,1,1,1,1,1]"
    assert all(other.outcome == wanted.outcome for other in crashes(case, commits))
    with World("memory:") as world:
        world.start(counts_what_is_done, id="r")
        before = world.store.commits
        world.result("r")
        ends = [fact for fact in world.history("r") if isinstance(fact, f.StepCompleted | f.TimerFired)]
        assert len(ends) == 7
        assert world.store.commits - before < 7, "some of them were folded in one batch"


# --- S3: the digest at the frontier ---------------------------------------------------------------

IN_FLIGHT = """
async def good(n: int) -> list[str]:
    first = await echo("first")
    return [first, *await asyncio.gather(at_once("a", 1000), at_once("b", 1000))]
"""


@pytest.mark.parametrize(
    "old, new",
    [
        ('at_once("a", 1000), at_once("b", 1000)', 'echo("a"), at_once("b", 1000)'),
        ('at_once("a", 1000), at_once("b", 1000)', 'at_once("b", 1000)'),
        ('at_once("a", 1000), at_once("b", 1000)', 'at_once("a", 1000), at_once("b", 999)'),
        ('at_once("a", 1000), at_once("b", 1000)', 'at_once("b", 1000), at_once("a", 1000)'),
    ],
    ids=["renamed", "removed", "another argument", "exchanged"],
)
def test_s3_a_changed_step_in_flight_is_found_though_no_fact_of_it_exists(old: str, new: str) -> None:
    """Goal: a deploy over a step that is being made is told at the load, before the step is made under another name."""
    assert old in IN_FLIGHT
    good = made(IN_FLIGHT, at_once=at_once)
    with World("memory:", serve=[good]) as world:
        world.start(good, 1, id="r")
        world.advance(10)
        assert [type(fact) for fact in world.history("r")] == [f.RunStarted, f.StepCompleted]
        DONE.clear()
        world.restart(serve=[made(IN_FLIGHT.replace(old, new), at_once=at_once)])
        with pytest.raises(NeedsAttention, match="in flight"):
            world.result("r")
        assert DONE == []
        world.restart(serve=[good])
        assert world.result("r") == ["first", "a", "b"]
        assert world.audit_all() == []


def test_s3_an_outcome_carries_the_turn_that_asked_for_it() -> None:
    """Goal: each outcome names the fact in whose turn its step was asked for; one moved ahead of its cause is found."""
    with World("memory:") as world:
        world.run(good_order, 1, id="r")
        asked = {fact.key: fact.asked_seq for fact in world.history("r") if isinstance(fact, f.StepCompleted)}
        assert asked == {"double#1": 1, "double#2": 1, "thrice#1": 3}


@workflow
async def good_order(value: int) -> int:
    left, right = await asyncio.gather(double(value), double(value))
    return await thrice(left + right)


# --- S5: sets, and what cannot be ordered ---------------------------------------------------------


@workflow
async def completes_bare_coroutines() -> list[int]:
    async def one(value: int) -> int:
        return await double(value)

    return [await first for first in asyncio.as_completed([one(1), one(2)])]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_s5_as_completed_of_bare_coroutines_is_refused_with_the_remedy() -> None:
    """Goal: its order would be that of a set of coroutines, which nothing can repeat; the error shows what to write."""
    with World("memory:") as world, pytest.raises(NeedsAttention, match=r"create_task\(c\) for c in"):
        world.run(completes_bare_coroutines)


# --- S6: scopes -----------------------------------------------------------------------------------


@workflow
async def wakes_in_another_order(swapped: bool) -> list[int]:
    async def part(seconds: int, value: int) -> int:
        await asyncio.sleep(seconds)  # durable
        found = await double(value)
        return await asyncio.wait_for(double(found), 60)

    first, second = (20, 10) if swapped else (10, 20)
    return list(await asyncio.gather(part(first, 1), part(second, 2)))


def test_s6_the_order_of_waking_changes_no_key() -> None:
    """Goal: a step is known by its task of the flow and its ordinal there, whichever task wakes first."""
    with World("memory:") as world:
        keys = []
        for swapped in (False, True):
            world.run(wakes_in_another_order, swapped, id=f"r{swapped}")
            history = world.history(f"r{swapped}")
            keys.append([fact.key for fact in history if isinstance(fact, f.StepCompleted)])
        assert keys[0] != keys[1]
        assert sorted(keys[0]) == sorted(keys[1])
        assert all(key.startswith(("1.", "2.")) for key in keys[0])


def test_s6_the_first_fact_tells_which_python_and_perdure() -> None:
    """Goal: who looks into a replay that differs knows what it was made with."""
    with World("memory:") as world:
        world.run(good_order, 1, id="r")
        started = world.history("r")[0]
        assert isinstance(started, f.RunStarted)
        assert (started.python, started.perdure) == (platform.python_version(), perdure.__version__)


# --- S7: what leaves memory is closed first -------------------------------------------------------


@task
async def release(what: str) -> None:
    DONE.append(f"released {what}")


@workflow
async def holds_stock() -> list[Any]:
    """Its cleanup would ask for a step, write a variable, arm a timer and make a task."""
    perdure.log.warning("taking stock")
    variables["stage"] = "held"
    try:
        found = await wait_signal("go", int)
    finally:
        variables["stage"] = "released"
        try:
            DONE.append("cleaning up")
            await release("stock")
        finally:
            asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(1, print)
            await asyncio.create_task(asyncio.sleep(1))  # durable
    return [found, variables["stage"]]


def _go(world: World, handle: Handle) -> None:
    world.signal_at("1d", handle, "go", 7)


@pytest.mark.parametrize("how", ["evicted", "stopped", "killed"])
def test_s7_a_flow_that_leaves_memory_does_not_clean_up(how: str) -> None:
    """Goal: eviction and a stop release nothing, write nothing and arm nothing; the end does, once."""
    settings: dict[str, Any] = {"runs_resident_max": 0} if how == "evicted" else {}
    with World("memory:", **settings) as world:
        world.start(holds_stock, id="r")
        world.advance("1h")
        if how != "evicted":
            world.restart(kill=how == "killed")
        else:
            assert "r" not in world.engine.node.advance.runs
        state = world.play(world.engine.state("r"))
        assert state.variables == {"stage": "held"}
        assert not [one for one in DONE if one.startswith("released")]
        assert state.metadata.wait.due is None
        world.signal("r", "go", 7)
        assert world.result("r") == [7, "released"]
        assert [one for one in DONE if one.startswith("released")] == ["released stock"]
        assert world.audit_all() == []


def test_s7_the_flows_log_is_silent_on_replay(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a line of a flow is written once, however often its turn is folded again."""
    with caplog.at_level(logging.WARNING, "perdure.flow"), World("memory:", runs_resident_max=0) as world:
        handle = world.start(holds_stock, id="r")
        _go(world, handle)
        for _ in range(3):
            world.restart()
        world.result("r")
        assert caplog.text.count("taking stock") == 1


def test_s7_leaving_memory_changes_nothing() -> None:
    """Goal: the same end with and without leaving memory, and whatever commit the machine dies beside."""
    case = Case(holds_stock, (), _go)
    wanted, commits = live(case)
    found, left = evicted(case)
    assert left >= 1
    assert found == wanted
    assert all(other == wanted for other in crashes(case, commits))


# --- S8: the decoded value, in types and in identity ----------------------------------------------


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)


@task
async def adds(basket: Basket) -> Basket:
    """Changes what it was given."""
    basket.items.append("added by the task")
    return basket


@task
def adds_in_a_thread(basket: Basket) -> Basket:
    basket.items.append("added by the thread")
    return basket


@workflow
async def fills(basket: Basket) -> list[Any]:
    step = adds(basket)
    basket.items.append("added by the flow after the call")
    first = await step
    second = await adds_in_a_thread(basket)
    again = await step
    variables["basket"] = {"items": basket.items}
    basket.items.append("added behind the variable")
    return [basket.items, first.items, second.items, again is first, first is basket, variables["basket"]["items"]]


def test_s8_flow_task_and_caller_see_values_of_their_own() -> None:
    """Goal: what one changes nobody else sees, live as on replay, in threads and on the loop."""
    case = Case(fills, (Basket(["one"]),))
    wanted, commits = live(case)
    mine = ["one", "added by the flow after the call"]
    expected = [
        [*mine, "added behind the variable"], ["one", "added by the task"], [*mine, "added by the thread"],
        True, False, mine,
    ]  # fmt: skip
    with World("memory:") as world:
        given = Basket(["one"])
        assert world.run(fills, given) == expected
        assert given.items == ["one"]
    assert all(other == wanted for other in crashes(case, commits))


def test_the_audit_compares_every_digest() -> None:
    """Goal: a replay of another code is found by the audit alone, where no load has met it (K3)."""
    good = made(IN_FLIGHT, at_once=at_once)
    bad = made(IN_FLIGHT.replace('"first"', '"other"'), at_once=at_once)
    with World("memory:", serve=[good]) as world:
        world.run(good, 1, id="r")
        assert world.audit("r").ok
        world.restart(serve=[bad])
        report: AuditReport = world.audit("r")
        assert not report.ok
        assert "K3" in str(report.first)


# --- what a replay could not repeat ---------------------------------------------------------------

REFUSED = {
    "time.time()": "perdure.now()",
    "time.monotonic()": "perdure.now()",
    "time.sleep(1)": "asyncio.sleep",
    "datetime.datetime.now()": "perdure.now()",
    "datetime.date.today()": "perdure.now()",
    "random.random()": "perdure.random()",
    "random.choice([1, 2])": "perdure.random()",
    "random.Random(1)": "perdure.random()",
    "secrets.token_hex()": "perdure.uuid()",
    "uuid.uuid4()": "perdure.uuid()",
    "os.urandom(4)": "@task",
    "os.environ['HOME']": "argument of the workflow",
    "os.getenv('HOME')": "argument of the workflow",
    "import random as dice; dice.random()": "perdure.random()",
    "from time import time as wall; wall()": "perdure.now()",
    "from datetime import datetime as dt; dt.now()": "perdure.now()",
    "from concurrent.futures import ThreadPoolExecutor; ThreadPoolExecutor()": "@task",
    "threading.Thread(target=print)": "@task",
    "socket.create_connection(('localhost', 1))": "@task",
    "subprocess.run(['true'])": "@task",
    "asyncio.get_running_loop().run_in_executor(None, print)": "@task",
    "asyncio.get_running_loop().call_soon_threadsafe(print)": "@task",
    "await asyncio.to_thread(print)": "@task",
    "await asyncio.open_connection('localhost', 1)": "@task",
    "await asyncio.create_subprocess_exec('true')": "@task",
    "await OUTER": "@task",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_replay_could_not_repeat_is_refused_by_name(what: str) -> None:
    """Goal: the run needs attention with the durable twin named; no other code in the process sees a difference."""
    modules = ("datetime", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid")
    names = {name: importlib.import_module(name) for name in modules}
    text = f"async def good(n: int) -> int:\n    await echo('first')\n    {what}\n    return n\n"
    outer = asyncio.new_event_loop()
    flow = made(text, OUTER=outer.create_future(), **names)
    with World("memory:") as world:
        with pytest.raises(NeedsAttention, match=r"would differ on replay: use") as caught:
            world.run(flow, 1, id="r")
        assert REFUSED[what] in caught.value.reason
        assert world.play(_reads()) > 0
        world.restart(serve=[made(text.replace(what, "pass"))])
        world.play(world.engine.retry("r"))
        assert world.result("r") == 1
        assert world.audit_all() == []
    outer.close()


async def _reads() -> float:
    await asyncio.to_thread(time.time)
    return time.time() + random.random()
