"""Why a run waits: each kind is named with what is known of it, by the engine and by a client of its store alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.authoring.registry import Registry
from perdure.clock import EngineClock
from perdure.errors import UnknownRun
from perdure.model import message as m
from perdure.model.run import Life
from perdure.monitoring.why import Reason, Why
from perdure.runtime.client import Client
from perdure.state.store import Batch, NewRun, Ref
from perdure.testing import World
from tests.monitoring import waiting
from tests.testing import shop


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    address = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'why.db'}"
    with World(address, serve=waiting.ALL) as made:
        yield made


def client_of(world: World) -> Client:
    """A client beside the world's engine, which knows no code."""
    return Client(world.store, world.settings, world.clock, Registry())


def whys(world: World, run: str) -> list[Why]:
    """What the engine says, and what a client says."""
    return [world.play(world.engine.why(run)), world.play(client_of(world).why(run))]


def kinds(why: Why) -> list[str]:
    return [reason.kind for reason in why.reasons]


def only(why: Why) -> Reason:
    assert len(why.reasons) == 1, why
    return why.reasons[0]


def test_a_signal_is_named_with_the_command_that_sends_it(world: World) -> None:
    """Goal: what a person has to type stands there."""
    world.start(waiting.asks, id="r")
    world.advance("2h")
    for why in whys(world, "r"):
        assert (why.run, why.workflow, why.version, why.status) == ("r", "asks", "1", "waiting")
        reason = only(why)
        assert (reason.kind, reason.name, reason.at_least) == ("signal", "answer", True)
        assert reason.command == "perdure signal r answer JSON"
        assert reason.text == "signal answer, for 2h00m or longer"
    world.signal("r", "answer", 5)
    world.result("r")
    assert [kinds(why) for why in whys(world, "r")] == [["ended"], ["ended"]]


def test_a_timer_is_named_with_its_end(world: World) -> None:
    """Goal: a sleeper says until when it sleeps."""
    world.start(waiting.sleeps, id="r")
    begun = world.history("r")[0].at
    world.advance("10m")
    for why in whys(world, "r"):
        reason = only(why)
        assert reason.kind == "timer"
        assert reason.text == "a timer, in 50m00s"
        assert reason.until is not None
        assert abs(reason.until.timestamp() - begun / 1e6 - 3600) < 1


def test_a_retry_is_told_from_a_timer_and_names_its_last_error(world: World) -> None:
    """Goal: the step, why it failed, and when it is tried again; the timer that is due later does not hide it."""
    world.start(waiting.retries, id="r")
    world.advance("30m")
    for why in whys(world, "r"):
        reason = only(why)
        assert (reason.kind, reason.name, reason.attempt) == ("retry", "flaky#1", 2)
        assert "ConnectionError: the bank is away" in reason.error
        assert reason.text.startswith("step flaky#1, to be tried again in 30m00s: attempt 1 failed (")
        assert reason.since is not None
        assert reason.until is not None
        assert abs(reason.until - reason.since - timedelta(hours=1)) < timedelta(seconds=1)
    world.advance("1h")
    for why in whys(world, "r"):
        assert kinds(why) == ["retry", "timer"] or (kinds(why) == ["retry"] and why.reasons[0].attempt == 3)


def test_a_step_in_an_attempt_is_named_with_its_place_and_progress(world: World) -> None:
    """Goal: since when, by which process, and what it told last; a client learns it from the engine's note."""
    world.start(waiting.works, id="r")
    world.advance("30s")
    for why in whys(world, "r"):
        reason = only(why)
        assert (why.status, reason.kind, reason.name, reason.attempt) == ("running", "step", "long#1", 1)
        assert reason.text.startswith("step long#1, attempt 1, for 30s on ")
        assert reason.pid > 0
        assert reason.node
        assert reason.since is not None
        assert reason.progress is not None
        assert msgspec.json.decode(reason.progress) == {"done": "half"}
    world.result("r")
    assert world.play(world.store.epochs())[0].live
    world.advance("2s")
    assert b"long#1" not in world.play(world.store.epochs())[0].note  # and the note forgets what is over


def test_a_short_step_is_told_of_though_nobody_noted_it(world: World) -> None:
    """Goal: nothing is written for steps that are over at once; a client says how many are open."""
    world.start(waiting.works, id="r")
    engine, client = whys(world, "r")
    assert only(engine).kind == "step"
    assert only(client).kind == "due"
    assert only(client).text.startswith("1 step, begun a moment ago or about to begin on ")


