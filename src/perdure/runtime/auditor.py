"""The audit of an engine that starts (S27): after a failed sync of everything, before any work; else of what is open.

The latter is beside the work, never in front of it: a slice is taken when the node has nothing to fold, and from a busy
node only now and then.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from perdure.errors import StoreDamaged, StoreError
from perdure.kernel.audit import AuditTail
from perdure.kernel.decider import Trouble
from perdure.model import fact as f
from perdure.model.run import Life, RunRow
from perdure.runtime.replay import decode
from perdure.runtime.verify import verify_run
from perdure.state.store import Loaded, Query

if TYPE_CHECKING:
    from perdure.runtime.loader import Loader
    from perdure.runtime.node import Node

log = logging.getLogger("perdure.audit")
TASK = "perdure-audit"
PAGE = 500
# Facts that are looked at in one slice (about a millisecond), and in runs that are read together.
SLICE = 100
# What a slice took is followed by a pause of so many times that, so that the audit takes at most this part of a core.
PAUSE = 20
PAUSE_MIN_S = 0.002
# How long a busy node is waited for before a slice is taken all the same.
BUSY_MAX_S = 1.0
OPEN = (Life.QUEUED, Life.LIVE, Life.ATTENTION)


class Auditor:
    """Shape: `looked` counts runs, `damaged` are the ids of those in which something was found."""

    def __init__(self, node: Node, loader: Loader) -> None:
        self.node, self.loader = node, loader
        self.looked = 0
        self.damaged: list[str] = []
        self._aside: list[asyncio.Task[None]] = []

    async def everything(self) -> None:
        """Audit every run in full, replaying its code where it is served; return when what was found is recorded."""
        node, after = self.node, None
        while rows := await node.store.find(Query(order="old", limit=PAGE, after=after)):
            for row in rows:
                try:
                    report = await verify_run(
                        node.store, node.advance.catalogue, node.settings, row.id, watch=node.watchdog
                    )
                    wrong = "" if report.first is None else str(report.first)
                except StoreDamaged as error:
                    wrong = str(error)
                except StoreError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever a run does to its audit, the others are audited
                    wrong = str(error) or repr(error)
                self._looked(row, wrong)
            after = rows[-1]
        await asyncio.gather(*self._aside)
        await node.settled()
        log.info("all %d runs were audited; %d are damaged", self.looked, len(self.damaged))

    async def run(self) -> None:
        """Look at the histories of all open runs, oldest first, until all were seen."""
        node, after = self.node, None
        try:
            while rows := await node.store.find(Query(life=OPEN, order="old", limit=PAGE, after=after)):
                for group in _groups(rows):
                    await self._rest(0.0)
                    for one in await node.store.load(group, whole=True):
                        self._looked(one.row, await self._wrong(one))
                after = rows[-1]
        except StoreError as error:
            log.warning("the audit was given up: %s", error)

    async def _wrong(self, one: Loaded) -> str:
        """What is wrong with a run's history as it was loaded; empty: nothing."""
        if one.damage:
            return one.damage
        tail, clock = AuditTail(one.row.id, graph=self._graph(one.row)), self.node.clock
        for start in range(0, len(one.facts), SLICE):
            begun = clock.monotonic()
            try:
                part = one.facts[start : start + SLICE]
                for (seq, body, digest), (_, fact) in zip(part, decode(part), strict=True):
                    for violation in tail.feed(f.Recorded(seq, body, digest, fact)):
                        return str(violation)
            except Exception as error:  # noqa: BLE001 - as above
                return str(error) or repr(error)
            await self._rest(clock.monotonic() - begun)
        row = one.row
        if (tail.seq, tail.life) != (row.seq, row.life) or (row.seq and tail.head != row.head):
            return f"its row says {row.life.value} at fact {row.seq}, its history {tail.life.value} at fact {tail.seq}"
        return ""

    def _graph(self, row: RunRow) -> bool:
        spec = self.node.advance.catalogue.workflow(row.workflow, row.version, row.definition)
        return spec is not None and spec.kind == "graph"

    def _looked(self, row: RunRow, wrong: str) -> None:
        self.looked += 1
        if not wrong:
            return
        self.damaged.append(row.id)
        log.error("run %s does not verify: %s", row.id, wrong)
        if row.life is Life.LIVE:
            self._aside.append(self.loader.aside.quarantine(row.id, Trouble("damaged", wrong), []))

    async def _rest(self, spent_s: float) -> None:
        """Give way: for a multiple of the time that was taken, and then until the node has nothing to fold."""
        node = self.node
        await asyncio.sleep(max(PAUSE_MIN_S, spent_s * PAUSE))
        until = node.clock.monotonic() + BUSY_MAX_S
        while (node.queue or node.flying is not None or node.scheduled) and node.clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_MIN_S)


def _groups(rows: list[RunRow]) -> list[list[str]]:
    """Ids of runs that are read together: as many as hold a slice of facts, at least one."""
    groups: list[list[str]] = []
    size = SLICE
    for row in rows:
        if size + row.seq > SLICE:
            groups.append([])
            size = 0
        groups[-1].append(row.id)
        size += row.seq
    return groups
