"""What runs attempts: coroutines on the loop, threads, processes; and the clocks that bound them.

An attempt's outcome is told once, through `ended`. An attempt that timed out or was given up is told at once;
what its code still does is of no account, but its place stays taken until it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import Any

from perdure.clock import Clock
from perdure.errors import Blocked
from perdure.model.failure import Failure
from perdure.runtime.attempt import Attempt, current
from perdure.runtime.expiries import EARLY_US, Expiries, Kind, Late
from perdure.runtime.processes import ProcessPool
from perdure.runtime.threads import ThreadPool
from perdure.runtime.transactions import Transactions
from perdure.runtime.watchdog import Watchdog
from perdure.scheduling.fifo import Fifo
from perdure.settings import Settings

log = logging.getLogger("perdure.pools")
# A worker that never had to wait gives way to the loop after so many attempts.
STREAK_MAX = 256


class Pools:
    """All pools of a node.

    Shape: `running` holds attempts by (run, key) until their outcome is committed; `late` counts outcomes that came when
           the attempt was over already.
    """

    def __init__(self, settings: Settings, clock: Clock, ended: Callable[[Attempt], None], watchdog: Watchdog) -> None:
        self.settings, self.clock, self.watchdog = settings, clock, watchdog
        self.ended = ended
        self.running: dict[tuple[str, str], Attempt] = {}
        self.late = 0
        self.payload_max = settings.payload_max
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()
        self.fifo: Fifo[Attempt] = Fifo()
        self.idle: deque[asyncio.Future[None]] = deque()
        self.workers: set[asyncio.Task[None]] = set()
        self.threads = ThreadPool(settings.threads_max, self)
        self.processes = ProcessPool(settings.processes_max, self)
        self.expiries = Expiries(clock, self._over)
        self.transactions = Transactions(self)
        self.stopping = False
        self.said: dict[tuple[str, str], bytes] = {}

    # --- beginning and ending ------------------------------------------------------------------------

    def begin(self, attempts: list[Attempt]) -> None:
        """Queue attempts to be made; each tells its outcome through `ended`."""
        threads = asyncs = False
        for attempt in attempts:
            self.running[attempt.run_id, attempt.key] = attempt
            if attempt.hold is not None:
                self.transactions.prepare(attempt)
            if attempt.deadline_at is not None and self._too_late(attempt, attempt.deadline_at):
                continue
            pool = attempt.pool if attempt.probing else attempt.spec.pool
            if pool == "async":
                self.fifo.add(attempt, attempt.spec)
                asyncs = True
            elif pool == "thread":
                self.threads.fifo.add(attempt, attempt.spec)
                threads = True
            else:
                self.processes.add(attempt)
        if asyncs:
            self._wake()
        if threads:
            self.threads.dispatch()

    def _too_late(self, attempt: Attempt, deadline_at: int) -> bool:
        """Whether the step's deadline was over before this attempt began; else it is looked at again then."""
        if attempt.probing:  # what became of an earlier attempt may be asked at any time
            attempt.deadline_at = None
            return False
        left = deadline_at - self.clock.now_us()
        if attempt.hold is not None:  # what an earlier attempt has committed counts, however late it is
            attempt.hold.expired = left <= 0
        if left > 0:
            self.expiries.add(left, attempt, "deadline")
            return False
        if attempt.hold is not None:
            return False
        attempt.declared = True  # it has not begun: there is no doubt about its effect
        self._over_deadline(attempt)
        return True

    def started(self, attempt: Attempt) -> None:
        """An attempt begins now: its time runs."""
        spec = attempt.spec
        attempt.started = self.clock.now_us()
        if spec.timeout_us is not None:
            self.expiries.add(spec.timeout_us, attempt, "timeout")
        if spec.heartbeat_us is not None:
            attempt.beat_at = self.clock.monotonic()
            self.expiries.add(spec.heartbeat_us, attempt, "heartbeat")

    def finish(self, attempt: Attempt) -> None:
        """The attempt's code has ended; its outcome counts unless it was told before."""
        if not attempt.done and not attempt.left:
            attempt.done = True
            self.ended(attempt)
        elif attempt.late:
            self.late += 1
            log.info("late, and dropped: attempt %d of step %s of run %s", attempt.number, attempt.key, attempt.run_id)

    def abandon(self, run_id: str, key: str) -> None:
        """Nobody wants the attempt any more: stop it where that is possible, and tell nothing."""
        attempt = self.running.pop((run_id, key), None)
        if attempt is not None:
            attempt.left = True
            self._stop(attempt)

    def forget(self, attempt: Attempt) -> None:
        """The attempt's outcome is committed, or was dropped."""
        if self.running.get((attempt.run_id, attempt.key)) is attempt:
            del self.running[attempt.run_id, attempt.key]

    def _stop(self, attempt: Attempt) -> None:
        if attempt.hold is not None and not self.transactions.revoke(attempt):
            return  # its commit is under way
        if attempt.task is not None:
            attempt.task.cancel()
        elif attempt.spec.pool == "process":
            self.processes.kill(attempt)

    # --- time ----------------------------------------------------------------------------------------

    def _over(self, attempt: Attempt, kind: Kind) -> None:
        """The attempt's time is over, unless it has beaten since."""
        spec = attempt.spec
        if kind == "deadline":
            self._over_deadline(attempt)
        elif kind == "held":
            most = self.settings.transaction_max_s
            self._timed_out(attempt, "timeout", f"its transaction held the store's own file for more than {most:g}s")
        elif kind == "timeout":
            took = (spec.timeout_us or 0) / 1e6
            self._timed_out(attempt, kind, f"attempt {attempt.number} took more than {took:g}s")
        else:
            silent = self.clock.monotonic() - attempt.beat_at
            left_us = (spec.heartbeat_us or 0) - silent * 1e6
            if left_us <= EARLY_US:
                self._timed_out(attempt, kind, f"no heartbeat for {silent:.3g}s")
            else:
                self.expiries.add(round(left_us), attempt, kind)

    def _over_deadline(self, attempt: Attempt) -> None:
        seconds = (attempt.spec.deadline_us or 0) / 1e6
        self._timed_out(attempt, "deadline", f"the step's deadline of {seconds:g}s is over")

    def _timed_out(self, attempt: Attempt, kind: Late, message: str) -> None:
        if attempt.hold is not None and not self.transactions.revoke(attempt):
            return  # its commit is under way, and tells what it came to
        attempt.done = True
        attempt.failure = Failure("TimeoutError", message, kind)
        self._stop(attempt)
        self.ended(attempt)

    def beat(self, attempt: Attempt, progress: bytes | None) -> None:
        """A sign of life from an attempt, from whatever thread."""
        attempt.beat_at = self.clock.monotonic()
        if progress is not None:
            attempt.progress_new = progress
            self.said[attempt.run_id, attempt.key] = progress

    # --- async attempts --------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Let one more worker look at the queue; each that has to wait lets the next one look."""
        if self.idle:
            waiter = self.idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
        elif len(self.workers) < self.settings.async_max:
            worker = self.loop.create_task(self._work(), name="perdure-worker", context=Context())
            self.workers.add(worker)

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        streak = 0
        while True:
            attempt = self.fifo.take()
            if attempt is None:
                waiter = self.loop.create_future()
                self.idle.append(waiter)
                try:
                    await waiter
                except asyncio.CancelledError:
                    if self.stopping:
                        return
                    me.uncancel()
                continue
            streak += 1
            if streak >= STREAK_MAX:
                streak = 0
                self._wake()
                await asyncio.sleep(0)
            await self._run(attempt, me)
            if self.stopping:
                return

    async def _run(self, attempt: Attempt, me: asyncio.Task[None]) -> None:
        if not (attempt.left or attempt.done or self.stopping):
            self.started(attempt)
            attempt.task = me
            context = self.context.copy()
            context.run(current.set, attempt)
            try:
                if attempt.hold is None:
                    attempt.succeed(await _Driven(self, attempt, context), self.payload_max)
                else:
                    await self.transactions.on_loop(attempt, _Driven(self, attempt, context))
            except asyncio.CancelledError as error:
                if not (attempt.done or attempt.left or self.stopping):
                    attempt.fail(error)
                while me.cancelling():
                    me.uncancel()
            except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure, and never the node's
                attempt.fail(error)
            finally:
                attempt.task = None
        if not self.stopping:
            self.finish(attempt)
        if self.fifo.done(attempt.spec):
            self._wake()

    # --- stopping --------------------------------------------------------------------------------------

    async def stop(self, grace_s: float) -> None:
        """Begin nothing more; give what runs `grace_s`, or until this is cancelled, then leave it without a fact (S25)."""
        self.fifo.clear()
        self.threads.clear()
        self.processes.clear()
        deadline = self.clock.monotonic() + grace_s
        try:
            while self.busy() and self.clock.monotonic() < deadline:  # noqa: ASYNC110 - a thread's end tells nobody
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self._leave()
            raise
        self._leave()
        if self.workers:
            await asyncio.wait(self.workers, timeout=1.0)
        await self.transactions.close()

    def _leave(self) -> None:
        self.stopping = True
        for attempt in list(self.running.values()):
            attempt.left = True
            if attempt.hold is not None:
                self.transactions.revoke(attempt)
        for worker in list(self.workers):
            worker.cancel()
        self.threads.stop()
        self.processes.stop()

    def busy(self) -> int:
        """How many attempts are being made now."""
        return sum(1 for attempt in self.running.values() if attempt.started and not attempt.done)


