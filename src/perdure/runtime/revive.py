"""The ways back: retry of an ended run, a person's word on one that needs attention, fork (S19 to S22)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.errors import IdInUse, NonDeterminism, PerdureError, UnknownRun, UnknownWorkflow, WrongState
from perdure.kernel.forced import Forced
from perdure.kernel.steps import STUCK
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.command import StartChild
from perdure.model.run import Life, RunRow
from perdure.runtime.live import LiveRun
from perdure.runtime.replay import Attention, blobs_of, decode, effective, fill, make, replay
from perdure.runtime.work import Install, Item
from perdure.state.store import Loaded, NewRun

if TYPE_CHECKING:
    from perdure.runtime.loader import Loader

log = logging.getLogger("perdure.revive")
Known = list[tuple[int, f.AnyFact]]


class Revive:
    """Makes runs that had stopped move again."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    async def _whole(self, run_id: str) -> tuple[Loaded, Known]:
        store = self.loader.node.store
        found = await store.load([run_id], whole=True)
        if not found:
            raise UnknownRun(run_id)
        known = decode(found[0].facts)
        hashes = blobs_of(known)
        if hashes:
            fill(known, await store.blobs(sorted(hashes)))
        return found[0], known

    async def retry(self, item: Item, row: RunRow) -> None:
        """The next generation of a failed or cancelled run (S21)."""
        message = item.message
        assert isinstance(message, m.Retry)
        try:
            if row.life is Life.COMPLETED:
                raise WrongState(f"run {row.id} has completed: there is nothing to retry; fork it to run it again")
            one, known = await self._whole(row.id)
            run = self._made(one)
            fact = f.RunRetried(
                0, 0, 0, row.generation + 1, keep_until(known), message.by, message.why, message.request
            )
            kept = [*known, (row.seq + 1, fact)]
            self._replayed(run, effective(kept, run.decider.shape), last=row.seq + 1)
            self._join(run, known, item, fact)
        except PerdureError as error:
            self.loader.node.refuse(item, error)
            self.loader.node.wake()

    def _made(self, one: Loaded) -> LiveRun:
        run = self.loader._make(one.row)
        if run is None:
            raise UnknownWorkflow(one.row.workflow, one.row.version)
        return run

    def _replayed(self, run: LiveRun, known: Any, last: int) -> None:
        """Feed what is kept, up to and without the fact `last`, which is new."""
        try:
            replay(run.decider, [entry for entry in known if entry[0] < last])
        except (NonDeterminism, Attention) as error:
            raise WrongState(f"run {run.id} cannot be revived: {error}") from None
        run.decider.commands.clear()

    def _join(self, run: LiveRun, known: Known, item: Item, fact: f.AnyFact) -> None:
        """Record the fact that revives the run, and let it go on."""
        node = self.loader.node
        advance = node.advance
        if run.id in advance.runs:
            raise WrongState(f"run {run.id} moves already")
        run.requests.update(request for _, old in known if (request := getattr(old, "request", "")))
        run.life, run.outcome = Life.LIVE, None
        advance.now = node.clock.now_us()
        advance.runs[run.id] = run
        decider = run.decider
        fact.at, fact.asked_n, fact.asked_h = advance.at(run), decider.asked_n, decider.asked_h
        if isinstance(fact, f.RunRetried):
            run.generation = fact.generation
        advance.record(run, fact)
        work = advance.work
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
        node.post(Install(run, []))

    async def resume(self, item: Item, row: RunRow) -> None:
        """A person's word on a run that needs attention: try again, resolve a step, or cancel."""
        node, message = self.loader.node, item.message
        try:
            one, known = await self._whole(row.id)
            if isinstance(message, m.Cancel) and message.force:
                self._force(one, known, item)
                return
            run = self._made(one)
            self._replayed(run, effective(known, run.decider.shape), last=row.seq + 1)
            why = message.why if isinstance(message, m.Retry) else type(message).__name__.lower()
            by = getattr(message, "by", "")
            if isinstance(message, m.Resolve) and message.step not in run.decider.open:
                open_now = ", ".join(run.decider.open) or "none"
                raise WrongState(f"run {run.id} has no open step {message.step!r}; open are: {open_now}")
            self._join(
                run,
                known,
                item,
                f.RunResumed(0, 0, 0, by, why, message.request if isinstance(message, m.Retry) else ""),
            )
            run.definition = run.spec.definition_hash
            if not isinstance(message, m.Retry):
                run.requests.discard(message.request)
                node.advance.message(run, message)
            elif message.request:
                node.advance.work.runs[run] = None
            for step in run.decider.open.values():
                if step.due == STUCK:
                    step.due = None
                    step.forgiven = step.attempt - 1
                    run.decider.fresh[step.key] = step
            node.wake()
        except PerdureError as error:
            node.refuse(item, error)
            node.wake()

    def _force(self, one: Loaded, known: Known, item: Item) -> None:
        """End a run without its code, compensating from its facts."""
        node = self.loader.node
        advance = node.advance
        decider = Forced(one.row.id, one.row.workflow, advance.catalogue)
        for seq, fact in effective(known, "graph"):
            decider.on(fact, seq)
        decider.asked_n, decider.asked_h, decider.generation = one.row.asked_n, one.row.asked_h, one.row.generation
        run = LiveRun(one.row.id, decider.spec, decider)
        run.ref.no, run.seq, run.head, run.generation = one.row.no, one.row.seq, one.row.head, one.row.generation
        run.parent, run.parent_key, run.input_hash = one.row.parent, one.row.parent_key, one.row.input_hash
        run.definition = run.kept = one.row.definition
        message = item.message
        assert isinstance(message, m.Cancel)
        self._join(run, known, item, f.CancelRequested(0, 0, 0, message.reason, message.request, True))
        node.wake()

    def fork(self, item: Item) -> None:
        """A new run with the first facts of another (S22)."""
        self.loader.node.loop.create_task(self._fork(item))

    async def _fork(self, item: Item) -> None:
        node, message = self.loader.node, item.message
        assert isinstance(message, m.Fork)
        try:
            one, known = await self._whole(message.origin)
            if not 1 <= message.upto <= one.row.seq:
                raise WrongState(f"run {message.origin} has {one.row.seq} facts: it cannot be forked at {message.upto}")
            kept = [entry for entry in known if entry[0] <= message.upto]
            while kept and isinstance(kept[-1][1], (*f.ENDS, f.AttentionSet)):
                kept.pop()
            start = kept[0][1]
            assert isinstance(start, f.RunStarted)
            start = msgspec.structs.replace(
                start, fork_of=start.fork_of or message.origin, fork_at=kept[-1][0], parent="", parent_key=""
            )
            kept[0] = (1, start)
            spec = node.advance.catalogue.workflow(one.row.workflow, one.row.version, one.row.definition)
            if spec is None:
                raise UnknownWorkflow(one.row.workflow, one.row.version)
            advance = node.advance
            run = LiveRun(message.run, spec, make(message.run, spec, advance.catalogue, advance.limits))
            replay(run.decider, effective(kept, run.decider.shape), copied=message.upto)
            run.decider.commands.clear()
            self._write_fork(run, one, kept, item)
        except PerdureError as error:
            node.refuse(item, error)
            node.wake()

    def _write_fork(self, run: LiveRun, one: Loaded, kept: Known, item: Item) -> None:
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
        for _, fact in kept:
            advance.write(run, fact)
        if item.reply is not None:
            work.replies.append((item.reply, run.id))
        if item.inbox_no:
            work.batch.inbox_done.append(item.inbox_no)
        for child in list(run.decider.children.values()):
            run.decider.commands.append(StartChild(child.key, child.id, child.workflow, child.args))
        node.post(Install(run, []))
        node.wake()


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
