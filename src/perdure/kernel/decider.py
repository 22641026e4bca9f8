"""What every decider does alike: open steps, retries, children, settling and compensation.

A turn is one fact folded and what follows from it. A decider records its own decisions (skip, patch, end)
in `decisions`, right after their cause; on replay the shell compares them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from perdure.kernel.attempt import DOUBTFUL
from perdure.kernel.steps import LET_GO, STUCK, Child, Undo
from perdure.model import fact as f
from perdure.model.command import Abandon, Activity, CancelChild, Command
from perdure.model.failure import Failure
from perdure.model.message import ChildDone
from perdure.model.run import Wait
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec

MASK64 = (1 << 64) - 1


class Trouble(NamedTuple):
    """Why the run needs attention, found while a turn was folded."""

    cause: f.Cause
    reason: str
    step: str = ""


class Catalogue(Protocol):
    """What is served here: found by the deciders to call children and to undo steps of earlier generations."""

    def workflow(self, name: str, version: str, definition: str = "") -> WorkflowSpec | None: ...

    def task(self, name: str) -> TaskSpec | None: ...


class Intent(NamedTuple):
    """How a run that settles will end."""

    kind: str  # "failed", "cancelled", "continued"
    failure: Failure | None = None
    reason: str = ""
    input: bytes = b""


class Decider:
    """The part of a run's decisions that does not depend on its shape.

    Shape: `open` holds every step without a recorded end by key, in the order asked; `fresh` those of them to be
           begun now; `children` those that are waited for; `owed` recorded successes with a compensation, in order
           of completion. `live` is false while recorded turns are folded again.
    """

    shape: ClassVar[str] = ""

    def __init__(self, run_id: str, spec: WorkflowSpec, catalogue: Catalogue) -> None:
        self.run_id, self.spec, self.catalogue = run_id, spec, catalogue
        self.order_of = run_id  # whose sets' order holds: that of the run from which a fork was copied (S22)
        self.seed = 0
        self.depth = 0
        self.now = 0
        self.seq = 0
        self.first = 1  # the fact that the generation begins with
        self.generation = 1
        self.steps_generation = 1
        self.asked_n = 0
        self.asked_h = 0
        self.live = True
        self.open: dict[str, Any] = {}
        self.fresh: dict[str, Any] = {}
        self.children: dict[str, Child] = {}
        self.retries: list[tuple[int, str]] = []
        self.owed: list[tuple[f.Owed, TaskSpec, Any]] = []
        self.commands: list[Command] = []
        self.decisions: list[f.Decision] = []
        self.expected: tuple[f.Decision, ...] = ()
        self.intent: Intent | None = None
        self.undoing: Undo | None = None
        self.cancelled: str | None = None
        self.trouble: Trouble | None = None
        self.ended = False
        self.missed: list[ChildDone] = []

    # --- folding ---------------------------------------------------------------------------------

    def on(self, fact: f.AnyFact, seq: int, expected: tuple[f.Decision, ...] = ()) -> None:
        """Fold one fact in: one turn. `expected` are the decisions that are recorded behind it, on replay."""
        self.seq = seq
        self.now = max(self.now, fact.at)
        self.expected = expected
        self._fold[type(fact)](self, fact)

    def begin(self) -> list[Activity]:
        """The steps whose attempts should begin now; each is told once."""
        fresh = list(self.fresh.values())
        self.fresh.clear()
        return fresh

    def retry_due(self) -> int | None:
        """When the earliest retry is due."""
        retries = self.retries
        while retries:
            due, key = retries[0]
            step = self.open.get(key)
            if step is not None and step.due == due:
                return due
            heappop(retries)
        return None

    def release(self, now: int) -> None:
        """Move the steps whose retry is due to `fresh`."""
        while (due := self.retry_due()) is not None and due <= now:
            _, key = heappop(self.retries)
            self.open[key].due = None
            self.fresh[key] = self.open[key]

    def timer_due(self) -> int | None:
        """When the earliest timer is due."""
        timer = self.next_timer()
        return None if timer is None else timer[0]

    def next_timer(self) -> tuple[int, str] | None:
        """The earliest timer: when it is due, and its key."""
        return None

    def only_steps(self) -> bool:
        """Whether the run waits for nothing but steps that are due or in an attempt: the common case, told cheaply."""
        return not self.retries and not self.children and self.intent is None

    def wait(self) -> Wait:
        """What the run waits for, derived."""
        retrying = sum(1 for step in self.open.values() if step.due is not None) if self.retries else 0
        dues = [due for due in (self.timer_due(), self.retry_due()) if due is not None]
        return Wait(
            min(dues) if dues else None,
            self._signals_wanted(),
            tuple(child.id for child in self.children.values() if not child.detached),
            len(self.open) - retrying,
            retrying,
            self.intent is not None,
        )

    def _signals_wanted(self) -> tuple[str, ...]:
        return ()

    def drop(self) -> None:
        """Leave memory: nothing of the run's code runs any more."""

    # --- asking ----------------------------------------------------------------------------------

    def _asked(self, kind: bytes, key: str, args: bytes) -> int:
        """Add one thing asked for to the digest."""
        ask = f.ask_digest(kind, key, args)
        self.asked_n += 1
        self.asked_h = (self.asked_h + ask) & MASK64
        return ask

    def _open(self, step: Any) -> None:
        self.open[step.key] = step
        self.fresh[step.key] = step

    # --- steps -----------------------------------------------------------------------------------

    def _on_completed(self, fact: f.StepCompleted) -> None:
        key = fact.key
        step = self.open.pop(key)
        self.fresh.pop(key, None)
        self._completed(step, fact.result, fact.args)

    def _completed(self, step: Any, result: msgspec.Raw, args: msgspec.Raw) -> None:
        if step is self.undoing:
            self._undone()
            return
        undo = step.spec.compensate
        if undo is not None:
            self._owe(step, undo, args, result)
        if step.given_up:
            self._settle()
        else:
            self._deliver(step, result)

    def _owe(self, step: Any, undo: TaskSpec, args: msgspec.Raw, result: msgspec.Raw | None) -> None:
        kept = msgspec.Raw(step.args) if args == f.NULL else args
        owed = f.Owed(step.key, self.generation, step.spec.name, kept, result or f.NULL, result is not None)
        self.owed.append((owed, undo, step.spec))

    def _on_failed(self, fact: f.AttemptFailed) -> None:
        step = self.open[fact.key]
        self.fresh.pop(fact.key, None)
        step.intent = 0
        if fact.retry_at is not None:
            step.attempt = fact.attempt + 1
            step.due = fact.retry_at
            heappush(self.retries, (fact.retry_at, fact.key))
            return
        undoing = self.undoing
        if undoing is not None and step is undoing:
            self.trouble = Trouble(
                "compensation_failed", f"compensation {fact.key} failed: {fact.failure.summary()}", fact.key
            )
            undoing.attempt = fact.attempt + 1
            undoing.due = STUCK
            return
        del self.open[fact.key]
        self._failed_for_good(step, fact.failure, fact.args)

    def _failed_for_good(self, step: Any, failure: Failure, args: msgspec.Raw) -> None:
        if step.spec.compensate is not None and failure.kind in DOUBTFUL:
            self._owe(step, step.spec.compensate, args, None)
        if step.given_up:
            self._settle()
        else:
            self._deliver_failure(step, failure)

    def _on_resolved(self, fact: f.StepResolved) -> None:
        step = self.open[fact.key]
        self.fresh.pop(fact.key, None)
        step.due = None
        if fact.how == "retry":
            step.asked_at = self.now
            step.forgiven = step.attempt - 1
            step.intent = 0
            self.fresh[fact.key] = step
        elif fact.how == "result" or step is self.undoing:
            del self.open[fact.key]
            self._completed(step, fact.result, f.NULL)
        else:
            del self.open[fact.key]
            self._failed_for_good(step, fact.failure or Failure("perdure.Resolved", "failed by hand"), f.NULL)

    def _on_intent(self, fact: f.IntentRecorded) -> None:
        step = self.open.get(fact.key)
        if step is not None:
            step.intent = fact.epoch
            if step.due is not None:  # a retry that is about to begin waits no more
                step.due = None
                self.fresh[fact.key] = step

    def _on_resumed(self, _: f.RunResumed) -> None:
        """What had begun was let go of (S16); a compensation that had failed for good is tried again (S19)."""
        for step in self.open.values():
            if step.intent:
                step.intent = LET_GO
        undoing = self.undoing
        if undoing is not None and undoing.due == STUCK:
            undoing.due, undoing.asked_at = None, self.now
            undoing.forgiven = undoing.attempt - 1
            self.fresh[undoing.key] = undoing

    def _on_note(self, fact: f.AnyFact) -> None:
        """A fact of the shell about the run; nothing follows from it here."""

    # --- children --------------------------------------------------------------------------------

    def _on_child_ended(self, fact: f.ChildEnded) -> None:
        child = self.children.pop(fact.key)
        undo = child.workflow.compensate
        if undo is not None and fact.status == "completed":
            owed = f.Owed(fact.key, self.generation, child.workflow.name, msgspec.Raw(child.args), fact.result)
            self.owed.append((owed, undo, child.workflow))
        if child.given_up or self.intent is not None:
            self._settle()
        else:
            self._deliver_child(child, fact)

    def give_up_child(self, child: Child, reason: str) -> None:
        """Nobody waits for this child any more: cancel it; its end is still recorded."""
        if not child.given_up and not child.detached:
            child.given_up = True
            self.commands.append(CancelChild(child.id, reason))

    # --- settling and compensation (S17) -----------------------------------------------------------

    def give_up(self, step: Any) -> None:
        """Nobody waits for this step any more. One whose compensation would be owed is carried to its outcome."""
        if step.given_up or step.key not in self.open:
            return
        begun = step.asked_seq != self.seq
        if step.spec.compensate is not None and begun:
            step.given_up = True
            return
        del self.open[step.key]
        if self.fresh.pop(step.key, None) is None:
            self.commands.append(Abandon(step.key))

    def settle(self, intent: Intent) -> None:
        """Bring what is open to recorded ends, undo what is owed, then end."""
        if self.intent is not None:
            return
        self.intent = intent
        reason = intent.reason or (intent.failure.summary() if intent.failure else "the run continues as new")
        for step in list(self.open.values()):
            self.give_up(step)
        for child in self.children.values():
            self.give_up_child(child, reason)
        self._settle()

    def _settle(self) -> None:
        """Go on with settling, where the run settles: wait, undo the next, or end."""
        intent = self.intent
        if intent is None or self.undoing is not None or self.ended:
            return
        if self.open or any(not child.detached for child in self.children.values()):
            return
        if intent.kind != "continued" and self.owed:
            owed, undo, step = self.owed.pop()
            self._undo(Undo(owed, step, undo, self.generation))
            return
        self._end(intent)

    def _undo(self, undo: Undo) -> None:
        undo.ask = self._asked(b"undo", undo.key, undo.args)
        undo.asked_seq, undo.asked_at = self.seq, self.now
        undo.generation = self.steps_generation
        self.undoing = undo
        self._open(undo)

    def _undone(self) -> None:
        self.undoing = None
        self._settle()

    def _end(self, intent: Intent) -> None:
        fact: f.Decision
        if intent.kind == "failed":
            assert intent.failure is not None
            fact = f.RunFailed(self.now, self.asked_n, self.asked_h, intent.failure)
        elif intent.kind == "cancelled":
            fact = f.RunCancelled(self.now, self.asked_n, self.asked_h, intent.reason)
        else:
            fact = self._continued(intent)
        self.finish(fact)

    def _continued(self, intent: Intent) -> f.RunContinued:
        raise NotImplementedError

    def finish(self, fact: f.Decision) -> None:
        """The run's last fact of this generation."""
        self.ended = True
        self.decisions.append(fact)

    # --- what a shape adds -------------------------------------------------------------------------

    def _deliver(self, step: Any, result: msgspec.Raw) -> None:
        raise NotImplementedError

    def _deliver_failure(self, step: Any, failure: Failure) -> None:
        raise NotImplementedError

    def _deliver_child(self, child: Child, fact: f.ChildEnded) -> None:
        raise NotImplementedError

    _fold: ClassVar[dict[type[f.Fact], Callable[[Any, Any], None]]] = {
        f.StepCompleted: _on_completed,
        f.AttemptFailed: _on_failed,
        f.StepResolved: _on_resolved,
        f.IntentRecorded: _on_intent,
        f.ChildEnded: _on_child_ended,
        f.RunRecovered: _on_note,
        f.AttentionSet: _on_note,
        f.RunResumed: _on_resumed,
    }


def restore_owed(owed: Iterable[f.Owed], catalogue: Catalogue) -> tuple[list[tuple[f.Owed, TaskSpec, Any]], str | None]:
    """What an earlier generation owes, with the code that undoes it; or the name of a task that is missing."""
    restored: list[tuple[f.Owed, TaskSpec, Any]] = []
    for item in owed:
        step: Any = catalogue.task(item.task) or catalogue.workflow(item.task, "")
        if step is None or step.compensate is None:
            return restored, item.task
        restored.append((item, step.compensate, step))
    return restored, None
