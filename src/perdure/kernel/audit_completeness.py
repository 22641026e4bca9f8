"""Completeness: what is required is done, what was acknowledged is there, and something will wake every run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from perdure.kernel.attempt import DOUBTFUL
from perdure.kernel.audit_oracle import required
from perdure.kernel.audit_report import Check
from perdure.kernel.audit_subject import View
from perdure.kernel.audit_trace import graph_trace
from perdure.kernel.fold import UNDO, Generation, StepState, undo_targets
from perdure.model import fact as f
from perdure.model.run import Life, RunRow


def completeness(view: View) -> list[Check]:
    return [_activities(view), _owed(view), _carried_signals(view), _requests(view), _acknowledged(view), _wake(view)]


def _activities(view: View) -> Check:
    check = Check("completeness", "C1 required activities done")
    era = view.last
    if era is None or view.folded.life is not Life.COMPLETED:
        return check
    for key, state in era.steps.items():
        check.hold(not state.stuck, state.facts[-1].seq, f"compensation {key} failed for good and nobody resolved it")
    replay = view.subject.replay
    if replay is not None and replay.ok and replay.keys is not None and replay.open is not None:
        for key, seq in replay.keys.items():
            check.hold(key not in replay.open, seq, f"step {key} was asked for and is still wanted, but has no outcome")
    if view.subject.graph is not None:
        check.checked += len(view.subject.graph.nodes)
        for problem in required(view.subject.graph, graph_trace(view, era)):
            check.add(problem.seq, problem.text)
    return check


def _owed(view: View) -> Check:
    """A generation that failed or was cancelled has undone every success that has a compensation (S17)."""
    check = Check("completeness", "C1 what a failed run owed is undone")
    ever = {key for era in view.generations for key, state in era.steps.items() if _undone(key, state)}
    for era in view.generations:
        end = next((r for r in era.own if isinstance(r.fact, f.RunFailed | f.RunCancelled)), None)
        if end is None:
            continue
        done = {target for key, state in era.steps.items() if _undone(key, state) for target in undo_targets(key)}
        if isinstance(era.facts[0].fact, f.RunContinued):
            for owed in era.facts[0].fact.owed:
                key = f"{UNDO}{owed.key}@{owed.generation}"
                check.hold(key in ever, end.seq, f"{owed.key} of generation {owed.generation} was owed a compensation")
        for key, state in era.steps.items():
            if _has_compensation(key, state):
                check.hold(
                    key in done, end.seq, f"{key} may have had its effect, and was not compensated before the run's end"
                )
    return check


def _undone(key: str, state: StepState) -> bool:
    return key.startswith(UNDO) and state.outcome == "completed"


def _has_compensation(key: str, state: StepState) -> bool:
    """Whether a step ended so that it must be undone; arguments are kept only where a compensation needs them."""
    if key.startswith(UNDO) or all(getattr(recorded.fact, "args", f.NULL) == f.NULL for recorded in state.facts):
        return False
    last = state.end.fact if state.end is not None else None
    return state.outcome == "completed" or (isinstance(last, f.AttemptFailed) and last.failure.kind in DOUBTFUL)


def _carried_signals(view: View) -> Check:
    """What a continued run carries over are, for each name, the last ones that it had received (S20)."""
    check = Check("completeness", "C2 unread signals and owed compensations go over")
    for old, new in zip(view.generations, view.generations[1:], strict=False):
        fact = new.start
        if not isinstance(fact, f.RunContinued):
            continue
        received: dict[str, list[bytes]] = defaultdict(list)
        for recorded in old.facts:
            if isinstance(recorded.fact, f.RunContinued):
                for name, value in recorded.fact.signals:
                    received[name].append(bytes(value))
            elif isinstance(recorded.fact, f.SignalReceived):
                received[recorded.fact.name].append(bytes(recorded.fact.value))
        carried: dict[str, list[bytes]] = defaultdict(list)
        for name, value in fact.signals:
            carried[name].append(bytes(value))
        for name, values in carried.items():
            fits = received[name][-len(values) :] == values
            check.hold(fits, new.first, f"signals {name!r} carried over are not the last ones received")
        _owed_goes_over(check, old, new.first, fact)
    return check


def _owed_goes_over(check: Check, old: Generation, seq: int, fact: f.RunContinued) -> None:
    carried = Counter((owed.key, owed.generation) for owed in fact.owed)
    for (key, generation), count in carried.items():
        check.hold(
            count == 1, seq, f"the compensation of {key} (generation {generation}) is carried over {count} times"
        )
    keys = {key for key, _ in carried}
    for key, state in old.steps.items():
        if _has_compensation(key, state):
            check.hold(key in keys, seq, f"{key} has a compensation, which is not carried over")
    if isinstance(old.facts[0].fact, f.RunContinued):
        for owed in old.facts[0].fact.owed:
            kept = (owed.key, owed.generation) in carried
            check.hold(kept, seq, f"the compensation of {owed.key} (generation {owed.generation}) is not carried over")


def _requests(view: View) -> Check:
    check = Check("completeness", "C2 each request counts once")
    for recorded in view.facts:
        request = getattr(recorded.fact, "request", "")
        if request:
            first = view.folded.requests[request]
            check.hold(first == recorded.seq, recorded.seq, f"request {request!r} was consumed at fact {first} already")
    return check


def _acknowledged(view: View) -> Check:
    check = Check("completeness", "C2 no acknowledged request is missing")
    missing = sorted(view.subject.acknowledged - view.folded.requests.keys())
    check.checked = len(view.subject.acknowledged)
    if len(missing) > view.subject.inbox:
        for request in missing:
            check.add(None, f"request {request!r} was acknowledged, but no fact and no message in the inbox holds it")
    return check


def _wake(view: View) -> Check:
    check = Check("completeness", "L1 something will wake a run that has not ended")
    row = view.row
    if row.life is Life.ATTENTION:
        named = view.folded.attention is not None and bool(view.folded.attention.reason)
        check.hold(named, view.folded.seq or None, "the run needs attention without a recorded reason")
    elif not row.life.ended:
        sources = wake_sources(row, view.subject.children, view.subject.inbox)
        check.hold(bool(sources), view.folded.seq or None, f"nothing will ever wake this run: its wait is {row.wait}")
    return check


def wake_sources(run: RunRow, children: Mapping[str, RunRow | None], inbox: int) -> list[str]:
    """What will wake a run that is queued or live, in words; empty: nothing will.

    Shape: `children` are the rows that were looked up; a child that is not among them is taken as live.
    """
    wait, sources = run.wait, []
    if run.life is Life.QUEUED:
        sources.append("its turn in the queue")
    if wait.open:
        sources.append(f"{wait.open} steps that are due or in an attempt")
    if wait.due is not None:
        sources.append("a timer or retry")
    if wait.signals:
        sources.append("a signal: " + ", ".join(wait.signals))
    if inbox:
        sources.append(f"{inbox} messages in its inbox")
    looked_up = ((one, children.get(one)) for one in wait.children)
    live = [one for one, child in looked_up if (not child.life.ended if child is not None else one not in children)]
    if live:
        sources.append("a child run: " + ", ".join(live[:3]))
    return sources
