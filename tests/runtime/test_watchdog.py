"""The watchdog's interruptions: each hits the code that it is meant for, or nothing (F77)."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from perdure import NeedsAttention, workflow
from perdure.errors import Blocked
from perdure.model import fact as f
from perdure.runtime.watchdog import Watchdog
from perdure.testing import World
from tests.flows.children import leaf
from tests.flows.tasks import thrice

RESUMED = f.RunResumed(0, 0, 0, "", "")


class _GivesWay(logging.Handler):
    """Lets other threads go on while a warning is written, now and then, as a slow terminal does."""

    said = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.said += 1
        if self.said % 8 == 0:
            threading.Event().wait(1e-4)


@pytest.fixture(autouse=True)
def _slow_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    log, handler = logging.getLogger("perdure.watchdog"), _GivesWay()
    monkeypatch.setattr(log, "propagate", False)
    # Some hit a destructor, or a coroutine between its making and its use: Python tells that, and it is of no account.
    monkeypatch.setattr(sys, "unraisablehook", lambda *_: None)
    log.addHandler(handler)
    yield
    log.removeHandler(handler)


@contextmanager
def _storm(watchdog: Watchdog, pause_s: float = 0.0) -> Iterator[list[int]]:
    """Interrupt whatever runs, as fast as threads change places; gives the number of looks."""
    over, looks, interval = threading.Event(), [0], sys.getswitchinterval()

    def look() -> None:
        while not over.wait(pause_s) if pause_s else not over.is_set():
            looks[0] += 1
            watchdog.interrupt(watchdog.serial)

    thread = threading.Thread(target=look)
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)


class _Code:
    """Stands where a decider would be. Shape: `ended` when its turn ran to its end, `caught` when it was interrupted."""

    shape, run_id, spec = "flow", "r", leaf

    def __init__(self, swallows: bool) -> None:
        self.swallows = swallows
        self.trouble: Any = None
        self.ended = self.caught = False

    def on(self, fact: f.AnyFact, seq: int, expected: Any = ()) -> None:
        try:
            for number in range(seq):
                self.last = str(number)
        except Blocked:
            self.caught = True
            if not self.swallows:
                raise
        self.ended = True


@pytest.mark.slow
@pytest.mark.parametrize("swallows", [False, True])
def test_f77_an_interruption_hits_its_turn_or_nothing(swallows: bool) -> None:
    """Goal: however turns end beside it, it is never late, never lost, and never in the engine's own code."""

    async def turns() -> int:
        watchdog, interrupted, caught = Watchdog(60), 0, 0
        with _storm(watchdog):
            for number in range(1_000_000):
                code = _Code(swallows)
                watchdog.fold(code, RESUMED, number % 50)  # type: ignore[arg-type]
                hit = watchdog.fired == watchdog.serial
                assert (code.trouble is not None) == hit
                assert hit or (code.ended and not code.caught)
                interrupted += hit
                caught += code.caught
                if interrupted == 50:
                    break
        return caught

    assert asyncio.run(turns()) > 5


@workflow
async def busy(rounds: int) -> int:
    """Turns of all lengths, in tasks of its own."""
    total = 0

    async def part(number: int) -> int:
        value = await thrice(number)
        for _ in range(number * 20):
            value += 1
        return value

    for number in range(rounds):
        for value in await asyncio.gather(*(part(k) for k in range(number % 5))):
            total += value
        await asyncio.sleep(1)  # durable
    return total


@pytest.mark.slow
def test_f77_an_interruption_is_never_an_outcome() -> None:
    """Goal: whenever a flow is interrupted, its run needs attention, and once nobody interrupts it ends well."""
    with World("memory:", serve=[busy]) as world:
        expected, runs = world.run(busy, 20), 0
        interrupted: dict[str, str] = {}
        with _storm(world.engine.node.watchdog, 0.0005):
            while len(interrupted) < 12 and runs < 1_000:
                runs += 1
                world.start(busy, 20, id=f"r{runs}")
                try:
                    assert world.result(f"r{runs}") == expected
                except NeedsAttention as error:
                    interrupted[f"r{runs}"] = error.reason
        assert len(interrupted) == 12
        assert all("blocked the event loop" in reason for reason in interrupted.values())
        for run in interrupted:
            world.play(world.engine.retry(run))
            assert world.result(run) == expected
        assert world.audit_all() == []
    gc.collect()


def test_f77_code_that_takes_no_notice_is_interrupted_again() -> None:
    """Goal: a loop that swallows one interruption is left at a later one."""

    class Stubborn(_Code):
        def on(self, fact: f.AnyFact, seq: int, expected: Any = ()) -> None:
            for _ in range(2):
                try:
                    while True:
                        self.ended = False
                except Blocked:
                    continue

    async def turn() -> Any:
        watchdog, code = Watchdog(0.08), Stubborn(True)
        watchdog.start()
        watchdog.fold(code, RESUMED, 1)  # type: ignore[arg-type]
        watchdog.stop()
        return code.trouble

    assert asyncio.run(turn()).cause == "blocked"


def test_f77_a_turn_that_raises_is_not_watched_any_more() -> None:
    """Goal: what the engine does after a turn that broke down is never taken for user code."""

    class Broken(_Code):
        def on(self, fact: f.AnyFact, seq: int, expected: Any = ()) -> None:
            raise LookupError

    async def turn() -> Any:
        watchdog = Watchdog(60)
        with pytest.raises(LookupError):
            watchdog.fold(Broken(False), RESUMED, 1)  # type: ignore[arg-type]
        watchdog.interrupt(watchdog.serial)
        return watchdog.what, watchdog.fired

    assert asyncio.run(turn()) == (None, 0)
