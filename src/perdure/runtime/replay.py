"""Recovery is the live path: make the decider, feed the history, ask for its commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from perdure.errors import NonDeterminism, PerdureError, StoreDamaged
from perdure.kernel.decider import Catalogue, Decider
from perdure.kernel.flow import Flow, Limits
from perdure.kernel.graph import Graph
from perdure.model import fact as f
from perdure.model.payload import blob_hash, is_blob
from perdure.model.workflow import WorkflowSpec

_KEYED = (f.StepCompleted, f.AttemptFailed, f.ChildEnded, f.StepResolved, f.TimerFired, f.IntentRecorded)
# Causes of attention for which the turn counts as not folded.
TAKEN_BACK = frozenset({"endless_turn", "blocked", "stalled", "refused"})
Known = Sequence[tuple[int, f.AnyFact]]


class Attention(PerdureError):
    """A history stops in a turn that needs attention. Carries its `cause` and `step`."""

    def __init__(self, cause: f.Cause, reason: str, step: str) -> None:
        super().__init__(reason)
        self.cause, self.step = cause, step


def make(run_id: str, spec: WorkflowSpec, catalogue: Catalogue, limits: Limits) -> Decider:
    """A decider for a run of this workflow, with nothing folded yet."""
    if spec.kind == "graph":
        return Graph(run_id, spec, catalogue, limits)
    return Flow(run_id, spec, catalogue, limits)  # type: ignore[abstract]  # what a loop has beyond it is refused by name


def decode(facts: Sequence[tuple[int, bytes, bytes]]) -> list[tuple[int, f.AnyFact]]:
    """Raises: `StoreDamaged` naming the first fact that cannot be read."""
    known = []
    for seq, body, _ in facts:
        try:
            known.append((seq, f.decode_fact(body)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreDamaged(f"fact {seq} cannot be read: {error}") from None
    return known


def blobs_of(known: Known) -> set[str]:
    """The hashes of the blobs that these facts refer to."""
    found = set()
    for _, fact in known:
        for name in ("result", "input", "value", "args"):
            raw = getattr(fact, name, None)
            if isinstance(raw, msgspec.Raw) and is_blob(raw):
                found.add(blob_hash(raw))
    return found


def fill(known: Known, blobs: dict[str, bytes]) -> None:
    """Put blobs in the place of the references to them."""
    for _, fact in known:
        for name in ("result", "input", "value", "args"):
            raw = getattr(fact, name, None)
            if isinstance(raw, msgspec.Raw) and is_blob(raw):
                setattr(fact, name, msgspec.Raw(blobs[blob_hash(raw)]))


def effective(known: Known, shape: str) -> Known:
    """The facts that the newest generation stands on: from the last continue, and without what a retry took back."""
    start = next(
        (i for i in range(len(known) - 1, -1, -1) if isinstance(known[i][1], f.RunContinued | f.RunStarted)), 0
    )
    kept: list[tuple[int, f.AnyFact]] = []
    for seq, fact in known[start:]:
        if isinstance(fact, f.RunRetried) and shape == "flow":
            kept = [item for item in kept if item[0] <= fact.keep]
        kept.append((seq, fact))
    return kept


def forced(known: Known) -> bool:
    """Whether the run is being ended without its code: by the last word, for a retry takes that back."""
    for _, fact in reversed(known):
        if isinstance(fact, f.RunRetried):
            return False
        if isinstance(fact, f.CancelRequested) and fact.force:
            return True
    return False


def stood_on(decider: Decider, history: Known) -> tuple[Known, int]:
    """The facts that the newest generation stands on, and the fact up to which a fork copied them (0: none).

    Those were recorded in the order of the first run's sets (S22), in which the decider then folds them.
    """
    if not history:
        return history, 0
    known, start = effective(history, decider.shape), history[0][1]
    if not isinstance(start, f.RunStarted) or not start.fork_of or known[0][0] > start.fork_at:
        return known, 0
    decider.order_of = start.fork_of
    return known, start.fork_at


def groups(known: Known) -> Iterator[tuple[int, f.AnyFact, tuple[f.Decision, ...]]]:
    """Each cause with the decisions recorded behind it. A leading continue is a cause."""
    i, count = 0, len(known)
    while i < count:
        seq, cause = known[i]
        end = i + 1
        while end < count and isinstance(known[end][1], f.DECISIONS):
            end += 1
        yield seq, cause, tuple(fact for _, fact in known[i + 1 : end])  # type: ignore[misc]
        i = end


def replay(
    decider: Decider,
    known: Known,
    *,
    copied: int = 0,
    first: bool = True,
    trace: dict[int, tuple[int, int]] | None = None,
) -> bool:
    """Feed recorded facts to a decider and compare what it does with what is recorded.

    A turn that led to attention by its code was taken back: once the code is mended it is folded anew. What it decides
    is recorded behind the fact that resumes the run; until then it is left in `decisions`, and its commands with it.

    Shape: `known` is effective; up to the fact `copied` (of a fork) arguments are not compared; `first` when it
           begins with the run's start or continue, whose digest is that of another generation; `trace` is filled
           with the digest after each turn. True when a turn was folded anew.
    Raises: `NonDeterminism`, or `Attention` for a turn that cannot be folded any more.
    """
    decider.live, anew = False, False
    # Code may block on replay too, where it was changed.
    watch = decider.limits.watch if isinstance(decider, Flow | Graph) else None
    fold = decider.on if watch is None else partial(watch.fold, decider)
    carried: list[f.Decision] = []
    turns = list(groups(known))
    for i, (seq, cause, expected) in enumerate(turns):
        taken_back, resumed = _taken_back(turns, i), None
        if taken_back:
            resumed = next((turn for turn in turns[i + 2 :] if isinstance(turn[1], f.RunResumed)), None)
            anew = decider.live = resumed is None
            decider.commands.clear()
        if first:
            first = False
        elif not isinstance(cause, f.AttentionSet):
            if seq > copied and (cause.asked_n != decider.asked_n or cause.asked_h != decider.asked_h):
                raise _difference(decider, known, seq, cause)
            _check_key(decider, known, seq, cause)
        fold(cause, seq, resumed[2] if resumed is not None else expected)
        decider.live = False
        if decider.trouble is not None:
            if isinstance(cause, f.AttemptFailed) and decider.trouble.cause == "compensation_failed":
                decider.trouble = None
            else:
                trouble = decider.trouble
                raise Attention(trouble.cause, trouble.reason, trouble.step)
        decisions, decider.decisions = decider.decisions, []
        if taken_back and not _same(decisions, expected, compare=seq > copied):
            carried, decisions = decisions, list(expected)
        elif carried and isinstance(cause, f.RunResumed):
            stamp(carried, cause.at)
            carried, decisions = [], [*carried, *decisions]
        if not _same(decisions, expected, compare=seq > copied):
            raise _decided_otherwise(seq, decisions, expected)
        if trace is not None:
            trace[seq] = (decider.asked_n, decider.asked_h)
    decider.decisions = carried
    decider.live = True
    return anew


def _taken_back(turns: Sequence[tuple[int, f.AnyFact, tuple[f.Decision, ...]]], i: int) -> bool:
    """Whether a turn ended in attention because of what its code did."""
    after = turns[i + 1][1] if i + 1 < len(turns) else None
    return isinstance(after, f.AttentionSet) and after.cause in TAKEN_BACK and not isinstance(turns[i][1], f.NOTES)


def stamp(decisions: Sequence[f.Decision], at: int) -> None:
    """Give decisions the time of the fact that they are recorded behind."""
    for fact in decisions:
        fact.at = max(fact.at, at)


def _same(decided: Sequence[f.Decision], expected: Sequence[f.Decision], *, compare: bool) -> bool:
    if len(decided) != len(expected):
        return False
    for mine, theirs in zip(decided, expected, strict=True):
        if type(mine) is not type(theirs):
            return False
        if compare and not isinstance(mine, f.RunFailed) and f.encode_fact(mine) != f.encode_fact(theirs):
            return False
    return True


def _check_key(decider: Decider, known: Known, seq: int, fact: f.AnyFact) -> None:
    """The fact must be about something that the code asks for."""
    if isinstance(fact, f.StepCompleted | f.AttemptFailed):
        step = decider.open.get(fact.key)
        if step is None:
            raise _difference(decider, known, seq, fact)
    elif isinstance(fact, f.ChildEnded):
        if fact.key not in decider.children:
            raise _difference(decider, known, seq, fact)
    elif isinstance(fact, f.TimerFired):
        timer = decider.next_timer()
        if timer is None or timer[1] != fact.key:
            raise _difference(decider, known, seq, fact)
    elif isinstance(fact, f.StepResolved) and fact.key not in decider.open:
        raise _difference(decider, known, seq, fact)


def _difference(decider: Decider, known: Known, seq: int, at: f.AnyFact) -> NonDeterminism:
    """Name the first recorded step that the code does not ask for (or asks for with other arguments)."""
    wanted = _wanted(decider)
    for later, fact in known:
        if later < seq or not isinstance(fact, _KEYED) or getattr(fact, "asked_seq", 0) >= seq:
            continue
        key = fact.key
        step = decider.open.get(key)
        if isinstance(fact, f.TimerFired):
            timer = decider.next_timer()
            if timer is not None and timer[1] == key:
                continue
            return NonDeterminism(key, f"timer {key}", wanted, later)
        if step is None and key not in decider.children:
            return NonDeterminism(key, f"step {key}", wanted, later)
        ask = getattr(fact, "ask", None)
        mine = step.ask if step is not None else decider.children[key].ask
        if ask is not None and ask != mine:
            return NonDeterminism(
                key, f"{key} with arguments of digest {ask:016x}", f"{key} with other arguments ({mine:016x})", later
            )
    recorded = f"{at.asked_n} things in all (digest {at.asked_h:016x})"
    return NonDeterminism("(in flight)", recorded, f"{decider.asked_n} (digest {decider.asked_h:016x}): {wanted}", seq)


def _wanted(decider: Decider) -> str:
    keys = [*decider.open, *decider.children]
    timer = decider.next_timer()
    if timer is not None:
        keys.append(timer[1])
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "") if keys else "nothing"


def _decided_otherwise(seq: int, decided: Sequence[f.Decision], expected: Sequence[f.Decision]) -> NonDeterminism:
    def say(facts: Sequence[f.Decision]) -> str:
        return (
            ", ".join(
                f"{type(fact).__struct_config__.tag} {getattr(fact, 'key', getattr(fact, 'id', ''))}".strip()
                for fact in facts
            )
            or "nothing"
        )

    return NonDeterminism("(decisions)", say(expected), say(decided), seq)


def check_frontier(decider: Decider, seq: int, asked_n: int, asked_h: int) -> None:
    """What the code asks for at the last turn must be what it asked for when that was committed (S3)."""
    if decider.asked_n == asked_n and decider.asked_h == asked_h:
        return
    recorded = f"{asked_n} things in all (digest {asked_h:016x})"
    raise NonDeterminism(
        "(in flight)", recorded, f"{decider.asked_n} (digest {decider.asked_h:016x}): {_wanted(decider)}", seq
    ) from None


def tag_of(fact: f.AnyFact) -> str:
    """The fact's kind as its body names it."""
    return str(type(fact).__struct_config__.tag)
