"""The picture that an engine gives of itself: what it does now, for `why`; kept in its epoch's note while steps take long."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from perdure.monitoring.activity import LONG_US, NOTED_MAX, Activity, Doing

if TYPE_CHECKING:
    from perdure.runtime.attempt import Attempt
    from perdure.runtime.node import Node

# So many attempts are looked through, those that were asked for first: for one question, and each second for the note.
ASKED_MAX, LOOKED_MAX = 100_000, 2_000


class Picture:
    """Shape: `told` is what the note says: the attempts that others know of."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.told: list[Doing] = []

    def now(self, most: int = ASKED_MAX, long_us: int = 0, looked: int = ASKED_MAX) -> Activity:
        """What is done now. Shape: at most `most` attempts that run and as many that wait, of those older than `long_us`."""
        node, now_us = self.node, self.node.clock.now_us()
        there = [one for one in islice(node.pools.running.values(), looked) if not (one.done or one.left)]
        old = [one for one in there if now_us - (one.started or one.step.asked_at) >= long_us]
        running = sorted((one for one in old if one.started), key=lambda one: one.started)[:most]
        waiting = sorted((one for one in old if not one.started), key=lambda one: one.step.asked_at)[:most]
        moving = len(node.advance.runs) - len(node.resident)
        return Activity(
            at=now_us, attempts=[_doing(one) for one in (*running, *waiting)], pools=self._pools(there),
            tasks=_tasks(there), live=moving, live_max=node.settings.runs_live_max,
        )  # fmt: skip

    def _pools(self, there: list[Attempt]) -> dict[str, tuple[int, int]]:
        pools = self.node.pools
        bounds = {"async": pools.settings.async_max, "thread": pools.threads.bound, "process": pools.processes.bound}
        used = dict.fromkeys(bounds, 0)
        for one in there:
            used[one.pool] += one.started > 0
        return {name: (used[name], bound) for name, bound in bounds.items()}

    def note(self) -> Activity | None:
        """What the note says; None where no step takes long."""
        found = self._noted()
        self.told = found.attempts
        return found if found.attempts else None

    def _noted(self) -> Activity:
        return self.now(NOTED_MAX, LONG_US, LOOKED_MAX)

    def tell(self) -> None:
        """Have the note written anew when other steps take long now than those it names."""
        node = self.node
        if node.failed is not None or node.lost is not None or not (self.told or node.pools.running):
            return
        if self._noted().attempts != self.told:
            node.note_due = True
            node.wake()


def _doing(one: Attempt) -> Doing:
    return Doing(one.run_id, one.key, one.number, one.spec.name, one.pool, one.step.asked_at, one.started)


def _tasks(there: list[Attempt]) -> dict[str, tuple[int, int]]:
    """How many of each task that has a bound of its own are made, and the bound."""
    found: dict[str, tuple[int, int]] = {}
    for one in there:
        if one.spec.concurrency is not None:
            used = found.get(one.spec.name, (0, 0))[0]
            found[one.spec.name] = (used + (one.started > 0), one.spec.concurrency)
    return found
