"""Joining the runs in memory: a loaded run's recovery, what waited for it, and what is due (S11, S15)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.errors import IdInUse, PerdureError, StoreDamaged, WrongState
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.failure import Failure
from perdure.model.payload import blob_hash, is_blob
from perdure.model.run import Life, Outcome, RunRow
from perdure.runtime.attempt import Attempt
from perdure.runtime.live import LiveRun
from perdure.runtime.replay import check_frontier, replay, stood_on
from perdure.runtime.snapshots import plan_next, take_up
from perdure.runtime.work import Install, Item
from perdure.state.store import Loaded, Store

if TYPE_CHECKING:
    from perdure.kernel.decider import Decider
    from perdure.runtime.loader import Loader
    from perdure.settings import Settings

log = logging.getLogger("perdure.recovery")


class Recovery:
    """Takes loaded runs in."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def install(self, entry: Install) -> None:
        """Fold a loaded run's way back: its recovery, what waited for it, what is due."""
        node, run = self.loader.node, self._present(entry)
        if run is None:
            for item in entry.items:
                self.loader(entry.run.id, item)
            self.loader(entry.run.id, None)
            return
        advance, work = node.advance, node.advance.work
        if run.decider.commands:
            advance._command(run)
        work.runs[run] = None
        missed, run.decider.missed = run.decider.missed, []
        items: list[Any] = [*entry.items, *(Item(message) for message in missed)]
        items.sort(key=_time)
        for item in items:
            work.entries.append(item)
            if isinstance(item, Attempt):
                work.attempts.append(item)
                if run.life is Life.LIVE:
                    advance.outcome(run, item)
            elif run.life is not Life.LIVE:
                work.entries.pop()
                self.loader(run.id, item)
            else:
                self._fold(run, item)
        if run.life is Life.LIVE:
            self.doubtful(run)
        if run.life is Life.LIVE:
            advance.tick(run, advance.now)

    def _present(self, entry: Install) -> LiveRun | None:
        """The run in memory, which a loaded one becomes where there is none; None: it is to be read again."""
        loader, run = self.loader, entry.run
        runs = loader.node.advance.runs
        if loader.joining.get(run.id) is entry:
            del loader.joining[run.id]
        present = runs.get(run.id)
        if present is run:
            return run
        if present is not None or entry.stale or not entry.fresh:
            run.decider.drop()
            # One that began meanwhile may be refused, since its id is in use: nothing of the store's own goes into it.
            return present if present is not None and present.placed else None
        runs[run.id] = run
        if run.seq:
            self._recovered(run)
        return run

    def _fold(self, run: LiveRun, item: Item) -> None:
        node, message = self.loader.node, item.message
        item.asked_before = False
        try:
            if isinstance(message, m.Start):
                if run.seq == 0:
                    node.advance.start(message, run)
                    if run.id in self.loader.kept_back:  # messages came while it was queued
                        self.loader.kept_back.discard(run.id)
                        node.rescan()
                    if item.inbox_no:
                        node.advance.work.batch.inbox_done.append(item.inbox_no)
                        node.advance.work.batch.answers.append((message.request or run.id, run.id, b'{"seq":1}'))
                    if item.reply is not None:
                        node.advance.work.replies.append((item.reply, run.id))
                else:
                    row_like = run
                    if row_like.input_hash != message.input_hash or row_like.spec.name != message.workflow:
                        raise IdInUse(run.id, run.spec.name)
                    if item.inbox_no:
                        node.advance.work.batch.inbox_done.append(item.inbox_no)
                    if item.reply is not None:
                        node.advance.work.replies.append((item.reply, run.id))
            elif isinstance(message, m.Cancel) and message.force:
                node.advance.work.entries.pop()  # a run that had not begun has by now: it is ended without its code
                self.loader(run.id, item)
            elif isinstance(message, m.Retry | m.Fork):
                raise WrongState(f"run {run.id} has not ended: there is nothing to retry or overwrite")
            else:
                node.fold_into(run, item)
        except PerdureError as error:
            node.refuse(item, error)

    def too_late(self, item: Item) -> None:
        """What was due before this message has ended its run: it is looked at again once that is durable."""
        advance = self.loader.node.advance
        entries = advance.work.entries
        if entries and entries[-1] is item:
            entries.pop()
            self.loader(item.message.run, item)
        else:  # it comes from a run of this batch, and stands or falls with it
            advance.keep(item.message)

    def _recovered(self, run: LiveRun) -> None:
        """Another epoch owned this run and did not stop cleanly: the history tells the crash (S15)."""
        node = self.loader.node
        if run.owner in {node.epoch, 0} or run.owner in self.loader.clean:
            return
        if node.territory.handed_over(run.id, run.owner):
            return
        decider = run.decider
        due = [key for key, step in decider.fresh.items() if step.due is None]
        if not due:
            return
        advance = node.advance
        if self.loader.suspects.condemned(run.id):
            advance.attention(
                run,
                "suspect",
                "its steps were begun alone in three starts, and each time the engine died within a minute",
                due[0],
            )
            return
        run.marked = set(due)
        advance.record(
            run,
            f.RunRecovered(advance.at(run), decider.asked_n, decider.asked_h, node.epoch, self.loader.name, due[:1000]),
        )
        self.loader.suspects.carried(run)

    def doubtful(self, run: LiveRun) -> None:
        """What may be done at most once and may have begun: its probe is asked, else a person (S16).

        Shape: what began in this epoch still runs and is not in doubt, unless the run had stopped since.
        """
        advance, decider = self.loader.node.advance, run.decider
        doubtful = [step for step in decider.fresh.values() if step.spec.at_most_once and step.intent]
        for step in doubtful:
            if step.intent == advance.epoch:
                continue  # or it was not begun: nothing begins before its intent is durable
            if step.spec.probe is None:
                reason = f"step {step.key} may have begun before its node died or was stopped, and has no probe"
                advance.attention(run, "outcome_unknown", reason, step.key)
                return
            advance.begin_probe(run, step)