class _Driven:
    """Awaits a coroutine function in a context of its own, inside the worker's task."""

    __slots__ = ("attempt", "context", "pools")

    def __init__(self, pools: Pools, attempt: Attempt, context: Context) -> None:
        self.pools, self.attempt, self.context = pools, attempt, context

    def __await__(self) -> Generator[Any, Any, Any]:
        pools, context, watchdog, attempt = self.pools, self.context, self.pools.watchdog, self.attempt
        try:
            coro = context.run(attempt.call)
            if not hasattr(coro, "send"):
                return coro
            step: Callable[..., Any] = coro.send
            value: Any = None
            while True:
                watchdog.serial = serial = watchdog.serial + 1
                try:
                    watchdog.what = attempt
                    yielded = context.run(step, value)
                finally:
                    watchdog.what = None
                    if watchdog.fired == serial:
                        watchdog.revoke()
                if pools.fifo:
                    pools._wake()
                try:
                    value = yield yielded
                    step = coro.send
                except BaseException as error:  # noqa: BLE001 - cancellation and failures alike go into the attempt's code
                    value, step = error, coro.throw
        except StopIteration as stop:
            return stop.value
        except Blocked:
            raise TimeoutError(f"it blocked the event loop for more than {pools.settings.block_max_s:g}s") from None
