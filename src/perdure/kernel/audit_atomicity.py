"""Atomicity: at most one outcome for a step, from the owner of its time, after attempts counted without a gap."""

from __future__ import annotations

from perdure.kernel.audit_report import Check
from perdure.kernel.audit_subject import View
from perdure.kernel.fold import ELEMENT, STEP_FACTS, UNDO, ends_step, undo_targets
from perdure.model import fact as f


def atomicity(view: View) -> list[Check]:
    return [_outcomes(view), _undone_once(view), _epochs(view), _attempts(view), _answers(view)]


def _outcomes(view: View) -> Check:
    check = Check("atomicity", "A1 at most one outcome for a step")
    for era in view.generations:
        ended: dict[str, int] = {}
        for recorded in era.facts:
            fact = recorded.fact
            if not isinstance(fact, STEP_FACTS):
                continue
            before = ended.get(fact.key)
            if before is not None and before < era.first and not era.flow and ELEMENT.fullmatch(fact.key):
                before = None  # an element of a fan-out whose list has changed is made again
            if recorded.seq >= era.first:
                check.hold(before is None, recorded.seq, f"step {fact.key} had its outcome at fact {before} already")
            if before is None and ends_step(fact):
                ended[fact.key] = recorded.seq
    return check


def _undone_once(view: View) -> Check:
    """A success is compensated at most once, and only one that is on record."""
    check = Check("atomicity", "A1 at most one compensation for a success")
    ever: dict[str, int] = {}
    carried: set[str] = set()
    for era in view.generations:
        if isinstance(era.facts[0].fact, f.RunContinued):
            carried |= {f"{UNDO}{owed.key}@{owed.generation}" for owed in era.facts[0].fact.owed}
        for key, state in era.steps.items():
            if not key.startswith(UNDO) or state.facts[-1].seq < era.first:
                continue
            seq = state.facts[0].seq
            done = any(_may_undo(view, era.number, target, seq) for target in undo_targets(key)) or key in carried
            check.hold(done, seq, f"{key} undoes a step without a recorded success or doubtful end before it")
            if key in carried and state.end is not None:
                if key in ever:
                    check.add(state.end.seq, f"{key} was done at fact {ever[key]} already, in an earlier generation")
                ever.setdefault(key, state.end.seq)
    return check


def _may_undo(view: View, generation: int, target: str, seq: int) -> bool:
    for era in view.generations:
        state = era.steps.get(target)
        if era.number <= generation and state is not None and state.end is not None and state.end.seq < seq:
            return state.outcome in {"completed", "failed"}
    return False


def _epochs(view: View) -> Check:
    """Epochs never decrease, each outcome is of the owner at its place, and a recovery is by a new owner."""
    check = Check("atomicity", "A4 outcomes are of the owner's epoch")
    owner, granted = 0, view.subject.epochs
    for recorded in view.facts:
        epoch = getattr(recorded.fact, "epoch", None)
        if epoch is None:
            continue
        seq = recorded.seq
        check.hold(epoch >= owner, seq, f"it is of epoch {epoch}, but epoch {owner} had taken over before")
        if isinstance(recorded.fact, f.RunRecovered) and epoch == owner:
            check.add(seq, f"epoch {epoch} recovered a run that it owned already")
        if granted and epoch >= min(granted) and epoch not in granted:
            check.add(seq, f"epoch {epoch} was never granted to an engine")
        owner = max(owner, epoch)
    check.hold(
        view.row.epoch >= owner, view.folded.seq or None, f"the row is of epoch {view.row.epoch}, a fact of {owner}"
    )
    return check


def _attempts(view: View) -> Check:
    """The number of an attempt is that of recorded failures + 1, and no more are made than the policy allows."""
    check = Check("atomicity", "A5 attempts counted from 1 without a gap, within their limit")
    limits = view.subject.replay.limits if view.subject.replay is not None else {}
    for era in view.generations:
        failures: dict[str, int] = {}
        forgiven: dict[str, int] = {}
        for recorded in era.counted:
            fact, seq = recorded.fact, recorded.seq
            if seq == era.first:
                forgiven = dict(failures)
            if isinstance(fact, f.RunRecovered) and seq >= era.first:
                _recovered(check, recorded, fact, era.steps)
            if isinstance(fact, f.StepResolved | f.RunResumed):
                forgiven = dict(failures)
            if not isinstance(fact, f.StepCompleted | f.AttemptFailed | f.IntentRecorded):
                continue
            number = failures.get(fact.key, 0) + 1
            if seq >= era.first:
                text = f"attempt {fact.attempt} of step {fact.key} is recorded where attempt {number} is next"
                check.hold(fact.attempt == number, seq, text)
                limit = limits.get(fact.key) if era is view.last else None
                if limit is not None and fact.attempt - forgiven.get(fact.key, 0) > limit:
                    check.add(seq, f"attempt {fact.attempt} of step {fact.key} is beyond its limit of {limit}")
            if isinstance(fact, f.AttemptFailed):
                failures[fact.key] = number
    return check


def _recovered(check: Check, recorded: f.Recorded, fact: f.RunRecovered, steps: object) -> None:
    """Steps that may have been in an attempt at a crash had no outcome by then."""
    assert isinstance(steps, dict)
    for key in fact.due:
        state = steps.get(key)
        early = state is not None and state.end is not None and state.end.seq < recorded.seq
        check.hold(
            not early, recorded.seq, f"step {key} is said to have been in an attempt, but had its outcome before"
        )


def _answers(view: View) -> Check:
    check = Check("atomicity", "A6 one answer for a request")
    for request, seq in view.folded.requests.items():
        run = view.subject.answers.get(request)
        if run is not None and seq > view.forked_at:
            check.hold(run == view.row.id, seq, f"request {request!r} is answered with run {run!r}")
    return check
