"""The ways back: retry of an ended run, a person's word on one that needs attention, fork (S19 to S22)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure.errors import (
    IdInUse,
    NonDeterminism,
    PerdureError,
    StoreDamaged,
    StoreError,
    UnknownRun,
    UnknownWorkflow,
    WrongState,
)
from perdure.kernel.forced import Forced
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.command import StartChild
from perdure.model.run import Life, Outcome, RunRow
from perdure.runtime.doubt import in_time
from perdure.runtime.live import LiveRun
from perdure.runtime.replay import Attention, blobs_of, decode, effective, fill, forced, make, replay, stamp, stood_on
from perdure.runtime.ways import ends_already, unknown_step
from perdure.runtime.work import Install, Item
from perdure.state.store import Loaded, NewRun

if TYPE_CHECKING:
    from perdure.runtime.loader import Loader

log = logging.getLogger("perdure.revive")
PAGE = 500
Known = list[tuple[int, f.AnyFact]]
# What follows from a fact without anything new from outside: a fork decides it anew.
_FOLLOWS = (*f.DECISIONS, f.AttentionSet)
_EARLIER = re.compile(r"undo:(.*)@\d+", re.DOTALL)


class Revive:
    """Makes runs that had stopped move again."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    async def _whole(self, run_id: str, moves: str = "") -> tuple[Loaded, Known]:
        """All of a run, read when what it will write may be written now.

        Shape: `moves` is the run that writes, where it is another one.
        """
        store = self.loader.node.store
        while True:
            found = await store.load([run_id], whole=True)
            if not found:
                raise UnknownRun(run_id)
            known = decode(found[0].facts)
            hashes = blobs_of(known)
            if hashes:
                fill(known, await store.blobs(sorted(hashes)))
            if await self.loader.aside.may_write(moves or run_id):
                return found[0], known

    async def retry(self, item: Item, row: RunRow) -> None:
        """The next generation of a failed or cancelled run (S21)."""
        message, run = item.message, None
        assert isinstance(message, m.Retry)
        try:
            if row.life is Life.COMPLETED:
                raise WrongState(f"run {row.id} has completed: there is nothing to retry; fork it to run it again")
            one, known = await self._whole(row.id)
            undone = undone_before(known)
            if undone:
                raise WrongState(
                    f"run {row.id} cannot be retried: {undone} of an earlier generation was compensated, and is not made "
                    "again: start a new run"
                )
            run = self._made(one)
            fact = f.RunRetried(
                0, 0, 0, row.generation + 1, keep_until(known), message.by, message.why, message.request
            )
            kept = [*known, (row.seq + 1, fact)]
            self._replayed(run, kept, last=row.seq + 1)
            self._join(run, known, item, fact)
        except PerdureError as error:
            self._refused(run, item, error)

    def _refused(self, run: LiveRun | None, item: Item, error: PerdureError) -> None:
        """The sender is told; a run that was made for the message and has not joined leaves memory.

        Raises: the error again where the store cannot be read now: it says nothing of what was asked, which waits.
        """
        node = self.loader.node
        if run is not None and node.advance.runs.get(run.id) is not run:
            run.decider.drop()
        if isinstance(error, StoreError) and not isinstance(error, StoreDamaged):
            raise error
        node.refuse(item, error)
        node.wake()

    def _made(self, one: Loaded) -> LiveRun:
        run = self.loader.make(one.row)
        if run is None:
            raise UnknownWorkflow(one.row.workflow, one.row.version)
        return run

    def _replayed(self, run: LiveRun, history: Known, last: int) -> None:
        """Feed what is kept, up to and without the fact `last`, which is new."""
        known, copied = stood_on(run.decider, history)
        try:
            anew = replay(run.decider, [entry for entry in known if entry[0] < last], copied=copied)
        except (NonDeterminism, Attention) as error:
            raise WrongState(f"run {run.id} cannot be revived: {error}") from None
        if not anew:
            run.decider.commands.clear()

    async def _kept(self, run_id: str) -> list[Item]:
        """What was said to a run while it needed attention: it comes before the timers that were due later (S11)."""
        node, after = self.loader.node, 0
        items: list[Item] = []
        while rows := await node.store.inbox(after, PAGE):
            after = rows[-1].no
            told = [
                row
                for row in rows
                if row.message.run == run_id
                and isinstance(row.message, m.Signal | m.ChildDone)
                and in_time(node.clock, row.message)
            ]
            items.extend(Item(row.message, None, row.no) for row in told)
        return items

    def _join(self, run: LiveRun, known: Known, item: Item, fact: f.AnyFact, *, kept: Sequence[Item] = ()) -> None:
        """Record the fact that revives the run, and let it go on with what was kept for it."""
        node = self.loader.node
        advance = node.advance
        if run.id in advance.runs:
            raise WrongState(f"run {run.id} moves already")
        self.loader.seen.update(one.inbox_no for one in kept)
        run.requests.update(request for _, old in known if (request := getattr(old, "request", "")))
        run.life, run.outcome = Life.LIVE, None
        advance.now = node.clock.now_us()
        advance.runs[run.id] = run
        decider = run.decider
        fact.at, fact.asked_n, fact.asked_h = advance.at(run), decider.asked_n, decider.asked_h
        if isinstance(fact, f.RunRetried):
            run.generation = fact.generation
        stamp(decider.decisions, fact.at)
        advance.record(run, fact)
        work = advance.work
        work.entries.append(item)
        if item.inbox_no:
            work.batch.inbox_done.append(item.inbox_no)
        if item.message.request:
            run.requests.add(item.message.request)
            work.batch.answers.append((item.message.request, run.id, b'{"seq":%d}' % run.seq))
        if item.reply is not None:
            work.replies.append((item.reply, run.seq))
        work.runs[run] = None
        self.loader.kept_back.discard(run.id)
        node.rescan()
        if run.life is Life.LIVE:
            node.post(Install(run, list(kept)))

    async def resume(self, item: Item, row: RunRow) -> None:
        """A person's word on a run that needs attention: try again, resolve a step, or cancel."""
        node, message, run = self.loader.node, item.message, None
        try:
            one, known = await self._whole(row.id)
            if isinstance(message, m.Cancel) and message.force:
                self._force(one, known, item)
                return
            if isinstance(message, m.Retry):
                refuse_to_guess(row.id, known)
            run = self._made(one)
            if forced(known):  # what was begun without its code goes on so
                self.loader.forced(run, one.row, effective(known, "graph"))
            else:
                self._replayed(run, known, last=row.seq + 1)
            if isinstance(message, m.Cancel) and _ends(run):
                raise ends_already(row.id, msgspec.json.decode(one.row.outcome or b"{}", type=Outcome))
            why = message.why if isinstance(message, m.Retry) else type(message).__name__.lower()
            by = getattr(message, "by", "")
            if isinstance(message, m.Resolve) and message.step not in run.decider.open:
                open_now = ", ".join(run.decider.open) or "none"
                raise WrongState(f"run {run.id} has no open step {message.step!r}; open are: {open_now}")
            request = message.request if isinstance(message, m.Retry) else ""
            kept = await self._kept(row.id)
            self._join(run, known, item, f.RunResumed(0, 0, 0, by, why, request), kept=kept)
            run.definition = run.spec.definition_hash
            if not isinstance(message, m.Retry) and run.life is Life.LIVE:
                run.requests.discard(message.request)
                node.advance.message(run, message)
            elif message.request:
                node.advance.work.runs[run] = None
            if run.life is Life.LIVE:
                self.loader.recovery.doubtful(run)
            node.wake()
        except PerdureError as error:
            self._refused(run, item, error)

    async def force(self, run_id: str, item: Item) -> bool:
        """End a live run without its code (S19). False when it is live no more: its message takes the common way."""
        node = self.loader.node
        while True:
            one, known = await self._whole(run_id)
            present = node.advance.runs.get(run_id)
            if one.row.life is not Life.LIVE or (present is not None and present.life is not Life.LIVE):
                return False
            if present is None or (
                present.seq == one.row.seq and present.batch is None and present not in node.advance.work.runs
            ):
                break
            await node.landing()
        if present is not None:
            del node.advance.runs[run_id]
            node.resident.pop(run_id, None)
            for key in list(present.decider.open):
                node.pools.abandon(run_id, key)
            present.decider.drop()
            self.loader.left(run_id)
        self._force(one, known, item)
        return True

    def _force(self, one: Loaded, known: Known, item: Item) -> None:
        """End a run without its code, compensating from its facts."""
        node = self.loader.node
        advance = node.advance
        decider = Forced(one.row.id, one.row.workflow, advance.catalogue)
        for seq, fact in effective(known, "graph"):
            decider.on(fact, seq)
        decider.asked_n, decider.asked_h = one.row.asked_n, one.row.asked_h
        run = LiveRun(one.row.id, decider.spec, decider)
        run.ref.no, run.seq, run.head, run.generation = one.row.no, one.row.seq, one.row.head, one.row.generation
        run.parent, run.parent_key, run.input_hash = one.row.parent, one.row.parent_key, one.row.input_hash
        run.definition = run.kept = one.row.definition
        message = item.message
        assert isinstance(message, m.Cancel)
        self._join(run, known, item, f.CancelRequested(0, 0, 0, message.reason, message.request, True))
        node.wake()

    async def fork(self, item: Item) -> None:
        """A new run with the first facts of another (S22)."""
        node, message, run = self.loader.node, item.message, None
        assert isinstance(message, m.Fork)
        try:
            one, known = await self._whole(message.origin, message.run)
            if not 1 <= message.upto <= one.row.seq:
                raise WrongState(f"run {message.origin} has {one.row.seq} facts: it cannot be forked at {message.upto}")
            kept = [entry for entry in known if entry[0] <= message.upto]
            while len(kept) > 1 and isinstance(kept[-1][1], _FOLLOWS):
                kept.pop()
            spec = node.advance.catalogue.workflow(one.row.workflow, one.row.version, one.row.definition)
            if spec is None:
                raise UnknownWorkflow(one.row.workflow, one.row.version)
            advance = node.advance
            run = LiveRun(message.run, spec, make(message.run, spec, advance.catalogue, advance.limits))
            kept[0] = (1, forked(kept, message.origin, run.decider.shape))
            stands_on, copied = stood_on(run.decider, kept)
            last = kept.pop()
            replay(run.decider, stands_on[:-1], copied=copied)
            run.decider.commands.clear()
            self._write_fork(run, one, kept, item, last[1])
        except PerdureError as error:
            self._refused(run, item, error)

    def _write_fork(self, run: LiveRun, one: Loaded, kept: Known, item: Item, last: f.AnyFact) -> None:
        node = self.loader.node
        advance = node.advance
        work = advance.work
        if run.id in advance.runs:
            raise IdInUse(run.id, one.row.workflow)
        advance.now = node.clock.now_us()
        run.input_hash = one.row.input_hash
        advance.runs[run.id] = run
        work.batch.starts.append(
            NewRun(
                ref=run.ref, workflow=one.row.workflow, version=one.row.version, definition=run.spec.definition_hash,
                input_hash=one.row.input_hash, tags=one.row.tags, source=one.row.source, request=item.message.request,
                created_at=advance.now, drawn=False,
            )
        )  # fmt: skip
        work.starts[run.id] = (run, item)
        work.entries.append(item)
        for _, fact in kept:
            advance.write(run, fact)
        copied = (*(fact for _, fact in kept), last)
        eras = (fact.generation for fact in copied if isinstance(fact, f.RunContinued | f.RunRetried))
        run.generation = max(eras, default=1)
        asked = list(run.decider.children.values())
        advance.record(run, last)
        if item.reply is not None:
            work.replies.append((item.reply, run.id))
        if item.inbox_no:
            work.batch.inbox_done.append(item.inbox_no)
        for child in asked:
            run.decider.commands.append(StartChild(child.key, child.id, child.workflow, child.args))
        advance._command(run)  # its children begin in the commit of its own facts
        node.post(Install(run, []))
        node.wake()


