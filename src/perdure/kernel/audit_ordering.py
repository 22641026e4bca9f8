"""Ordering: the history is one gapless sequence, and nothing stands in it before what it follows from."""

from __future__ import annotations

from perdure.kernel.audit_oracle import out_of_order
from perdure.kernel.audit_report import Check
from perdure.kernel.audit_subject import View, outcome_of
from perdure.kernel.audit_trace import graph_trace
from perdure.kernel.fold import Generation
from perdure.model import fact as f
from perdure.model.run import Life, Outcome, RunRow


def ordering(view: View) -> list[Check]:
    return [
        _sequence(view),
        _asked_first(view),
        _dependencies(view),
        _signals(view),
        _timers(view),
        _retries(view),
        _time(view),
        _children(view),
    ]


def _sequence(view: View) -> Check:
    check = Check("ordering", "O1 sequence numbers 1..n")
    for expected, recorded in enumerate(view.facts, 1):
        check.hold(recorded.seq == expected, recorded.seq, f"number {recorded.seq} stands in place {expected}")
    return check


def _asked_first(view: View) -> Check:
    """Each outcome names an earlier fact that counts in its generation, and all about one step name the same."""
    check = Check("ordering", "O2 outcomes follow what asked for them")
    for era in view.generations:
        counting = {recorded.seq for recorded in era.facts}
        asked: dict[str, tuple[int, int]] = {}
        for recorded in era.counted:
            fact = recorded.fact
            if not isinstance(fact, f.StepCompleted | f.AttemptFailed | f.ChildEnded):
                continue
            first = asked.setdefault(fact.key, (fact.asked_seq, fact.ask))
            if recorded.seq < era.first:
                continue
            seq, source = recorded.seq, fact.asked_seq
            check.hold(0 < source < seq, seq, f"step {fact.key} says that fact {source} asked for it")
            if 0 < source < seq and source not in counting:
                check.add(
                    seq, f"step {fact.key} was asked for at fact {source}, which does not count in this generation"
                )
            if seq > view.forked_at and first[0] > view.forked_at and first != (source, fact.ask):
                check.add(
                    seq, f"step {fact.key} was asked for at fact {first[0]} by its earlier facts, at {source} by this"
                )
    return check


def _dependencies(view: View) -> Check:
    check = Check("ordering", "O2 what a step needs has ended before it is asked for")
    graph = view.subject.graph
    for era in view.generations if graph is not None else []:
        assert graph is not None
        checked, problems = out_of_order(graph, graph_trace(view, era))
        check.checked += checked
        for problem in problems:
            check.add(problem.seq, problem.text)
    return check


def _signals(view: View) -> Check:
    check = Check("ordering", "O3 signals in the order of their arrival")
    latest = 0
    for recorded in view.facts:
        fact = recorded.fact
        if isinstance(fact, f.SignalReceived):
            check.hold(
                fact.at >= latest, recorded.seq, f"signal {fact.name!r} arrived before the one recorded ahead of it"
            )
            latest = max(latest, fact.at)
    return check


def _timers(view: View) -> Check:
    """A timer fires once in a generation, not before it is due, and not before one that was due earlier."""
    check = Check("ordering", "O4 timers fire once, when due, in due order")
    for era in view.generations:
        fired: dict[str, int] = {}
        latest = 0
        for recorded in era.facts:
            fact = recorded.fact
            if not isinstance(fact, f.TimerFired):
                continue
            if recorded.seq >= era.first:
                seq, before = recorded.seq, fired.get(fact.key)
                check.hold(
                    fact.at >= fact.due, seq, f"timer {fact.key} fired {fact.due - fact.at} us before it was due"
                )
                if before is not None:
                    check.add(seq, f"timer {fact.key} fired at fact {before} already")
                if fact.due < latest:
                    check.add(seq, f"timer {fact.key} was due before one that fired ahead of it")
            fired.setdefault(fact.key, recorded.seq)
            latest = max(latest, fact.due)
    return check


