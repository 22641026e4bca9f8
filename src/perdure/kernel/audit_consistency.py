"""Consistency: moves of the table only, a row that is the fold of the history, a replay that agrees, a whole chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from perdure.kernel.audit_report import Check
from perdure.kernel.audit_subject import UNREPLAYABLE, Digest, ReplayResult, View, outcome_of
from perdure.kernel.fold import UNDO, Generation, StepState, undo_targets
from perdure.model import fact as f
from perdure.model.run import Outcome, Wait


def consistency(view: View) -> list[Check]:
    return [
        _moves(view),
        _generations(view),
        _row(view),
        _wait(view),
        *_replay(view),
        _chain(view),
        _bodies(view),
        _parent(view),
    ]


def _moves(view: View) -> Check:
    check = Check("consistency", "K1 only moves of the table", checked=len(view.facts))
    for error in view.illegal:
        check.add(error.seq, f"{error.kind.__name__} while the run is {error.life.value}")
    return check


def _generations(view: View) -> Check:
    """Generations are counted from 1, and a retry keeps nothing that went wrong (S21)."""
    check = Check("consistency", "K1 generations counted, and begun from what may be kept")
    for number, era in enumerate(view.generations, 1):
        start = era.start
        stated = start.generation if isinstance(start, f.RunContinued | f.RunRetried) else 1
        check.hold(stated == number, era.first, f"generation {stated} begins where generation {number} is next")
        if isinstance(start, f.RunRetried) and era.flow:
            old = view.generations[number - 2]
            kept = any(recorded.seq == start.keep for recorded in old.facts) and start.keep < era.first
            check.hold(
                kept, era.first, f"what is kept ends at fact {start.keep}, which is not of the generation before"
            )
            _nothing_spoilt(check, era, old)
    return check


def _nothing_spoilt(check: Check, era: Generation, old: Generation) -> None:
    undone = {
        target for key, state in old.steps.items() if key.startswith(UNDO) and state.end for target in undo_targets(key)
    }
    for recorded in era.facts[: era.kept]:
        fact = recorded.fact
        if isinstance(fact, f.CancelRequested):
            check.add(era.first, f"the retry keeps fact {recorded.seq}, which cancels the run")
        elif isinstance(fact, f.AttemptFailed) and fact.retry_at is None:
            check.add(era.first, f"the retry keeps fact {recorded.seq}, the failure of step {fact.key} for good")
        elif isinstance(fact, f.StepCompleted | f.ChildEnded) and fact.key in undone:
            check.add(era.first, f"the retry keeps fact {recorded.seq}, but step {fact.key} was compensated since")


def _row(view: View) -> Check:
    check = Check("consistency", "K2 the row is the fold of the history")
    for name, row, folded in _row_pairs(view):
        check.hold(
            row == folded, view.folded.seq or None, f"the row's {name} is {_said(row)}, the history's {_said(folded)}"
        )
    return check


def _said(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return msgspec.json.encode(value).decode(errors="replace") if isinstance(value, Outcome) else str(value)


def _row_pairs(view: View) -> Iterator[tuple[str, Any, Any]]:
    row, folded, started = view.row, view.folded, view.folded.started
    yield "life", row.life.value, folded.life.value
    yield "seq", row.seq, folded.seq
    yield "head", row.head or f.CHAIN_START, folded.head
    yield "generation", row.generation, folded.generation
    yield "having ended", row.ended_at is not None, folded.ended_at is not None
    early = row.ended_at is not None and folded.ended_at is not None and row.ended_at < folded.ended_at
    yield "end before its fact", early, False
    yield "outcome", outcome_of(row), folded.outcome
    if started is not None:
        yield "workflow", row.workflow, started.workflow
        yield "version", row.version, started.version
        yield "parent", row.parent, started.parent
        yield "parent_key", row.parent_key, started.parent_key


def _wait(view: View) -> Check:
    """The wait is that of the replay; a run that has ended waits for nothing, and no step is awaited that has ended."""
    check = Check("consistency", "K2 the wait is the fold's (S9)")
    row, seq = view.row, view.folded.seq or None
    wait = row.wait
    if row.life.ended:
        idle = not (wait.open or wait.retrying or wait.children) and wait.due is None
        check.hold(idle, seq, f"the run has ended and still waits: {wait}")
        return check
    check.hold(min(wait.open, wait.retrying) >= 0, seq, f"a negative count: {wait}")
    replay = view.subject.replay
    if replay is not None and replay.ok and replay.wait is not None and view.folded.attention is None:
        check.hold(_same_wait(view, wait, replay.wait), seq, f"the row's wait is {wait}, the replay's {replay.wait}")
    return check


def _same_wait(view: View, row: Wait, replayed: Wait) -> bool:
    """Whether two waits agree. A retry that is due by now counts as open live, and as retrying on replay."""
    if (row.signals, row.settling) != (replayed.signals, replayed.settling):
        return False
    if sorted(row.children) != sorted(replayed.children):
        return False
    if row.open + row.retrying != replayed.open + replayed.retrying:
        return False
    released = replayed.due is not None and replayed.due <= view.row.updated_at and row.retrying < replayed.retrying
    return released or (row.due == replayed.due and row.open == replayed.open)


def _replay(view: View) -> list[Check]:
    agrees = Check("consistency", "K3 the code asks again for what is recorded")
    digests = Check("consistency", "K3 digests of what was asked for")
    replay, attention = view.subject.replay, view.folded.attention
    if replay is None or (not replay.ok and attention is not None and attention.cause in UNREPLAYABLE):
        return [agrees, digests]
    agrees.hold(replay.ok, replay.seq, replay.mismatch or "the replay differs")
    if replay.ok:
        _keys(view, replay, agrees)
        _digests(view, replay, digests)
    return [agrees, digests]


def _keys(view: View, replay: ReplayResult, check: Check) -> None:
    era = view.last
    if era is None or replay.keys is None:
        return
    for key, state in era.steps.items():
        asked = _asked_seq(state)
        if key.startswith(UNDO) or asked is None or (not era.flow and state.facts[0].seq < era.first):
            continue
        seq, again = state.facts[-1].seq, replay.keys.get(key)
        check.hold(again is not None, seq, f"step {key} is recorded, but the code never asks for it")
        if again is not None and again != asked:
            check.add(seq, f"step {key} was asked for at fact {asked}, the replay asks at fact {again}")


def _asked_seq(state: StepState) -> int | None:
    return next((seq for r in state.facts if (seq := getattr(r.fact, "asked_seq", None)) is not None), None)


def _digests(view: View, replay: ReplayResult, check: Check) -> None:
    """A fact that begins a turn carries the digest after the turn before; a decision's lies between two turns'."""
    before: Digest | None = (0, 0)
    now: Digest | None = (0, 0)
    for recorded in view.facts:
        fact, seq = recorded.fact, recorded.seq
        if seq > view.forked_at:
            carried = (fact.asked_n, fact.asked_h)
            if isinstance(fact, f.DECISIONS):
                if before is not None and now is not None:
                    between = carried in {before, now} or before[0] < carried[0] < now[0]
                    check.hold(between, seq, f"digest {carried} does not lie between {before} and {now} of the replay")
            elif now is not None and not isinstance(fact, f.AttentionSet | f.RunRetried):
                check.hold(carried == now, seq, f"its digest is {carried}, the replay's {now}")
        if isinstance(fact, f.RunRetried):
            before, now = None, replay.asked.get(seq, replay.asked.get(fact.keep))
        elif not isinstance(fact, f.DECISIONS) or isinstance(fact, f.RunContinued):
            after = replay.asked.get(seq, now if isinstance(fact, f.NOTES) else None)
            before, now = now, after
    if now is not None and view.facts:
        row = (view.row.asked_n, view.row.asked_h)
        check.hold(row == now, None, f"the row's digest is {row}, the replay's {now}")


def _chain(view: View) -> Check:
    check = Check("consistency", "K4 the hash chain holds, and ends in the row's head")
    head = f.CHAIN_START
    for recorded in view.facts:
        check.hold(
            f.chain(head, recorded.body) == recorded.hash,
            recorded.seq,
            "its hash does not follow from its body and the fact before",
        )
        head = recorded.hash
    check.hold(
        (view.row.head or f.CHAIN_START) == head, view.folded.seq or None, "the row's head is not the last fact's hash"
    )
    return check


def _bodies(view: View) -> Check:
    check = Check("consistency", "K4 each body is the fact it is read as")
    for recorded in view.facts:
        try:
            same = f.decode_fact(recorded.body) == recorded.fact
        except (msgspec.DecodeError, UnicodeDecodeError):
            same = False
        check.hold(same, recorded.seq, "its body does not decode to this fact")
    return check


def _parent(view: View) -> Check:
    check = Check("consistency", "K6 the parent exists")
    row, parent = view.row, view.subject.parent
    if row.parent:
        check.hold(
            parent is not None and parent.id == row.parent, None, f"parent run {row.parent!r} is not in the store"
        )
    return check
