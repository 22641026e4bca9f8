"""A store that fails where it is told to: it dies beside a commit, refuses it, or loses the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from perdure.errors import OutcomeUnknown, StoreLost, StoreUnavailable
from perdure.state.store import Batch, Committed

FaultKind = Literal["crash_before", "crash_after", "unavailable", "unknown_lost", "unknown_kept", "lost"]


class SimulatedCrash(SystemExit):
    """The engine's process ended here, as by SIGKILL: nothing of it may act any more.

    It derives from `SystemExit` since an event loop lets only that (and KeyboardInterrupt) out at once.
    """


class Fired(NamedTuple):
    """A fault that took place. Shape: `commit` counts from 1; `facts` were in the batch."""

    commit: int
    kind: FaultKind
    facts: int


class FaultyStore:
    """Passes everything on to another store, but for the commits that a fault is planned at.

    Shape: `commits` counts those tried since the first, `landed` those that were in flight and are over; `plan` is by that number; `fired` tells what took place.
           `crash_before` and `unavailable` and `unknown_lost` write nothing, `crash_after` and `unknown_kept` have written.
           `choose` is asked at each commit that no fault is planned at; `refuse` may raise for a batch that it dislikes;
           `flight` is asked how many seconds a commit is in flight (0: it is over when the call returns).
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.commits = 0
        self.acknowledged = self.landed = 0
        self.plan: dict[int, FaultKind] = {}
        self.fired: list[Fired] = []
        self.dead = False
        self._posted = False
        self._flying: set[asyncio.Future[Committed]] = set()
        self.choose: Callable[[int], FaultKind | None] = lambda _: None
        self.refuse: Callable[[Batch], None] = lambda _: None
        self.flight: Callable[[], float] = lambda: 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def fail_at(self, commit: int, kind: FaultKind) -> None:
        """Plan a fault at the commit of this number, counted from the first of all."""
        self.plan[commit] = kind

    def fail_next(self, kind: FaultKind) -> None:
        """Plan a fault at the next commit."""
        self.plan[self.commits + 1] = kind

    def changed(self) -> bool:
        """Whether anybody has posted a message since the last call: here clients write through the engine's own store."""
        posted, self._posted = self._posted, False
        return bool(self.inner.changed()) or posted

    def commit(self, batch: Batch) -> Committed | Awaitable[Committed]:
        if self.dead:
            raise SimulatedCrash("a dead engine wrote to its store")
        self.commits += 1
        seconds = self.flight()
        if not seconds:
            return self._now(batch)
        late = asyncio.ensure_future(self._late(batch, seconds))
        self._flying.add(late)
        late.add_done_callback(self._flying.discard)
        return late

    async def _late(self, batch: Batch, seconds: float) -> Committed:
        """As a COMMIT in a thread: until it is over nobody sees anything of it."""
        await asyncio.sleep(seconds)
        self.landed += 1
        answer = self._now(batch)
        return answer if isinstance(answer, Committed) else await answer

    async def close(self) -> None:
        """What is in flight is waited for, as a commit in a thread is."""
        loop = asyncio.get_running_loop()  # what was in flight when an engine died is on another one, and never lands
        flying = [late for late in self._flying if late.get_loop() is loop]
        if flying:
            await asyncio.wait(flying)
        await self.inner.close()

    def _now(self, batch: Batch) -> Committed | Awaitable[Committed]:
        self._posted = self._posted or bool(batch.inbox)
        self.refuse(batch)
        kind = self.plan.pop(self.commits, None) or self.choose(self.commits)
        if kind is None:
            passed: Committed | Awaitable[Committed] = self._passed(self.inner.commit(batch))
            return passed
        self.fired.append(Fired(self.commits, kind, len(batch.facts)))
        if kind == "crash_before":
            self.dead = True
            raise SimulatedCrash(f"before commit {self.commits}")
        if kind == "unavailable":
            raise StoreUnavailable("simulated: no space left")
        if kind == "unknown_lost":
            raise OutcomeUnknown("simulated: the answer was lost, and so was the commit")
        if kind == "lost":
            raise StoreLost("simulated: a sync failed")
        answer = self.inner.commit(batch)
        if isinstance(answer, Committed):
            self._after(kind)
        return self._failed(answer, kind)

    def _passed(self, answer: Any) -> Any:
        if isinstance(answer, Committed):
            self.acknowledged += 1
            return answer
        return self._counted(answer)

    async def _counted(self, answer: Awaitable[Committed]) -> Committed:
        committed = await answer
        self.acknowledged += 1
        return committed

    async def _failed(self, answer: Awaitable[Committed], kind: FaultKind) -> Committed:
        await asyncio.shield(asyncio.ensure_future(answer))
        self._after(kind)
        raise AssertionError("unreachable: a fault after the commit always raises")

    def _after(self, kind: FaultKind) -> None:
        """What is written is written; the engine does not learn it."""
        if kind == "unknown_kept":
            raise OutcomeUnknown("simulated: the answer was lost")
        self.dead = True
        raise SimulatedCrash(f"after commit {self.commits}")
