"""Which starts begin now, and which are acknowledged and queued: their rows and messages are kept in the store (S13).

A start of an id that somebody chose may turn out to be of one in use, only when its batch is committed. So one whose
first turn is heard of by others (it starts a child, or signals) is queued too: it begins once the id is known to be its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from perdure.errors import UnknownWorkflow
from perdure.model import message as m
from perdure.runtime import definitions
from perdure.runtime.doubt import in_time
from perdure.runtime.work import Item

if TYPE_CHECKING:
    from perdure.runtime.loader import Loader
    from perdure.runtime.node import Node
    from perdure.runtime.work import Work
    from perdure.state.store import InboxRow

# Queued starts that begin between two looks at other work.
ADMITTED_MAX = 200


def room(node: Node) -> int:
    """How many more runs may move at once; those that only wait do not count."""
    return node.settings.runs_live_max - (len(node.advance.runs) - len(node.resident))


def fold_start(node: Node, item: Item, message: m.Start) -> None:
    """Begin a run, or queue it. Raises: `UnknownWorkflow`, `IdInUse`; nothing was written."""
    advance = node.advance
    work, there = advance.work, message.run in advance.runs
    placed = not there or advance.runs[message.run].placed
    if item.inbox_no or item.asked_before or not placed or (not there and message.run in work.starts):
        work.entries.pop()
        node.on_load(message.run, item)
        return
    if not there and room(node) <= 0:
        queue(node, item, message)
        return
    mark = work.mark()
    run = advance.start(message)
    if not there and not message.drawn and (advance.pending or len(work.batch.inbox) > mark.inbox):
        advance.pending.clear()
        work.back_to(mark)
        del work.runs[run], advance.runs[run.id]
        run.decider.drop()
        queue(node, item, message)
        return
    if not there:
        work.starts[run.id] = (run, item)
    if item.reply is not None:
        work.replies.append((item.reply, run.id))


def queue(node: Node, item: Item, message: m.Start) -> None:
    """Keep a start in the store, to begin later. Raises: `UnknownWorkflow`."""
    advance = node.advance
    spec = advance.catalogue.workflow(message.workflow, message.version, message.definition)
    if spec is None:
        raise UnknownWorkflow(message.workflow, message.version)
    work, new = advance.work, advance.new_run(message)
    work.batch.starts.append(new)
    if spec.kind == "graph":
        work.size += definitions.keep(work.batch, new.ref, spec)
    work.batch.inbox.append(message)
    work.starts[message.run] = (None, item)
    if item.reply is not None:
        work.replies.append((item.reply, message.run))
    node.hint()


def refused(node: Node, work: Work, ids: frozenset[str]) -> None:
    """Starts whose id was in use: nothing of them is told or begun, what was folded is forgotten; the store's row answers."""
    for run_id in [run_id for run_id in work.starts if run_id in ids]:
        run, item = work.starts.pop(run_id)
        work.replies = [(reply, value) for reply, value in work.replies if value != run_id or reply is not item.reply]
        if run is not None:
            work.runs.pop(run, None)
            work.begins = [(other, steps) for other, steps in work.begins if other is not run]
            if node.advance.runs.get(run_id) is run:
                del node.advance.runs[run_id]
            run.decider.drop()
        item.asked_before = True
        node.on_load(run_id, item)


class Queue:
    """The queued starts in the inbox. Shape: `held` are their row numbers, `begun` those that are being folded."""

    def __init__(self, node: Node, loader: Loader) -> None:
        self.node, self.loader = node, loader
        self.held: OrderedDict[int, None] = OrderedDict()
        self.begun: set[int] = set()

    def take(self, row: InboxRow) -> None:
        """Hand a row of the inbox to its run; a start waits where there is no room for it."""
        if isinstance(row.message, m.Start):
            if self.held or room(self.node) <= len(self.begun):
                self.held[row.no] = None
                return
            self.begun.add(row.no)
        self.loader.seen.add(row.no)
        item = Item(row.message, None, row.no)
        item.asked_before = True
        self.loader(row.message.run, item)

    async def admit(self) -> None:
        """Begin queued starts, the oldest first, as far as there is room."""
        for _ in range(ADMITTED_MAX):
            if not self.held or room(self.node) <= len(self.begun):
                return
            first = next(iter(self.held))
            rows = await self.node.store.inbox(first - 1, 1)
            if rows and not in_time(self.node.clock, rows[0].message):
                return
            if first not in self.held:
                continue  # the whole inbox is looked at again
            del self.held[first]
            if rows and rows[0].no == first and first not in self.loader.seen:
                waiting, self.held = self.held, OrderedDict()
                self.take(rows[0])
                self.held.update(waiting)

    def committed(self, done: list[int]) -> None:
        """These rows are folded and gone."""
        self.begun.difference_update(done)
        self.loader.seen.difference_update(done)
