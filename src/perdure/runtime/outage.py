"""When the store fails: nothing of the batch was shown to anyone, so it is dropped and folded again (D3)."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from perdure.errors import StoreError, StoreLost, StoreUnavailable
from perdure.kernel.decider import Trouble
from perdure.runtime.work import Install, Item, Tick, Work, run_of
from perdure.state.store import BatchRefused

if TYPE_CHECKING:
    from perdure.runtime.live import LiveRun
    from perdure.runtime.node import Node
    from perdure.runtime.work import Entry

log = logging.getLogger("perdure.node")
# After a failed commit: the first and the longest pause before the next try.
PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 2.0


def fail(node: Node, error: StoreError, work: Work | None = None) -> None:
    """Nothing of the batch was shown to anyone: drop its runs, keep its messages, try again later."""
    works = [_ahead(node)] if work is None else [work, _ahead(node)]
    for failed in works:
        for run in failed.runs:
            _drop(node, run)
            if not isinstance(error, BatchRefused):  # whether its attention is taken is not known yet
                node.on_load.aside.runs.discard(run.id)
    for failed in works:
        _undo(node, failed)
    if isinstance(error, StoreLost):
        lose(node, error)
        return
    if isinstance(error, StoreUnavailable):
        if node.failed is None:
            log.warning("the store takes no writes: %s; trying again", error)
        node.failed = error
        node.pause_s = min(PAUSE_MAX_S, max(PAUSE_FIRST_S, node.pause_s * 2))
        node.loop.call_later(node.pause_s, _retry, node)
    else:
        _blame(node, error, works[0])


def reread(node: Node, work: Work) -> None:
    """What follows from a batch that is durable was not done: its runs are read from the store, and go on from there."""
    ahead = _ahead(node)
    for run in {**work.runs, **ahead.runs}:
        _drop(node, run)
    _undo(node, ahead)


def _ahead(node: Node) -> Work:
    """What is folded and not handed to the store is taken out."""
    ahead, node.advance.work = node.advance.work, Work()
    node.advance.pending.clear()
    return ahead


def _undo(node: Node, work: Work) -> None:
    """Fold what the work was made of again; who was to be told of a refusal is told at once."""
    for entry in work.entries:
        _again(node, entry)
    for reply, value in work.replies:
        if isinstance(value, BaseException) and not reply.done():
            reply.set_exception(value)
    node.note_due = node.note_due or work.batch.note is not None


def _again(node: Node, entry: Entry) -> None:
    """Fold an entry again, together with what brings its run back: so it is tried as a whole."""
    if isinstance(entry, Item):
        entry.asked_before = True
    if not isinstance(entry, Tick):  # what is due is so after a reload too
        node.on_load(run_of(entry), entry)


def _drop(node: Node, run: LiveRun) -> None:
    """Drop a run from memory; it is loaded again, whether facts of it were written or not."""
    if node.advance.runs.get(run.id) is run:
        del node.advance.runs[run.id]
    node.resident.pop(run.id, None)
    run.decider.drop()
    node.on_load.left(run.id)
    node.on_load(run.id, None)


def _retry(node: Node) -> None:
    """Try the store again with what was kept."""
    node.failed = None
    node.wake()
    node.on_load.retry()


def _blame(node: Node, error: StoreError, work: Work) -> None:
    """The store refused the batch itself: find the run at fault by giving each a batch of its own."""
    runs = {run.id for run in work.runs}
    touched = runs | work.starts.keys() or {run_of(entry) for entry in work.entries}
    if work.solo and runs <= {work.solo}:
        touched = {work.solo}  # what starts in the batch is of its children
    if len(touched) <= 1:
        for run_id in touched:
            log.error("run %s is refused by the store: %s", run_id, error)
            _set_aside(node, run_id, f"the store refuses its facts: {error}")
        node.suspects -= touched
    else:
        node.suspects |= touched
    node.wake()


def isolate(node: Node, run_id: str, reason: str) -> None:
    """Folding this run failed in a way that nobody foresaw: it goes to attention, the others are folded again."""
    fail(node, BatchRefused(reason), Work())
    _set_aside(node, run_id, f"it cannot be folded: {reason}")


def _set_aside(node: Node, run_id: str, reason: str) -> None:
    """Let a run go to attention; what waits for it in the queue waits for that."""
    queued = [entry for entry in node.queue if run_of(entry) == run_id]
    node.queue = deque(entry for entry in node.queue if run_of(entry) != run_id)
    node.on_load.left(run_id)  # nothing may be added to what was read of it
    waiting: list[Entry] = []
    for entry in queued:
        waiting.extend(entry.items if isinstance(entry, Install) else () if isinstance(entry, Tick) else (entry,))
    aside = node.on_load.aside
    if run_id in aside.runs:
        aside.give_up(run_id, waiting, reason)
    else:
        aside.runs.add(run_id)
        aside.quarantine(run_id, Trouble("not_recorded", reason), waiting)


def lose(node: Node, error: StoreError) -> None:
    """The store can keep nothing any more, or work cannot be found in it: stop for good, tell everyone (S27)."""
    if node.lost is None:
        log.error("the store is lost: %s", error)
    let_go(node, error)


def let_go(node: Node, error: StoreError) -> None:
    """Nothing more is folded or written: everyone who waits is told why (S25, S27)."""
    node.lost = error
    work = node.advance.work
    loaded = [item for entry in node.queue if isinstance(entry, Install) for item in entry.items]
    told = (*node.queue, *loaded, *work.entries, *node.on_load.waiting())
    waiting = [entry.reply for entry in told if isinstance(entry, Item)]
    waiting.extend(reply for reply, _ in work.replies)
    waiting.extend(waiter for waiters in node.waiters.values() for waiter in waiters)
    for waiter in (*waiting, *node.room):
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
    for one in (node.queue, node.waiters, node.room, node.on_load.wanted):
        one.clear()