def test_a_step_without_a_place_names_the_bound_and_who_holds_it(world: World) -> None:
    """Goal: a task's own bound, and the run and step that use it up."""
    world.start(waiting.squeezes, id="first")
    world.start(waiting.squeezes, id="second")
    world.advance("20s")
    for why in whys(world, "second"):
        reason = only(why)
        assert (reason.kind, reason.name, reason.holders) == ("place", "narrow#1", [("first", "narrow#1")])
        assert "one of the 1 places of task narrow (its concurrency)" in reason.text
        assert "narrow#1 of first" in reason.text


def test_a_step_without_a_thread_names_the_setting(tmp_path: Path) -> None:
    """Goal: the bound of the node is named as one finds it in the settings."""
    with World(serve=waiting.ALL, async_max=1) as world:
        world.start(waiting.works, id="first")
        world.start(waiting.works, id="second")
        world.advance("20s")
        for why in whys(world, "second"):
            reason = only(why)
            assert (reason.kind, reason.holders) == ("place", [("first", "long#1")])
            assert "one of the 1 places for async attempts (async_max)" in reason.text


def test_all_that_is_waited_for_is_named(world: World) -> None:
    """Goal: a run that waits for five things says all five, and the same to all who ask."""
    world.start(waiting.many, id="r")
    world.advance("20s")
    for why in whys(world, "r"):
        assert kinds(why) == ["step", "step", "retry", "signal", "timer"]
        assert [reason.name for reason in why.reasons[:4]] == ["long#1", "long#2", "flaky#1", "go"]


def test_children_tell_what_they_wait_for_themselves(world: World) -> None:
    """Goal: the cause two levels down is found from the top."""
    world.start(waiting.parent, id="r")
    world.advance("1m")
    for why in whys(world, "r"):
        child = only(why)
        (grandchild,) = child.reasons
        (cause,) = grandchild.reasons
        assert (child.kind, grandchild.kind, cause.kind, cause.name) == ("child", "child", "signal", "answer")
        assert cause.command == f"perdure signal {grandchild.name} answer JSON"


def test_children_are_followed_within_bounds(world: World) -> None:
    """Goal: a deep or wide tree of runs costs no more than its bounds; what is left out can be asked for."""

    def depth(reasons: list[Reason]) -> int:
        return 1 + max((depth(reason.reasons) for reason in reasons), default=0) if reasons else 0

    world.start(waiting.nested, 12, id="deep")
    world.start(waiting.wide, 100, id="wide")
    world.advance("1m")
    for why in whys(world, "deep"):
        assert depth(why.reasons) == 6
    for why in whys(world, "wide"):
        assert len(why.reasons) == 21
        assert sum(bool(reason.reasons) for reason in why.reasons) == 5
        assert why.reasons[5].command == f"perdure why {why.reasons[5].name}"
        assert why.reasons[-1].text == "80 more child runs"


def test_settling_says_who_asked_for_it(world: World) -> None:
    """Goal: a run that is being undone does not look as if it worked."""
    world.start(waiting.booked, id="r")
    world.advance("1s")
    world.cancel("r", "not wanted")
    world.advance("30s")
    for why in whys(world, "r"):
        assert kinds(why) == ["settling", "step"]
        assert "cancelling was asked for 30s ago (not wanted)" in why.reasons[0].text
        assert why.reasons[1].text.startswith("step book#1 (being undone), attempt 1, for 30s")


def test_attention_gives_its_reason_and_the_ways_out(world: World) -> None:
    """Goal: what a person has to decide, and the commands that say it."""
    world.start(waiting.unsure, id="r")
    world.advance("1s")
    for why in whys(world, "r"):
        reason = only(why)
        assert (reason.kind, reason.name, reason.error) == ("attention", "once#1", "outcome_unknown")
        assert "perdure resolve r once#1 --result JSON|--fail|--retry" in reason.text


