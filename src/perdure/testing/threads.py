"""Sync attempts in a simulated world: one after another, so that nothing depends on how threads are scheduled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

from perdure.runtime.attempt import Attempt
from perdure.runtime.pools import Pools
from perdure.runtime.threads import ThreadPool

# An attempt takes up to this long on the virtual clock, by the world's chance. Units: seconds.
LATENCY_MAX_S = 0.002


class SimulatedThreads(ThreadPool):
    """Each attempt is made in a real thread while the loop stands still. One that waits for the loop would wait forever:
    such tasks want a world with `threads="real"`.
    """

    def __init__(self, pools: Pools, random: Random) -> None:
        super().__init__(pools.threads.bound, pools)
        self.random = random
        self._thread = ThreadPoolExecutor(1, "perdure-simulated")

    def dispatch(self) -> None:
        while self.busy < self.bound and (attempt := self.fifo.take()) is not None:
            self.busy += 1
            self._loop.call_later(self.random.random() * LATENCY_MAX_S, self._make, attempt)

    def _make(self, attempt: Attempt) -> None:
        if not (attempt.left or attempt.done):
            self.pools.started(attempt)
            self._thread.submit(self.pools.context.copy().run, self._run, attempt).result()
        self.busy -= 1
        self.pools.finish(attempt)
        self.fifo.done(attempt.spec)
        if self.fifo:
            self.dispatch()

    def stop(self) -> None:
        self._thread.shutdown(wait=False)
