"""Setting a run aside that cannot be loaded, folded or written: it goes to attention alone, the others go on (D3, F15)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from perdure.errors import StoreError
from perdure.kernel.decider import Trouble
from perdure.model.run import Life, RunRow
from perdure.runtime.attempt import Attempt
from perdure.runtime.live import LiveRun
from perdure.runtime.replay import make
from perdure.runtime.work import Item
from perdure.state.store import BatchRefused

if TYPE_CHECKING:
    from perdure.runtime.loader import Loader

log = logging.getLogger("perdure.loader")
# How long what writes beside the queue waits for a store that takes nothing.
RETRY_S = 0.2


class Aside:
    """What cannot go on, run by run.

    Shape: `runs` cannot be folded or written and go to attention; of those in `given_up` not even that is taken, with the
    reason; `moving` are on their way to attention, which is not durable yet; `tasks` set runs aside.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader, self.node = loader, loader.node
        self.runs: set[str] = set()
        self.given_up: dict[str, str] = {}
        self.moving: set[str] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def may_write(self, run_id: str) -> bool:
        """Whether a run may write beside the queue now: those that are suspected get batches of their own there too.

        False: what was read of it may be out of date by now. Raises: why the store takes nothing.
        """
        node = self.node
        if not node.suspects or node.alone(run_id):
            return True
        if node.lost is not None:
            raise node.lost
        node.wake()
        await asyncio.sleep(0 if node.failed is None else RETRY_S)
        return False

    def needs_attention(self, run: LiveRun, row: RunRow, trouble: Trouble, entries: list[Any]) -> None:
        """Write that a run needs attention, from its row alone; what waited for it follows."""
        advance = self.node.advance
        if self.node.suspects and not self.node.alone(run.id):
            run.decider.drop()
            self.loader(run.id, None)
            self.loader.later(run.id, entries)
            self.node.wake()
            return
        log.warning("run %s needs attention: %s", run.id, trouble.reason)
        self.loader.left(run.id)  # what else was read of it must not join beside this
        self.moving.add(run.id)
        run.decider.drop()
        run.decider = make(run.id, run.spec, advance.catalogue, advance.limits)
        run.decider.now = row.updated_at
        run.decider.asked_n, run.decider.asked_h = row.asked_n, row.asked_h
        advance.now = self.node.clock.now_us()
        advance.attention(run, *trouble)
        self._again(run.id, entries)
        self.node.wake()

    def quarantine(self, run_id: str, trouble: Trouble, entries: list[Any]) -> asyncio.Task[None]:
        """A run that cannot be folded or written, or is damaged, goes to attention alone; what waited follows."""
        entries.extend(self.loader.wanted.pop(run_id, ()))
        task = self.node.loop.create_task(self._quarantined(run_id, trouble, entries))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _quarantined(self, run_id: str, trouble: Trouble, entries: list[Any]) -> None:
        try:
            await self._quarantine(run_id, trouble, entries)
        except StoreError as error:
            log.error("run %s cannot be set aside (%s): %s", run_id, trouble.reason, error)
            self.loader.kept_back.add(run_id)
            self._tell(entries, error)
            for waiter in self.node.waiters.pop(run_id, ()):
                if not waiter.done():
                    waiter.set_exception(error)

    async def _quarantine(self, run_id: str, trouble: Trouble, entries: list[Any]) -> None:
        node = self.node
        found = await node.store.load([run_id])
        while not await self.may_write(run_id):
            found = await node.store.load([run_id])
        present = node.advance.runs.get(run_id)
        if present is not None and present.life is Life.LIVE:
            node.advance.now = node.clock.now_us()
            node.advance.attention(present, *trouble)
            self.moving.add(run_id)
            self._again(run_id, entries)
        elif run_id in self.moving:
            self._again(run_id, entries)
        elif found and found[0].row.life is Life.LIVE:
            run = self.loader.make(found[0].row)
            if run is not None:
                self.needs_attention(run, found[0].row, trouble, entries)
        elif found:
            self.loader.kept_back.add(run_id)
            log.error("run %s stays %s: %s", run_id, found[0].row.life.value, trouble.reason)
            self._tell(entries, _stays(run_id, trouble.reason))
        else:
            for entry in entries:
                if isinstance(entry, Item):
                    node.refuse(entry, BatchRefused(f"run {run_id} was not started: {trouble.reason}"))
        node.wake()

    def give_up(self, run_id: str, entries: list[Any], reason: str) -> None:
        """Nothing that the run writes is taken: it stays as the store has it until the next start."""
        if run_id not in self.given_up:
            log.error("run %s stays as it is: %s", run_id, reason)
        self.given_up[run_id] = reason
        self._tell([*entries, *self.loader.wanted.pop(run_id, ())], _stays(run_id, reason))

    def _tell(self, entries: list[Any], error: StoreError) -> None:
        """What waits for a run that does not move: attempts are dropped, callers told, the inbox's messages stay there."""
        for entry in entries:
            if isinstance(entry, Attempt):
                self.node.pools.forget(entry)
            elif entry.reply is not None and not entry.reply.done():
                entry.reply.set_exception(error)

    def _again(self, run_id: str, entries: list[Any]) -> None:
        """What waited for a run that needs attention now: attempts are dropped, messages are kept for it."""
        for entry in entries:
            if isinstance(entry, Attempt):
                self.node.advance.work.attempts.append(entry)
                self.node.advance.work.entries.append(entry)  # should that commit fail, it is folded again
            elif isinstance(entry, Item):
                self.loader(run_id, entry)


def _stays(run_id: str, reason: str) -> BatchRefused:
    return BatchRefused(f"run {run_id} stays as it is: {reason}")
