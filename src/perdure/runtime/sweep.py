"""What finds all work without any hint (D5): the inbox, runs that are due, to be recovered, to be removed."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from perdure.errors import StoreDamaged, StoreError, StoreLost
from perdure.model import message as m
from perdure.model.run import Life, Outcome, RunRow
from perdure.runtime.admission import Queue
from perdure.runtime.doubt import in_time
from perdure.runtime.live import LiveRun
from perdure.runtime.outage import lose
from perdure.runtime.work import Item
from perdure.state.store import Query

if TYPE_CHECKING:
    from perdure.runtime.loader import Loader
    from perdure.runtime.node import Node
    from perdure.runtime.work import Work

log = logging.getLogger("perdure.sweep")
PAGE = 500
RETENTION_EVERY_S = 5.0
# A wall that is so far behind cannot tell the next engine what time it is: then the clock is kept so often.
BEHIND_US = 1_000_000
CLOCK_EVERY_US = 60_000_000


class Sweep:
    """Shape: `seen` are inbox rows that are being folded; `next_due` the earliest due time of a run out of memory,
    where known; up to `passed` all that are due are loaded, or never will be here; up to `recovered` all with steps to
    be made are asked for, while `recovering`; `doubted` while a message's time is beyond what is believed.
    """

    def __init__(self, node: Node, loader: Loader) -> None:
        self.node, self.loader = node, loader
        self.seen = loader.seen
        self.queue = Queue(node, loader)
        self.after = self.settled = 0
        self.marks: deque[tuple[float, int]] = deque()
        self.settles_s: float = getattr(node.store, "settles_s", 0.0)
        self.next_due: int | None = 0
        self.passed: RunRow | None = None
        self.doubted = False
        self.recovering = True
        self.recovered: RunRow | None = None
        self.hint = asyncio.Event()
        self.retained_at = 0.0
        node.on_evict = self.evicted
        node.rescan, node.hint = self.rescan, self.hint.set
        node.on_commit.append(self._committed)
        getattr(node.store, "hears", []).append(self.hint.set)

    def evicted(self, run: LiveRun) -> None:
        """A run left memory; remember when the earliest of them is due."""
        if run.due is not None and (self.next_due is None or run.due < self.next_due):
            self.next_due = run.due

    def rescan(self) -> None:
        """Look at the whole inbox again: a run that kept messages there moves again."""
        self.after = self.settled = 0
        self.marks.clear()
        self.queue.held.clear()
        self.hint.set()

    def _committed(self, work: Work) -> None:
        self.queue.committed(work.batch.inbox_done)

    async def run(self) -> None:
        """Sweep until cancelled: at once when another process wrote, and in any case every second."""
        node, settings = self.node, self.node.settings
        swept = 0.0
        while True:
            try:
                if (
                    self.hint.is_set()
                    or node.store.changed()
                    or node.clock.monotonic() - swept >= settings.sweep_every_s
                ):
                    self.hint.clear()
                    whole = node.clock.monotonic() - swept >= settings.sweep_every_s
                    await self._inbox(again=whole)
                    if whole:
                        swept = node.clock.monotonic()
                        self._settle(swept)
                        await self._retention()
                        self.loader.suspects.picture.tell()
                await self.queue.admit()
                if self.recovering:
                    await self._recover()
                await self._due()
                self._clock()
                node.keep_progress()
            except (StoreLost, StoreDamaged) as error:
                lose(node, error)
                return
            except StoreError as error:
                log.warning("sweeping: %s", error)
            except Exception:
                log.exception("sweeping")  # it is tried again: without the sweep nothing is found any more
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.watch_every_s):
                    await self.hint.wait()

    async def _inbox(self, *, again: bool) -> None:
        """Take what other processes wrote. Shape: `again`: also what may have become visible out of order since."""
        node, self.doubted = self.node, False
        after = self.settled if again else self.after
        while True:
            rows = await node.store.inbox(after, PAGE, node.territory.listed())
            for row in rows:
                self.doubted = not in_time(node.clock, row.message)
                if self.doubted:
                    return  # the rest came later: it is looked at again with the next sweep
                after = row.no
                self.after = max(self.after, after)
                if row.no not in self.seen and row.no not in self.queue.held:
                    self.queue.take(row)
            if len(rows) < PAGE:
                return

    def _settle(self, now: float) -> None:
        """Up to where the inbox is complete: transactions that drew a number so long ago are over."""
        self.marks.append((now, self.after))
        while self.marks and now - self.marks[0][0] >= self.settles_s:
            self.settled = self.marks.popleft()[1]

    def _clock(self) -> None:
        """See to it that a wall set forward wakes who is due, and that one set back costs a minute at most (S12)."""
        node = self.node
        now = node.clock.now_us()
        if node.dues.overdue(now) and node.failed is None and node.lost is None:
            node.dues.ring()
        if now - node.clock.wall_us() > BEHIND_US and now - node.advance.now > CLOCK_EVERY_US:
            node.advance.now = now
            self.loader.suspects.keep()

    async def _due(self) -> None:
        """Load the runs out of memory that are due, the earliest first."""
        now = self.node.clock.now_us()
        if self.next_due is None or self.next_due > now or self.node.failed is not None:
            return
        due = Query(
            life=(Life.LIVE,), due_before=now, order="due", limit=PAGE, after=self.passed,
            shards=self.node.territory.listed(),
        )  # fmt: skip
        rows = await self.node.store.find(due)
        fresh = 0
        for row in rows:
            if (
                row.id not in self.node.advance.runs
                and row.id not in self.loader.unserved
                and row.id not in self.loader.wanted
            ):
                fresh += 1
                self.loader(row.id, None)
        if len(rows) == PAGE:
            if not fresh:
                self.passed = rows[-1]
        else:
            shards = self.node.territory.listed()
            later = await self.node.store.find(
                Query(life=(Life.LIVE,), order="due", limit=1, due_after=now, shards=shards)
            )
            self.next_due = later[0].wait.due if later else None

    async def _recover(self) -> None:
        """After a start: load the runs with steps to be made, oldest first; sleepers stay where they are.

        A page at a time, as fast as they are loaded: other work is looked for in between (S15).
        """
        node = self.node
        if len(self.loader.wanted) > PAGE:
            return
        shards = node.territory.listed()
        busy = Query(life=(Life.LIVE,), busy=True, order="old", limit=PAGE, after=self.recovered, shards=shards)
        rows = await node.store.find(busy)
        for row in rows:
            if row.id not in node.advance.runs and row.id not in self.loader.unserved:
                self.loader(row.id, None)
        if len(rows) == PAGE:
            self.recovered = rows[-1]
            return
        await self._mended()
        self.recovering = False

    async def _mended(self) -> None:
        """Runs whose code had differed from their history are tried with other code by themselves (S19)."""
        node, after, shards = self.node, None, self.node.territory.listed()
        while rows := await node.store.find(
            Query(life=(Life.ATTENTION,), order="old", limit=PAGE, after=after, shards=shards)
        ):
            for row in rows:
                outcome = msgspec.json.decode(row.outcome or b"{}", type=Outcome)
                spec = node.advance.catalogue.workflow(row.workflow, row.version, row.definition)
                if outcome.cause == "nondeterminism" and spec is not None and spec.definition_hash != row.definition:
                    why = f"its code is another one now ({spec.definition_hash})"
                    self.loader(row.id, Item(m.Retry(run=row.id, at=node.clock.now_us(), by="engine", why=why)))
            after = rows[-1]

    async def _retention(self) -> None:
        """Remove trees of runs of which all ended long ago (S28)."""
        node, keep_s = self.node, self.node.settings.retention_s
        now = node.clock.monotonic()
        if not keep_s or now - self.retained_at < min(RETENTION_EVERY_S, keep_s):
            return
        self.retained_at = now
        before = node.clock.now_us() - round(keep_s * 1e6)
        shards = node.territory.listed()
        roots = await node.store.find(Query(roots=True, ended_before=before, order="old", limit=PAGE, shards=shards))
        for root in roots:
            tree = await self._tree(root.id, before)
            if tree is not None:
                node.advance.work.batch.remove.extend(tree)
        node.wake()

    async def _tree(self, root: str, before: int) -> list[str] | None:
        """The ids of a root and all below it; None when one of them had not ended by then."""
        ids, level = [root], [root]
        while level:
            below: list[str] = []
            for parent in level:
                after = None
                while True:
                    rows = await self.node.store.find(Query(parent=parent, order="old", limit=PAGE, after=after))
                    if any(row.ended_at is None or row.ended_at > before for row in rows):
                        return None
                    below.extend(row.id for row in rows)
                    if len(rows) < PAGE:
                        break
                    after = rows[-1]
            ids.extend(below)
            level = below
        return ids
