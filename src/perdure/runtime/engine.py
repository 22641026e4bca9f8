"""The engine: a node over a store that it holds alone, and what may be asked of its runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from contextlib import suppress
from typing import Any

from perdure.authoring.registry import Registry
from perdure.clock import Clock
from perdure.errors import EngineStopped, ResultTimeout, StoreError
from perdure.model import message as m
from perdure.model.run import Life
from perdure.model.workflow import WorkflowSpec
from perdure.monitoring.activity import Activity
from perdure.runtime.auditor import TASK as AUDIT
from perdure.runtime.auditor import Auditor
from perdure.runtime.client import Client
from perdure.runtime.desk import Desk
from perdure.runtime.live import Ended
from perdure.runtime.loader import Loader
from perdure.runtime.node import Node, done
from perdure.runtime.outage import let_go
from perdure.runtime.suspects import Suspects
from perdure.runtime.sweep import Sweep
from perdure.runtime.territory import Borders, Moved
from perdure.settings import Settings
from perdure.state.store import EpochRow, WholeStore

log = logging.getLogger("perdure.engine")
SETTLE_S = 5.0
# How many ids are drawn for a run of our own shards, before one of another node's is taken.
DRAWS_MAX = 1_000


class Engine(Desk):
    """Runs the workflows it serves. Made by `perdure.open(...)`.

    Shape: `epoch` is this engine's time on the store; `node` its loop.
    """

    def __init__(
        self,
        store: WholeStore,
        settings: Settings,
        clock: Clock,
        registry: Registry,
        *,
        epoch: int,
        earlier: list[EpochRow],
    ) -> None:
        super().__init__(store, settings, clock, registry)
        self.epoch = epoch
        self.node = Node(store, registry, settings, clock, epoch)
        self.watch = self.node.watchdog
        self.node.pools.processes.roster = getattr(store, "roster", None)
        clean = [row.epoch for row in earlier if row.clean]
        self.loader = Loader(self.node, clean, f"{os.uname().nodename}:{os.getpid()}")
        self.suspects = Suspects(self.node, self.loader, earlier, registry.names())
        self.sweep = Sweep(self.node, self.loader)
        self.auditor = Auditor(self.node, self.loader)
        self.elsewhere = Client(store, settings, clock, registry)
        self.borders = Borders(self, self.elsewhere)
        self.node.elsewhere = self.borders.send
        self._sweeping: asyncio.Task[None] | None = None
        self._auditing: asyncio.Task[None] | None = None
        self._collector: tuple[int, int, int] | None = None

    async def begin(self) -> None:
        """Let it move: sweep the store, watch for blocking code. After a failed sync, audit everything first (S27)."""
        if self.settings.gc_threshold:
            self._collector = gc.get_threshold()
            gc.set_threshold(self.settings.gc_threshold, 20, 50)
        self.node.watchdog.start()
        if getattr(self.store, "needs_full_check", False):
            await self.auditor.everything()
            self.store.audited()  # type: ignore[attr-defined]
        elif self.settings.audit_open:
            self._auditing = asyncio.create_task(self.auditor.run(), name=AUDIT)
        self._sweeping = asyncio.create_task(self.sweep.run(), name="perdure-sweep")

    async def stop(self) -> None:
        """Stop the engine; its runs go on at the next start (S25).

        Cancelled, it takes no more time for what it is at, and does the rest all the same: the store is let go.
        """
        self.node.stopping = True
        trouble: BaseException | None = None
        for step in (self._end_attempts, self._settle, self._end_beside, self._clean_mark):
            try:
                await step()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised at the end
                trouble = trouble or error
        self._let_go()
        await self.store.close()
        if trouble is not None:
            raise trouble

    async def _end_attempts(self) -> None:
        await self.node.pools.stop(self.settings.stop_grace_s)

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_S):
                await self.node.settled()
        except TimeoutError:
            log.warning("the last batch could not be committed in %gs", SETTLE_S)

    async def _end_beside(self) -> None:
        """End what goes on beside the node's loop."""
        node = self.node
        node.watchdog.stop()
        node.dues.stop()
        beside = [task for task in (self._sweeping, self._auditing, self.loader.task) if task is not None]
        beside.extend(self.loader.aside.tasks)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)

    def _let_go(self) -> None:
        """Tell who waits, and forget all runs."""
        node = self.node
        if node.lost is None:
            let_go(node, EngineStopped("the engine has stopped; its runs go on at the next start"))
        for run in list(node.advance.runs.values()):
            run.decider.drop()
        node.advance.runs.clear()
        self.loader.drop()
        if self._collector is not None:
            gc.set_threshold(*self._collector)

    async def _clean_mark(self) -> None:
        if self.node.lost is not None or self.node.failed is not None or self.node.flying is not None:
            return
        batch = self.node.advance.work.batch.__class__()
        batch.clean, batch.clock = True, self.clock.now_us()
        try:
            await done(self.store.commit(batch))
        except StoreError as error:
            log.warning("the clean stop could not be marked: %s", error)

    def _doing(self) -> dict[int, Activity]:
        return {self.epoch: self.suspects.picture.now()}

    async def send(self, message: m.Message, *, repeated: bool = False) -> Any:
        if self.node.territory.owns(message.run):
            return await self.node.ask(message, repeated=repeated)
        return await self.elsewhere.send(message, repeated=repeated)

    async def _begin(self, message: m.Start, spec: WorkflowSpec) -> Any:
        if self.node.territory.owns(message.run):
            return await self.node.ask(message)
        return await self.elsewhere._begin(message, spec)

    def _draw(self, name: str) -> str:
        drawn = super()._draw(name)
        for _ in range(DRAWS_MAX):
            if self.node.territory.owns(drawn):
                break
            drawn = super()._draw(name)
        return drawn

    async def wait_end(self, run_id: str, timeout_us: int | None) -> Ended:
        until = None if timeout_us is None else self.clock.monotonic() + timeout_us / 1e6
        if self.node.territory.owns(run_id):
            with suppress(Moved):
                return await self._wait_here(run_id, timeout_us)
        left = None if until is None else round(max(0.0, until - self.clock.monotonic()) * 1e6)
        return await self.elsewhere.wait_end(run_id, left)

    async def _wait_here(self, run_id: str, timeout_us: int | None) -> Ended:
        node = self.node
        if node.lost is not None:
            raise node.lost
        waiter: asyncio.Future[Ended] = node.loop.create_future()
        node.waiters.setdefault(run_id, []).append(waiter)
        try:
            if run_id not in node.advance.runs:
                # A run in memory tells its end itself; of any other only its row knows whether it has ended.
                row = await self.row(run_id)
                if row.life.ended or row.life is Life.ATTENTION:
                    return Ended.of(row)
            # Never asyncio.wait_for, which takes no notice of a cancellation beside the end.
            async with asyncio.timeout(None if timeout_us is None else timeout_us / 1e6):
                return await waiter
        except TimeoutError:
            raise ResultTimeout(f"run {run_id} has not ended within {(timeout_us or 0) / 1e6:g}s; it goes on") from None
        finally:
            waiting = node.waiters.get(run_id)
            if waiting is not None and waiter in waiting:
                waiting.remove(waiter)
                if not waiting:
                    del node.waiters[run_id]
