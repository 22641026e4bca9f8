"""Attempts of sync tasks, in daemon threads.

A thread cannot be stopped: when its attempt times out or is given up, the outcome is told at once and the thread
stays counted as busy until its code ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from perdure.kernel.failures import text_of, type_name
from perdure.model.failure import Failure
from perdure.runtime.attempt import Attempt, current
from perdure.scheduling.fifo import Fifo

if TYPE_CHECKING:
    from perdure.runtime.pools import Pools

log = logging.getLogger("perdure.pools")
# Where the system gives no thread at all, one is asked for again after so long.
AGAIN_S = 0.5


class ThreadPool:
    """Shape: `busy` attempts are handed to threads and not yet collected; at most `bound` of them."""

    def __init__(self, bound: int, pools: Pools) -> None:
        self.bound = bound or 2 * (os.cpu_count() or 1) + 4
        self.pools = pools
        self.fifo: Fifo[Attempt] = Fifo()
        self.busy = 0
        self.count = 0
        self._todo: SimpleQueue[Attempt | None] = SimpleQueue()
        self._done: deque[Attempt] = deque()
        self._told = False
        self._loop = asyncio.get_running_loop()

    def dispatch(self) -> None:
        """Hand out what is ready. More is handed out than there are threads, so that none waits for the loop."""
        ahead = self.bound * 64
        while self.busy < ahead and (attempt := self.fifo.take()) is not None:
            self.busy += 1
            self._todo.put(attempt)
        while self.count < min(self.bound, self.busy):
            try:
                threading.Thread(target=self._work, name=f"perdure-{self.count + 1}", daemon=True).start()
            except RuntimeError as error:  # the system gives no more: those that are there do the work
                log.warning("%d threads, and no more: %s", self.count, error)
                if not self.count:
                    self._loop.call_later(AGAIN_S, self.dispatch)
                break
            self.count += 1

    def _work(self) -> None:
        context = self.pools.context
        while (attempt := self._todo.get()) is not None:
            try:
                if not (attempt.left or attempt.done):
                    self._loop_free_start(attempt)
                    context.copy().run(self._run, attempt)
                self._done.append(attempt)
                if not self._told:
                    self._told = True
                    self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop is closed: the process is about to end
                return

    def _loop_free_start(self, attempt: Attempt) -> None:
        spec = attempt.spec
        if spec.timeout_us is None and spec.heartbeat_us is None and attempt.deadline_at is None:
            attempt.started = self.pools.clock.now_us()
        else:
            self._loop.call_soon_threadsafe(self.pools.started, attempt)

    def _run(self, attempt: Attempt) -> None:
        """Make the attempt. Whatever is met, it ends and nothing is raised: else a thread were gone, and its run stuck."""
        try:
            current.set(attempt)
            try:
                if attempt.hold is None:
                    attempt.succeed(attempt.call(), self.pools.payload_max)
                else:
                    self.pools.transactions.in_thread(attempt)
            except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure, and never the node's
                attempt.fail(error)
        except BaseException as error:
            log.exception("attempt %d of step %s of run %s", attempt.number, attempt.key, attempt.run_id)
            attempt.failure = Failure(type_name(type(error)), text_of(error))

    def _collect(self) -> None:
        self._told = False
        done, pools = self._done, self.pools
        while done:
            attempt = done.popleft()
            self.busy -= 1
            pools.finish(attempt)
            self.fifo.done(attempt.spec)
        if self.fifo:
            self.dispatch()

    def clear(self) -> None:
        """Take out everything that has not begun, handed out or not."""
        self.fifo.clear()
        with suppress(Empty):
            while True:
                self._todo.get_nowait()
                self.busy -= 1

    def stop(self) -> None:
        for _ in range(self.count):
            self._todo.put(None)