def test_without_an_engine_the_last_one_is_named(tmp_path: Path) -> None:
    """Goal: that none runs, which one was the last, how it ended and when; the rest is told beside it."""
    path = tmp_path / "why.db"
    for kill, ended in ((True, "died"), (False, "stopped")):
        with World(f"sqlite:///{path}", serve=waiting.ALL) as world:
            world.start(waiting.asks, id=f"r-{ended}")
            world.advance("1m")
            (world.die if kill else world.stop)()
        why = looked(path, f"r-{ended}")
        assert kinds(why) == ["no_engine", "signal"]
        assert f"none runs on this store; the last one, epoch {1 if kill else 2} on " in why.reasons[0].text
        assert f", {ended} " in why.reasons[0].text
        assert why.reasons[0].since is not None


def looked(path: Path, run: str) -> Why:
    """What a client of the file says, blocking as in a script."""
    import perdure

    with perdure.connect(f"sqlite:///{path}") as client:
        assert client.get(run).why() == client.why(run)
        found: Why = client.why(run)
        return found


def test_an_engine_without_the_workflow_or_its_version_is_named(world: World) -> None:
    """Goal: which versions are served, and by which process."""
    world.start(waiting.asks, id="r")
    world.restart(kill=False, serve=[shop.remind])
    for why in whys(world, "r"):
        assert kinds(why) == ["not_served", "signal"]
        assert "no version of it is served by the engine on " in why.reasons[0].text
    start = m.Start(
        run="v", workflow="asks", version="9", input=m.Raw(b"[]"), input_hash=b"h", at=world.clock.wall_us()
    )
    ref = Ref("v")
    batch = Batch()
    batch.starts.append(
        NewRun(ref=ref, workflow="asks", version="9", definition="", input_hash=b"h", created_at=start.at)
    )
    batch.inbox.append(start)
    world.restart(kill=False, serve=[waiting.asks])
    world.engine  # noqa: B018 - it is to run before the start is there
    world.store.commit(batch)
    world.advance("2s")
    for why in whys(world, "v"):
        assert why.status == Life.QUEUED
        assert "an engine that serves asks (version 9): only version 1 on " in only(why).text


def test_a_queued_run_says_its_place(world: World) -> None:
    """Goal: beyond `runs_live_max` a start says how many stand before it, and how many move."""
    with World(serve=waiting.ALL, runs_live_max=1, runs_resident_max=0) as small:
        for number in range(4):
            small.start(waiting.works, id=f"r{number}")
        small.advance("10s")
        for place, number in enumerate((1, 2, 3), 1):
            for why in whys(small, f"r{number}"):
                reason = only(why)
                assert (why.status, reason.kind) == ("queued", "queued")
                assert reason.text == f"place {place} in the queue of starts: 1 runs move, of at most 1 (runs_live_max)"


def test_a_message_that_nobody_took_up_is_named(tmp_path: Path) -> None:
    """Goal: a signal that was sent while no engine ran is not looked for elsewhere."""
    path = tmp_path / "why.db"
    with World(f"sqlite:///{path}", serve=waiting.ALL) as world:
        world.start(waiting.asks, id="r")
    import perdure

    with perdure.connect(f"sqlite:///{path}") as client:
        client.get("r").signal("answer", 1)
    why = looked(path, "r")
    assert kinds(why) == ["no_engine", "message", "signal"]
    assert why.reasons[1].text.startswith("signal answer lies in the inbox since ")
    assert why.reasons[1].text.endswith(": not taken up yet")


def test_an_unknown_run_is_refused(world: World) -> None:
    """Goal: the remedy says how to find it."""
    for one in (world.engine, client_of(world)):
        with pytest.raises(UnknownRun, match="perdure ps"):
            world.play(one.why("nobody"))


class Counted:
    """Passes calls on and counts what is asked of a store."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.asked = inner, list[tuple[str, int]]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = await found(*args, **kwargs)
            self.asked.append((name, len(answer)))
            return answer

        return call


def test_it_asks_the_store_for_no_more_than_the_runs_it_tells_of(world: World) -> None:
    """Goal: a thousand other runs cost nothing: only look-ups by id, the epochs, and one page of the inbox."""
    for number in range(200):
        world.start(waiting.good, id=f"other-{number}")
    world.start(waiting.parent, id="r")
    world.advance("1m")
    counted = Counted(world.store)
    client = Client(counted, world.settings, EngineClock(), Registry())  # type: ignore[arg-type]
    world.play(client.why("r"))
    assert counted.asked == [("load", 1), ("epochs", 1), ("inbox", 0), ("load", 1), ("load", 1)]
