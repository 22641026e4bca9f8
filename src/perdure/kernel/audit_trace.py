"""From a generation's facts to what the oracle reads."""

from __future__ import annotations

from perdure.kernel.audit_oracle import End, State, Trace
from perdure.kernel.audit_subject import View
from perdure.kernel.fold import UNDO, Generation, StepState
from perdure.model import fact as f


def graph_trace(view: View, era: Generation) -> Trace:
    """One generation's recorded ends, and the turns that asked for what was made in it."""
    ends: dict[str, End] = {}
    asked: dict[str, int] = {}
    for key, state in era.steps.items():
        if key.startswith(UNDO):
            continue
        if state.end is not None:
            ends[key] = _end(view, state, state.end)
        for recorded in state.facts:
            seq = getattr(recorded.fact, "asked_seq", None)
            if seq is not None and recorded.seq >= era.first:
                asked[key] = min(seq, asked.get(key, seq))
    started = view.folded.started
    replay = view.subject.replay if era is view.last else None
    given = bytes(started.input) if started is not None else b"null"
    return Trace(ends, asked, given, frozenset() if replay is None else replay.unmade)


def _end(view: View, state: StepState, recorded: f.Recorded) -> End:
    fact = recorded.fact
    kinds: dict[str, State] = {"completed": "succeeded", "failed": "failed", "skipped": "skipped"}
    result = getattr(fact, "result", None)
    return End(
        kinds[state.outcome or "failed"],
        view.turns.get(recorded.seq, recorded.seq),
        getattr(fact, "reason", ""),
        None if result is None else bytes(result),
    )
