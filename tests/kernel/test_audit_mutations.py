"""Broken histories: whatever is changed in a valid one, the audit names the invariant and the fact that shows it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from perdure.kernel.audit import Subject, audit
from perdure.model import fact as f
from perdure.model.failure import Failure
from perdure.model.run import NO_WAIT, Life, Wait
from tests.kernel import audit_cases as case
from tests.kernel.audit_builders import ONE, SECOND, T0, Raw, plain_row
from tests.kernel.audit_mutants import (
    Mutant,
    again,
    both,
    child,
    drop,
    edit,
    flip,
    forge,
    given,
    insert,
    node,
    raw,
    replayed,
    row,
    swap,
)

NO = Failure("ValueError", "no")
# (what is changed, the case, the change, the check that must name it, the fact that it must name)
Broken = tuple[str, Callable[[], Subject], Mutant, str, int | None]

STORED: list[Broken] = [
    ("a bit of a body", case.flow, flip(3, 40), "K4 the hash chain", 3),
    ("a bit of a body, read", case.flow, flip(3, 40), "K4 each body", 3),
    ("a bit of a hash", case.flow, flip(6, 0, "hash"), "K4 the hash chain", 6),
    ("a fact lost in the middle", case.flow, raw(lambda r: r.pop(4)), "O1", 6),
    ("the last fact lost", case.flow, raw(lambda r: r.pop()), "K4 the hash chain", 12),
    ("a fact stored twice", case.flow, raw(lambda r: r.insert(4, r[3])), "O1", 4),
    ("two facts in another order", case.flow, raw(lambda r: r.insert(4, r.pop(5))), "O1", 6),
    ("a number beyond its place", case.flow, raw(lambda r: setattr(r[5], "seq", 7)), "O1", 7),
    ("a fact read as another", case.flow, raw(lambda r: setattr(r[2], "fact", r[10].fact)), "K4 each body", 3),
]

COMPLETENESS: list[Broken] = [
    ("a step still wanted", case.flow, replayed(open=frozenset({"a#1"})), "C1 required", 1),
    ("a node's outcome lost", case.graph, drop(4), "C1 required", None),
    ("a skip lost", case.graph, drop(6), "C1 required", None),
    ("a fan-out's element lost", case.graph, drop(3), "C1 required", None),
    ("an element too many", case.graph, again(3, 16, key="parts[2]"), "C1 required", None),
    ("a skip for another reason", case.graph, edit(5, reason="dependency"), "C1 required", 4),
    ("a skip of what must run", case.graph, edit(6, key="two"), "C1 required", 4),
    ("a condition judged too soon", case.graph, edit(6, reason="condition"), "C1 required", 4),
    ("an outcome of what cannot run", case.graph, both(drop(6), again(4, 6, key="more")), "C1 required", 6),
    ("a failure that no join takes", case.graph,
     both(*(node(n, join="succeeded") for n in ("sum", "two", "report"))), "C1 required", 11),
    ("a child that was required", case.graph, drop(15), "C1 required", None),
    ("a compensation lost", case.compensated, drop(5), "C1 what a failed", 7),
    ("a doubtful step not undone", case.cancelled, drop(4), "C1 what a failed", 4),
    ("an owed compensation lost", case.continued, drop(8), "C1 what a failed", 8),
    ("a signal lost on continuing", case.continued, edit(6, signals=[("go", ONE), ("no", ONE)]), "C2 unread", 6),
    ("a compensation lost on continuing", case.continued, edit(6, owed=[]), "C2 unread", 6),
    ("a request consumed twice", case.flow, edit(8, request="q1"), "C2 each request", 8),
    ("an acknowledged request lost", case.flow, drop(4), "C2 no acknowledged", None),
    ("nothing to wake it", case.live, row(wait=NO_WAIT), "L1", 2),
    ("only an ended child to wake it", case.live,
     both(row(wait=Wait(children=("kid",))), child(life=Life.FAILED)), "L1", 2),
    ("attention without a reason", case.attention, edit(2, reason=""), "L1", 2),
]  # fmt: skip

ORDERING: list[Broken] = [
    ("an outcome before its asking", case.flow, edit(3, asked_seq=4), "O2 outcomes", 3),
    ("an outcome without an asking", case.flow, edit(3, asked_seq=0), "O2 outcomes", 3),
    ("two askings of one step", case.flow, edit(11, asked_seq=3), "O2 outcomes", 11),
    ("an asking in what a retry took back", case.compensated, edit(12, asked_seq=4), "O2 outcomes", 12),
    ("a dependant before its dependency", case.graph, edit(10, asked_seq=4), "O2 what a step needs", 4),
    ("a join of one fired by none", case.graph, edit(13, asked_seq=9), "O2 what a step needs", 9),
    ("a join of two fired by one", case.graph, edit(12, asked_seq=8), "O2 what a step needs", 8),
    ("a join of all ended too soon", case.graph, edit(15, asked_seq=10), "O2 what a step needs", 10),
    ("an element before its list", case.graph, edit(9, asked_seq=3), "O2 what a step needs", 3),
    ("a step of no node", case.graph, edit(13, key="total"), "O2 what a step needs", None),
    ("an asking before the retry", case.graph_retried, edit(8, asked_seq=6), "O2 what a step needs", 6),
    ("a signal from the past", case.flow, edit(8, at=T0), "O3", 8),
    ("a timer too early", case.flow, edit(5, due=T0 + 90 * SECOND), "O4 timers", 5),
    ("a timer fired twice", case.flow, again(5, 6), "O4 timers", 6),
    ("timers in another order", case.flow, both(edit(5, due=T0 + 3), edit(6, due=T0 + 2)), "O4 timers", 6),
    ("an attempt before its retry", case.flow, edit(2, retry_at=T0 + 99 * SECOND), "O4 no attempt", 10),
    ("time that goes back", case.flow, edit(7, at=T0), "O5", 7),
    ("a child not in the store", case.flow, given(children={"kid": None}), "O6", 12),
    ("a child of another", case.flow, child(parent="r2"), "O6", 12),
    ("a child under another key", case.flow, child(parent_key="a#1"), "O6", 12),
    ("a child that goes on", case.flow, child(life=Life.LIVE, ended_at=None), "O6", 12),
    ("a child that ended otherwise", case.flow, child(life=Life.FAILED), "O6", 12),
    ("a child that ended later", case.flow, child(ended_at=T0 + 99 * SECOND), "O6", 12),
    ("a child with another result", case.flow, child(outcome=b'{"result":2}'), "O6", 12),
    ("a child before its parent asked", case.flow, child(created_at=T0), "O6", 12),
    ("a child that ended twice", case.flow, again(12, 13, key="d#1"), "O6", 13),
    ("a wait for a child not there", case.live, given(children={"kid": None}), "O6", None),
    ("a wait for another's child", case.live, child(parent="r2"), "O6", None),
]  # fmt: skip

ATOMICITY: list[Broken] = [
    ("two outcomes of a step", case.flow, again(3, 5), "A1 at most one outcome", 5),
    ("two outcomes that differ", case.flow, again(3, 5, result=Raw(b"2")), "A1 at most one outcome", 5),
    ("a failure after the outcome", case.flow, again(2, 12, attempt=3, epoch=2), "A1 at most one outcome", 12),
    ("two ends of a child", case.flow, again(12, 13), "A1 at most one outcome", 13),
    ("two skips of a node", case.graph, again(5, 7), "A1 at most one outcome", 7),
    ("a kept result made again", case.compensated, edit(9, keep=3), "A1 at most one outcome", 10),
    ("a kept node made again", case.graph_retried, edit(7, key="a"), "A1 at most one outcome", 7),
    ("a compensation of nothing", case.compensated, edit(5, key="undo:boat#1"), "A1 at most one compensation", 5),
    ("a compensation of a failure", case.compensated, edit(4, key="undo:ship#1"), "A1 at most one compensation", 4),
    ("an epoch that had ended", case.flow, edit(11, epoch=1), "A4", 11),
    ("an epoch that never was", case.flow, both(edit(11, epoch=4), row(epoch=4)), "A4", 11),
    ("a recovery by its owner", case.flow, edit(9, epoch=1), "A4", 9),
    ("a row of an earlier epoch", case.flow, row(epoch=1), "A4", 13),
    ("an attempt left out", case.flow, edit(11, attempt=3), "A5", 11),
    ("an attempt counted twice", case.flow, edit(10, attempt=1), "A5", 10),
    ("a failed attempt lost", case.flow, drop(2), "A5", 9),
    ("attempts without end", case.flow, replayed(limits={"a#1": 1}), "A5", 10),
    ("a crash in a step that had ended", case.flow, edit(9, due=["b#1"]), "A5", 9),
    ("an answer of another run", case.flow, given(answers={"q1": "r2"}), "A6", 4),
]  # fmt: skip

CONSISTENCY: list[Broken] = [
    ("no start", case.flow, drop(1), "K1 only moves", 1),
    ("two starts", case.flow, again(1, 5, request=""), "K1 only moves", 5),
    ("a fact after the end", case.flow, forge(lambda facts: facts.append(facts[2])), "K1 only moves", 14),
    ("a fact while it needs attention", case.resolved, swap(7, 6), "K1 only moves", 7),
    ("resumed without need", case.resolved, drop(3), "K1 only moves", 3),
    ("retried without an end", case.compensated, drop(8), "K1 only moves", 8),
    ("a completed run retried", case.compensated, forge(lambda facts: facts.append(facts[8])), "K1 only moves", 14),
    ("a generation left out", case.compensated, edit(9, generation=3), "K1 generations", 9),
    ("a generation counted twice", case.continued, edit(6, generation=1), "K1 generations", 6),
    ("a retry that keeps the failure", case.compensated, edit(9, keep=4), "K1 generations", 9),
    ("a retry that keeps what was undone", case.compensated, edit(9, keep=2), "K1 generations", 9),
    ("a retry that keeps what is to come", case.compensated, edit(9, keep=11), "K1 generations", 9),
    ("another life", case.flow, row(life=Life.FAILED), "K2 the row", 13),
    ("another number", case.flow, row(seq=12), "K2 the row", 13),
    ("another head", case.flow, row(head=bytes(16)), "K4 the hash chain", 13),
    ("another generation", case.compensated, row(generation=1), "K2 the row", 13),
    ("another outcome", case.flow, row(outcome=b'{"result":2}'), "K2 the row", 13),
    ("an outcome that cannot be read", case.flow, row(outcome=b'{"result":'), "K2 the row", 13),
    ("no outcome", case.flow, row(outcome=None), "K2 the row", 13),
    ("an end that is not told", case.flow, row(ended_at=None), "K2 the row", 13),
    ("an end before its fact", case.flow, row(ended_at=T0), "K2 the row", 13),
    ("another workflow", case.flow, row(workflow="x"), "K2 the row", 13),
    ("another parent", case.flow, row(parent="p"), "K2 the row", 13),
    ("an ended run that waits", case.flow, row(wait=Wait(open=1)), "K2 the wait", 13),
    ("another wait", case.live, row(wait=Wait(due=5, open=2)), "K2 the wait", 2),
    ("a due time lost", case.live, replayed(wait=Wait(7, ("go",), ("kid",), 1, 1)), "K2 the wait", 2),
    ("a replay that differs", case.flow, replayed(ok=False, mismatch="asks for z#1", seq=3), "K3 the code", 3),
    ("a step that is never asked for", case.flow, replayed(keys={"a#1": 1, "c#1": 3}), "K3 the code", 3),
    ("a step asked for elsewhere", case.flow, replayed(keys={"a#1": 1, "b#1": 1, "c#1": 4}), "K3 the code", 12),
    ("a digest of other code", case.flow, edit(5, asked_h=1), "K3 digests", 5),
    ("a count of other code", case.flow, edit(13, asked_n=9), "K3 digests", 13),
    ("a row's digest of other code", case.flow, row(asked_h=1), "K3 digests", None),
    ("a parent not in the store", case.flow, row(parent="p"), "K6", None),
    ("a parent of another id", case.flow, both(row(parent="p"), given(parent=plain_row("q"))), "K6", None),
]  # fmt: skip

ALL = [*STORED, *COMPLETENESS, *ORDERING, *ATOMICITY, *CONSISTENCY]


@pytest.mark.parametrize("broken", ALL, ids=[broken[0].replace(" ", "-") for broken in ALL])
def test_the_audit_names_what_is_broken(broken: Broken) -> None:
    """Goal: the check with the invariant's id finds it, at the fact that shows it, and the report says so."""
    _, valid, mutant, check, seq = broken
    report = audit(mutant(valid()))
    named = [violation for violation in report.violations if violation.check.startswith(check)]
    assert not report.ok
    assert any(violation.seq == seq for violation in named), "\n".join(report.lines())
    text = named[0].text
    assert any(text[:60] in line for line in report.lines())


def test_every_check_is_shown_to_fail() -> None:
    """Goal: no check of the audit is there that has never found anything."""
    found = {violation.check for _, valid, mutant, _, _ in ALL for violation in audit(mutant(valid())).violations}
    assert found == {check.name for check in audit(case.flow()).checks}


def test_a_stuck_compensation_is_no_end() -> None:
    """Goal: a run does not complete over a compensation that failed for good."""
    stuck = f.AttemptFailed(T0 + 5 * SECOND, 1, 0, "undo:b#1", 1, 1, 1, 0, NO, None)
    report = audit(insert(5, lambda facts: msgspec.structs.replace(stuck, at=facts[3].at))(case.flow()))
    assert any("nobody resolved" in violation.text for violation in report.violations)


def test_a_damaged_history_does_not_flood_the_report() -> None:
    """Goal: a history that breaks a check at each fact is told in bounded space, with the full count."""
    many = case.flow()
    many.facts = list(many.facts) * 40
    report = audit(many)
    check = next(check for check in report.checks if check.name.startswith("O1"))
    assert (len(check.violations), check.broken) == (100, len(many.facts) - 13)
    assert any("and 407 more" in line for line in report.lines())
    assert report.first is not None
