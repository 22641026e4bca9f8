"""Which runs are this node's: those in the shards that it holds; of a store with one node, all (D4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.errors import PerdureError
from perdure.model import message as m
from perdure.model.shard import shard_of
from perdure.runtime.attempt import Attempt
from perdure.runtime.work import Install, Item, run_of

if TYPE_CHECKING:
    from perdure.runtime.client import Client
    from perdure.runtime.engine import Engine

log = logging.getLogger("perdure.node")


class Moved(PerdureError):
    """A run that was waited for here is another node's now."""


class Territory:
    """Shape: `shards` are those held, None where there is but one node; `handed` are (shard, epoch) of owners before
    that let go cleanly; `leaving` are shards whose runs begin nothing new any more.
    """

    def __init__(self) -> None:
        self.shards: frozenset[int] | None = None
        self.leaving: frozenset[int] = frozenset()
        self.handed: set[tuple[int, int]] = set()

    def owns(self, run_id: str) -> bool:
        """Whether a run is this node's."""
        return self.shards is None or shard_of(run_id) in self.shards

    def begins(self, run_id: str) -> bool:
        """Whether steps of a run may begin here."""
        return not self.leaving or shard_of(run_id) not in self.leaving

    def handed_over(self, run_id: str, epoch: int) -> bool:
        """Whether the owner before let the run go cleanly."""
        return (shard_of(run_id), epoch) in self.handed

    def listed(self) -> tuple[int, ...] | None:
        """The shards as queries name them."""
        return None if self.shards is None else tuple(sorted(self.shards))


class Borders:
    """Takes shards in, lets them go, and passes on what is for other nodes' runs."""

    def __init__(self, engine: Engine, elsewhere: Client) -> None:
        self.engine, self.node, self.elsewhere = engine, engine.node, elsewhere
        self._sending: set[asyncio.Task[None]] = set()

    def gained(self, shards: Iterable[int], handed: Iterable[tuple[int, int]] = ()) -> None:
        """These are this node's from now on: their work is found by the sweep."""
        territory, sweep = self.node.territory, self.engine.sweep
        territory.shards = frozenset(territory.shards or ()) | frozenset(shards)
        territory.handed.update(handed)
        sweep.next_due, sweep.passed = 0, None
        sweep.recovering, sweep.recovered = True, None
        sweep.rescan()

    async def leave(self, shards: Iterable[int], patience_s: float) -> None:
        """Let the runs of these shards go: nothing of them begins; what is under way may end, for so long."""
        node, territory = self.node, self.node.territory
        going = frozenset(shards)
        territory.leaving |= going
        until = node.clock.monotonic() + patience_s
        while self._busy(going) and node.clock.monotonic() < until and node.lost is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        territory.shards = (territory.shards or frozenset()) - going
        while node.flying is not None or not node.advance.work.empty():
            if node.lost is not None or node.failed is not None:
                break
            node.wake()
            await node.landing()
        self._forget(going)
        territory.leaving -= going

    def _busy(self, going: frozenset[int]) -> bool:
        return any(shard_of(run_id) in going for run_id, _ in self.node.pools.running)

    def _forget(self, going: frozenset[int]) -> None:
        """Drop the runs of these shards from memory; what waited for them goes where they are."""
        node, loader = self.node, self.engine.loader
        for run_id, key in list(node.pools.running):
            if shard_of(run_id) in going:
                node.pools.abandon(run_id, key)
        for run in [run for run in node.advance.runs.values() if shard_of(run.id) in going]:
            del node.advance.runs[run.id]
            node.resident.pop(run.id, None)
            run.decider.drop()
            loader.left(run.id)
        for run_id in [run_id for run_id in loader.wanted if shard_of(run_id) in going]:
            for entry in loader.wanted.pop(run_id):
                self.send(entry)
        queued, node.queue = list(node.queue), node.queue.__class__()
        for entry in queued:
            if shard_of(run_of(entry)) not in going:
                node.queue.append(entry)
                continue
            for one in entry.items if isinstance(entry, Install) else (entry,):
                self.send(one)
        for run_id in [run_id for run_id in node.waiters if shard_of(run_id) in going]:
            for waiter in node.waiters.pop(run_id):
                if not waiter.done():
                    waiter.set_exception(Moved(f"run {run_id} is another node's now"))

    def send(self, entry: Any) -> None:
        """Something for a run that is not this node's: a message that somebody waits for goes on, all else is in the store."""
        if isinstance(entry, Attempt):
            self.node.pools.forget(entry)
        elif isinstance(entry, Item):
            self.engine.loader.seen.discard(entry.inbox_no)
            if entry.reply is not None and not entry.reply.done():
                task = self.node.loop.create_task(self._send(entry))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _send(self, item: Item) -> None:
        assert item.reply is not None
        try:
            message = item.message
            if isinstance(message, m.Start):
                spec = self.node.advance.catalogue.workflow(message.workflow, message.version, message.definition)
                assert spec is not None
                answer = await self.elsewhere._begin(message, spec)
            else:
                answer = await self.elsewhere.send(message, repeated=True)
        except PerdureError as error:
            if not item.reply.done():
                item.reply.set_exception(error)
        else:
            if not item.reply.done():
                item.reply.set_result(answer)