def from_snapshot(run: LiveRun, one: Loaded, history: Any, settings: Settings) -> bool:
    """Fold a run from its snapshot; false where that does not hold, and all facts are to be folded."""
    assert one.snapshot is not None
    decider, row = run.decider, one.row
    try:
        if isinstance(history, PerdureError):
            raise history
        if any(isinstance(fact, f.CancelRequested) and fact.force for _, fact in history):
            raise StoreDamaged("what is ended by force is folded from its first fact")
        take_up(run, *one.snapshot)
        replay(decider, history, first=False)
        check_frontier(decider, row.seq, row.asked_n, row.asked_h)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a snapshot, the facts are there
        log.warning("run %s is folded from its facts, not from its snapshot: %s", run.id, error)
        decider.drop()
        return False
    plan_next(run, settings)
    decider.commands.clear()
    decider.decisions.clear()
    return True


def rebuild(decider: Decider, history: list[tuple[int, f.AnyFact]]) -> None:
    """Fold a loaded history from its first fact."""
    known, copied = stood_on(decider, history)
    replay(decider, known, copied=copied)
    decider.commands.clear()
    decider.decisions.clear()


async def whole_outcome(store: Store, row: RunRow) -> bytes | None:
    """A run's outcome as its row keeps it, with the result itself where that is a blob."""
    outcome = msgspec.json.decode(row.outcome or b"{}", type=Outcome)
    if not is_blob(outcome.result):
        return row.outcome
    digest = blob_hash(outcome.result)
    result = msgspec.Raw((await store.blobs([digest]))[digest])
    return msgspec.json.encode(msgspec.structs.replace(outcome, result=result))


def ended_child(row: RunRow, key: str) -> m.ChildDone:
    """What a parent is told of a child that has ended, from the child's row with its whole outcome."""
    outcome = msgspec.json.decode(row.outcome or b"{}", type=Outcome)
    failure = outcome.failure
    if row.life is Life.CANCELLED:
        failure = Failure("perdure.RunCancelled", outcome.reason or "", "cancelled")
    return m.ChildDone(
        run=row.parent, at=row.ended_at or row.updated_at, key=key, child=row.id, status=row.life.value,  # type: ignore[arg-type]
        result=outcome.result, failure=failure, request=f"{row.id}:{row.generation}:ended",
    )  # fmt: skip


def _time(entry: Any) -> int:
    """When it was acknowledged: a start before all else, whatever clock it was told by; an outcome is folded last."""
    if not isinstance(entry, Item):
        return 1 << 62
    return 0 if isinstance(entry.message, m.Start) else entry.message.at
