"""What must not go on for ever, or in silence: endless turns, blocking code, fan-outs, waits for nobody (F74, F76, F77)."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from perdure import NeedsAttention, RunCancelled, RunFailed
from perdure.errors import WrongState
from perdure.testing import World
from perdure.testing.machine import AtRest
from tests.flows import endless as flows
from tests.flows.children import leaf
from tests.flows.mutants import made
from tests.flows.talking import waits_for_a_signal


@pytest.mark.parametrize("flow", [flows.spins, flows.spins_in_tasks, flows.calls_itself_back])
def test_f76_an_endless_turn_needs_attention(flow: object) -> None:
    """Goal: a loop that gives way without waiting is stopped by the turn's budget (S2); others go on."""
    with World("memory:", turn_callbacks_max=5_000, serve=[leaf]) as world:
        with pytest.raises(NeedsAttention, match="more than 5,000 callbacks"):
            world.run(flow, id="r")  # type: ignore[arg-type]
        assert world.run(leaf, 2) == 4
        assert world.audit_all() == []


def test_f76_an_endless_continuation_needs_attention() -> None:
    """Goal: generations that follow on one another and wait for nothing are bounded."""
    with World("memory:") as world:
        with pytest.raises(NeedsAttention, match="continued as new"):
            world.run(flows.continues_for_ever, 0, id="r")
        assert world.run(leaf, 2) == 4
        assert world.audit_all() == []


def test_f76_an_unbounded_fan_out_is_bounded() -> None:
    """Goal: a flow that asks for steps without end fails at the bound, and its neighbours go on."""
    with World("memory:") as world:
        engine = world.engine
        engine.node.advance.limits = engine.node.advance.limits._replace(open=1_000)
        with pytest.raises(RunFailed, match="1,000 of this run are open already"):
            world.run(flows.fans_out_for_ever, id="r")
        assert len(world.history("r")) == 2
        assert world.run(leaf, 2) == 4


@pytest.mark.slow
@pytest.mark.parametrize("flow", [flows.computes, flows.computes_stubbornly])
def test_f77_a_flow_that_blocks_is_named_and_interrupted(flow: object, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: within about the bound (S2) the log names the run, and the run needs attention."""
    with caplog.at_level(logging.WARNING), World("memory:", block_max_s=0.2) as world:
        began = time.monotonic()
        with pytest.raises(NeedsAttention, match=r"blocked the event loop for more than 0\.2s"):
            world.run(flow, id="the-blocker")  # type: ignore[arg-type]
        assert time.monotonic() - began < 5
        assert "run the-blocker" in caplog.text
        assert world.run(leaf, 2) == 4
        assert world.audit_all() == []


@pytest.mark.slow
def test_f77_code_that_blocks_on_replay_does_not_hold_the_engine() -> None:
    """Goal: neither a load, nor a retry, nor the audit of such a run hangs."""
    good = made("async def good(n: int) -> int:\n    await asyncio.sleep(86400)\n    return n\n")
    bad = made("async def good(n: int) -> int:\n    while True:\n        n += 1\n")
    with World("memory:", block_max_s=0.1, serve=[good]) as world:
        world.start(good, 3, id="r")
        world.restart(serve=[bad, leaf], away="2d")
        with pytest.raises(NeedsAttention, match="blocked the event loop"):
            world.result("r")
        with pytest.raises(WrongState, match="blocked the event loop"):
            world.play(world.engine.retry("r"))
        assert world.run(leaf, 2) == 4
        world.restart(serve=[good, leaf])
        world.play(world.engine.retry("r"))
        assert world.result("r") == 3
        assert world.audit_all() == []


@pytest.mark.slow
def test_f77_verify_of_code_that_blocks_does_not_hold_the_engine() -> None:
    """Goal: a sleeping run, whose code blocks since a deploy, does not verify, and the engine goes on."""
    good = made("async def good(n: int) -> int:\n    await asyncio.sleep(86400)\n    return n\n")
    bad = made("async def good(n: int) -> int:\n    while True:\n        n += 1\n")
    with World("memory:", block_max_s=0.1, serve=[good]) as world:
        world.start(good, 3, id="r")
        world.restart(serve=[bad, leaf])
        report = world.play(world.engine.verify("r"))
        assert not report.ok
        assert "blocked the event loop" in str(report.first)
        assert world.run(leaf, 2) == 4


@pytest.mark.slow
def test_f77_a_condition_that_blocks_does_not_hold_the_engine() -> None:
    """Goal: what a graph's condition computes is bounded too, live and when its history is folded again."""
    with World("memory:", block_max_s=0.1) as world:
        for _ in range(2):
            with pytest.raises(NeedsAttention, match="blocked the event loop"):
                world.run(flows.judges_for_ever, 3, id="g")
            with pytest.raises(WrongState, match="blocked the event loop"):
                world.play(world.engine.retry("g"))
            world.restart(serve=[flows.judges_for_ever, leaf])
        assert world.run(leaf, 2) == 4


@pytest.mark.slow
def test_f77_an_async_task_that_blocks_is_named_and_interrupted(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: the attempt fails with the reason, the step may be retried, and nobody else is harmed."""
    with caplog.at_level(logging.WARNING), World("memory:", block_max_s=0.2) as world:
        with pytest.raises(RunFailed, match="blocked the event loop"):
            world.run(flows.calls_a_blocker, id="r")
        assert "async task blocks" in caplog.text
        assert world.run(leaf, 2) == 4
        assert world.audit_all() == []


def test_f74_a_wait_for_a_signal_that_nobody_sends_is_seen() -> None:
    """Goal: the run stays waiting, and its row says for what; it is neither lost nor hidden."""
    with World("memory:") as world:
        world.start(waits_for_a_signal, id="r")
        with pytest.raises(AtRest, match="waits for signal 'never'"):
            world.result("r")
        row = world.row("r")
        assert (row.status, row.wait.signals, row.wait.open) == ("waiting", ("never",), 0)
        world.restart()
        assert world.row("r").wait.signals == ("never",)
        assert world.audit_all() == []


@pytest.mark.parametrize("flow", [flows.waits_for_nobody, flows.locks_itself, flows.waits_behind_a_step])
def test_f74_a_flow_that_nothing_can_wake_needs_attention(flow: Any) -> None:
    """Goal: a flow that waits for its own future, or its own lock, is told as what it is, and can be ended."""
    with World("memory:", serve=[leaf]) as world:
        for number in range(2):
            with pytest.raises(NeedsAttention, match="waits for nothing that can happen"):
                world.run(flow, id="r") if not number else world.result("r")
            world.restart()
        world.play(world.engine.retry("r"))
        with pytest.raises(NeedsAttention, match="waits for nothing that can happen"):
            world.result("r")
        world.cancel("r", "enough")
        with pytest.raises(RunCancelled, match="enough"):
            world.result("r")
        assert world.run(leaf, 2) == 4
        assert world.audit_all() == []


def test_f74_a_stalled_flow_goes_on_once_it_is_mended() -> None:
    """Goal: the turn in which it stalled is folded anew by the mended code, though that asks for more."""
    text = "async def good(n: int) -> int:\n    n = await double(n)\n    {}\n    return await double(n)\n"
    with World("memory:", serve=[made(text.format("await asyncio.Event().wait()"))]) as world:
        with pytest.raises(NeedsAttention, match="waits for nothing"):
            world.run(world.served[0], 3, id="r")
        world.restart(serve=[made(text.format("await echo('mended')"))])
        world.play(world.engine.retry("r"))
        assert world.result("r") == 12
        assert world.audit_all() == []