def forked(kept: Known, origin: str, shape: str) -> f.RunStarted:
    """The first fact of a fork.

    Shape: `fork_of` is the run in whose order the copied generation was recorded: that of a fork which was forked again
           within the generation that it had copied itself is the first one's.
    """
    start = kept[0][1]
    assert isinstance(start, f.RunStarted)
    if start.fork_of and effective(kept, shape)[0][0] <= start.fork_at:
        origin = start.fork_of
    return msgspec.structs.replace(start, fork_of=origin, fork_at=kept[-1][0], parent="", parent_key="")


def undone_before(known: Known) -> str:
    """A step of an earlier generation that was compensated after the run had continued as new; empty: none."""
    start = max((i for i, (_, fact) in enumerate(known) if isinstance(fact, f.RunContinued)), default=len(known))
    for _, fact in known[start:]:
        if isinstance(fact, f.StepCompleted) and (undone := _EARLIER.fullmatch(fact.key)):
            return undone[1]
    return ""


def _ends(run: LiveRun) -> bool:
    """Whether the run was told to cancel, or settles to fail: its compensations are no second cancel's to try again."""
    intent = run.decider.intent
    return run.decider.cancelled is not None or (intent is not None and intent.kind != "continued")


def refuse_to_guess(run_id: str, known: Known) -> None:
    """Raises: `WrongState` where trying again would repeat what may be done at most once (S16)."""
    last = next((fact for _, fact in reversed(known) if isinstance(fact, f.AttentionSet)), None)
    if last is not None and last.cause == "outcome_unknown":
        raise unknown_step(run_id, last.step)


def keep_until(known: Known) -> int:
    """How far a flow's facts are kept by a retry: up to the first final failure, the first success that was
    compensated later, or a cancel request (S21). Counted from the newest generation's start.
    """
    start = max((i for i, (_, fact) in enumerate(known) if isinstance(fact, f.RunStarted | f.RunContinued)), default=0)
    recent = effective(known, "flow")
    undone = {
        fact.key.removeprefix("undo:") for _, fact in known[start:]
        if isinstance(fact, f.StepCompleted) and fact.key.startswith("undo:")
    }  # fmt: skip
    keep = 0
    for seq, fact in recent:
        if isinstance(fact, f.CancelRequested | f.RunFailed | f.RunCancelled):
            break
        if isinstance(fact, f.AttemptFailed) and fact.retry_at is None:
            break
        if isinstance(fact, f.ChildEnded) and (fact.status != "completed" or fact.key in undone):
            break
        if isinstance(fact, f.StepCompleted) and fact.key in undone:
            break
        if isinstance(fact, f.StepResolved) and fact.how == "fail":
            break
        keep = seq
    return keep