def _retries(view: View) -> Check:
    """No attempt ends, and no intent is recorded, before the retry that it is was due."""
    check = Check("ordering", "O4 no attempt before its retry is due")
    for era in view.generations:
        due: dict[str, int | None] = {}
        for recorded in era.counted:
            fact = recorded.fact
            if recorded.seq == era.first:
                due.clear()  # a retry of the run waits for nothing
            elif isinstance(fact, f.AttemptFailed | f.StepCompleted | f.IntentRecorded):
                earliest = due.get(fact.key)
                if earliest is not None and recorded.seq > era.first:
                    text = f"step {fact.key} went on {earliest - fact.at} us before its retry was due"
                    check.hold(fact.at >= earliest, recorded.seq, text)
                if isinstance(fact, f.AttemptFailed):
                    due[fact.key] = fact.retry_at
            elif isinstance(fact, f.StepResolved):
                due.pop(fact.key, None)
    return check


def _time(view: View) -> Check:
    check = Check("ordering", "O5 time never goes back")
    latest = 0
    for recorded in view.facts:
        at = recorded.fact.at
        check.hold(at >= latest, recorded.seq, f"its time is {latest - at} us before that of an earlier fact")
        latest = max(latest, at)
    return check


def _children(view: View) -> Check:
    """A child begins after its parent asked for it and ends before its parent records that; its row says the same."""
    check = Check("ordering", "O6 children begin and end within their parent")
    for era in view.generations:
        seen: dict[str, int] = {}
        for recorded in era.own:
            fact = recorded.fact
            if not isinstance(fact, f.ChildEnded) or recorded.seq <= view.forked_at:
                continue
            check.checked += 1
            if fact.child in seen:
                check.add(recorded.seq, f"child run {fact.child} ended at fact {seen[fact.child]} already")
            seen[fact.child] = recorded.seq
            if fact.child in view.subject.children:
                _child(view, check, recorded, fact, view.subject.children[fact.child])
    _waiting_children(view, check)
    return check


def _child(view: View, check: Check, recorded: f.Recorded, fact: f.ChildEnded, child: RunRow | None) -> None:
    seq, row = recorded.seq, view.row
    if child is None:
        check.add(seq, f"child run {fact.child} is not in the store")
        return
    if (child.parent, child.parent_key) != (row.id, fact.key):
        check.add(seq, f"child run {fact.child} names {child.parent!r}, step {child.parent_key!r}, as its parent")
    asking = view.by_seq.get(fact.asked_seq)
    if asking is not None and child.created_at < asking.fact.at:
        check.add(seq, f"child run {fact.child} began before its parent asked for it")
    if child.generation > 1:
        return  # it was continued or retried: its row tells of a later end
    if child.life.value != fact.status:
        check.add(seq, f"child run {fact.child} is {child.life.value}, but {fact.status} for its parent")
    elif child.ended_at is not None and child.ended_at > fact.at:
        check.add(seq, f"child run {fact.child} ended after its parent recorded its end")
    elif child.life is Life.COMPLETED and outcome_of(child) != Outcome(result=fact.result):
        check.add(seq, f"the result of child run {fact.child} is another in its own row")


def _waiting_children(view: View, check: Check) -> None:
    """The children that a live run waits for exist, are its own, and have no recorded end."""
    row, era = view.row, view.last
    if row.life.ended or era is None:
        return
    ended = _ended_children(era)
    for one in row.wait.children:
        check.hold(
            one not in ended, ended.get(one), f"the run still waits for child run {one}, whose end it has recorded"
        )
        child = view.subject.children.get(one)
        if one in view.subject.children and child is None:
            check.add(None, f"the run waits for child run {one}, which is not in the store")
        if child is not None and child.parent != row.id and not view.forked_at:
            check.add(None, f"the run waits for child run {one}, which names {child.parent!r} as its parent")


def _ended_children(era: Generation) -> dict[str, int]:
    return {r.fact.child: r.seq for r in era.facts if isinstance(r.fact, f.ChildEnded)}
