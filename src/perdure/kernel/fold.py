"""What a history says of its run: the table of moves, the generations, the steps, and the derived part of the row.

No user code runs here: what only the code knows (the wait, variables, the digest) is the deciders' part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from perdure.errors import StoreDamaged
from perdure.model import fact as f
from perdure.model.run import Life, Outcome

UNDO: Final = "undo:"
ELEMENT: Final = re.compile(r"(.*)\[(\d+)\]", re.DOTALL)
_OF_GENERATION: Final = re.compile(r"(.*)@(\d+)", re.DOTALL)

MOVES: Final[Mapping[tuple[Life, type[f.Fact]], Life]] = MappingProxyType(
    {
        (Life.QUEUED, f.RunStarted): Life.LIVE,
        (Life.LIVE, f.RunRecovered): Life.LIVE,
        (Life.LIVE, f.IntentRecorded): Life.LIVE,
        (Life.LIVE, f.AttemptFailed): Life.LIVE,
        (Life.LIVE, f.StepCompleted): Life.LIVE,
        (Life.LIVE, f.StepSkipped): Life.LIVE,
        (Life.LIVE, f.StepResolved): Life.LIVE,
        (Life.LIVE, f.SignalReceived): Life.LIVE,
        (Life.LIVE, f.TimerFired): Life.LIVE,
        (Life.LIVE, f.ChildEnded): Life.LIVE,
        (Life.LIVE, f.PatchTaken): Life.LIVE,
        (Life.LIVE, f.CancelRequested): Life.LIVE,
        (Life.LIVE, f.RunContinued): Life.LIVE,
        (Life.LIVE, f.AttentionSet): Life.ATTENTION,
        (Life.LIVE, f.RunCompleted): Life.COMPLETED,
        (Life.LIVE, f.RunFailed): Life.FAILED,
        (Life.LIVE, f.RunCancelled): Life.CANCELLED,
        # Messages wait in the inbox; what was in an attempt is given up and made again (S19).
        (Life.ATTENTION, f.RunResumed): Life.LIVE,
        (Life.ATTENTION, f.CancelRequested): Life.LIVE,
        (Life.FAILED, f.RunRetried): Life.LIVE,
        (Life.CANCELLED, f.RunRetried): Life.LIVE,
    }
)


class IllegalMove(StoreDamaged):
    """A fact stands where the table of moves has none: the history was damaged, or written by a faulty engine."""

    def __init__(self, life: Life, kind: type[f.Fact], seq: int) -> None:
        super().__init__(f"fact {seq}: {kind.__name__} cannot follow while the run is {life.value}")
        self.life, self.kind, self.seq = life, kind, seq


def move(life: Life, kind: type[f.Fact], seq: int) -> Life:
    """Where a fact takes a run. Raises: `IllegalMove` for a pair that is not in the table."""
    moved = MOVES.get((life, kind))
    if moved is None:
        raise IllegalMove(life, kind, seq)
    return moved


class StepState(msgspec.Struct, kw_only=True):
    """What is recorded of one step in one generation.

    Shape: `failures` counts recorded failed attempts, of which `forgiven` do not count for the retry policy any more;
           `end` is the fact of the outcome (None: the step is open), `facts` all facts about the step in order;
           `stuck`: a compensation failed for good and waits for a person; a resumed run tries it again.
    Units: `retry_at` microseconds since 1970 UTC.
    """

    failures: int = 0
    forgiven: int = 0
    retry_at: int | None = None
    stuck: bool = False
    outcome: Literal["completed", "failed", "skipped"] | None = None
    end: f.Recorded | None = None
    facts: list[f.Recorded] = msgspec.field(default_factory=list)


class Generation(msgspec.Struct):
    """A run's life between start, continue and retry.

    Shape: `facts` are those that count in it, in order: the first `kept` stem from earlier generations, the next began
           it. `first` is that one's sequence number. `flow`: what is kept is a prefix of a flow's facts.
    """

    number: int
    first: int
    kept: int
    facts: list[f.Recorded]
    flow: bool = True
    steps: dict[str, StepState] = {}

    @property
    def start(self) -> f.AnyFact:
        return self.facts[self.kept].fact

    @property
    def own(self) -> Sequence[f.Recorded]:
        """The facts that were recorded in this generation."""
        return self.facts[self.kept :] if self.kept else self.facts

    @property
    def counted(self) -> Sequence[f.Recorded]:
        """The facts by which attempts are counted: a graph keeps results, a flow also the failures before them."""
        return self.facts if self.flow else self.own


class Folded(msgspec.Struct, kw_only=True):
    """The derived part of a run's row, and what else its whole history says.

    Shape: `requests` maps each request id to the first fact that consumed it; `epoch` is the highest on record (0:
           none); `attention` is the open reason, None when the run needs none.
    """

    life: Life = Life.QUEUED
    seq: int = 0
    head: bytes = f.CHAIN_START
    generation: int = 1
    epoch: int = 0
    outcome: Outcome | None = None
    ended_at: int | None = None
    attention: f.AttentionSet | None = None
    started: f.RunStarted | None = None
    requests: dict[str, int] = {}
    generations: list[Generation] = []

    @property
    def steps(self) -> dict[tuple[int, str], StepState]:
        """Every step's state by (generation, key); kept steps stand in each generation that keeps them."""
        return {(era.number, key): state for era in self.generations for key, state in era.steps.items()}


def fold(facts: Sequence[f.Recorded], *, graph: bool = False, illegal: list[IllegalMove] | None = None) -> Folded:
    """Fold a run's whole history, from its first fact.

    Shape: `graph` when it is a graph's, whose retries keep other facts than a flow's (S21); with `illegal`, moves that
           are not in the table are collected there and change no life.
    Raises: `IllegalMove` otherwise.
    """
    folded = Folded(generations=generations(facts, graph=graph))
    for recorded in facts:
        try:
            folded.life = move(folded.life, type(recorded.fact), recorded.seq)
        except IllegalMove as error:
            if illegal is None:
                raise
            illegal.append(error)
        else:
            _conclude(folded, recorded.fact)
        _note(folded, recorded)
    return folded


def _conclude(folded: Folded, fact: f.AnyFact) -> None:
    """Set what depends on the run's new life."""
    folded.attention = folded.outcome = None
    folded.ended_at = fact.at if folded.life.ended else None
    if isinstance(fact, f.AttentionSet):
        folded.attention = fact
        folded.outcome = Outcome(reason=fact.reason, cause=fact.cause, step=fact.step or None)
    elif isinstance(fact, f.RunCompleted):
        folded.outcome = Outcome(result=fact.result)
    elif isinstance(fact, f.RunFailed):
        folded.outcome = Outcome(failure=fact.failure)
    elif isinstance(fact, f.RunCancelled):
        folded.outcome = Outcome(reason=fact.reason)


def _note(folded: Folded, recorded: f.Recorded) -> None:
    """Set what every fact carries forward."""
    fact = recorded.fact
    folded.seq, folded.head = recorded.seq, recorded.hash
    folded.epoch = max(folded.epoch, getattr(fact, "epoch", 0))
    if isinstance(fact, f.RunContinued | f.RunRetried):
        folded.generation = fact.generation
    elif isinstance(fact, f.RunStarted) and folded.started is None:
        folded.started = fact
    request = request_of(fact)
    if request:
        folded.requests.setdefault(request, recorded.seq)


def request_of(fact: f.AnyFact) -> str:
    """The request id that a fact consumed; empty when it has none."""
    return getattr(fact, "request", "")


# --- generations and steps -----------------------------------------------------------------------


def generations(facts: Iterable[f.Recorded], *, graph: bool = False) -> list[Generation]:
    """The generations of a history, each with the facts that count in it and the states of its steps (S20, S21)."""
    eras: list[Generation] = []
    for recorded in facts:
        fact = recorded.fact
        if not eras:
            eras.append(Generation(1, recorded.seq, 0, [recorded], True, {}))
        elif isinstance(fact, f.RunContinued):
            eras.append(Generation(fact.generation, recorded.seq, 0, [recorded], True, {}))
        elif isinstance(fact, f.RunRetried):
            eras.append(_retried(eras[-1], recorded, fact, flow=not graph))
        else:
            _belongs(eras[-1], recorded)
    return eras


def _belongs(era: Generation, recorded: f.Recorded) -> None:
    """Fold a fact into the generation that it was recorded in."""
    era.facts.append(recorded)
    if era.kept and isinstance(recorded.fact, STEP_FACTS) and remade(era, recorded.fact.key):
        del era.steps[recorded.fact.key]
    fold_step(era.steps, recorded)


def remade(era: Generation, key: str) -> bool:
    """Whether this is a kept element of a fan-out, which is made again when its list has changed."""
    state = era.steps.get(key)
    kept = not era.flow and state is not None and state.end is not None and state.end.seq < era.first
    return kept and ELEMENT.fullmatch(key) is not None


def _retried(old: Generation, recorded: f.Recorded, fact: f.RunRetried, *, flow: bool) -> Generation:
    """The generation that a retry begins."""
    if flow:
        kept = [earlier for earlier in old.facts if earlier.seq <= fact.keep]
    else:
        undone = {
            target for key, state in old.steps.items() if state.outcome == "completed" for target in undo_targets(key)
        }
        good = (key for key, state in old.steps.items() if state.outcome == "completed" and not key.startswith(UNDO))
        ends = (old.steps[key].end for key in good if key not in undone)
        kept = sorted((end for end in ends if end is not None), key=_by_seq)
    era = Generation(fact.generation, recorded.seq, len(kept), [*kept, recorded], flow, {})
    for earlier in kept:
        fold_step(era.steps, earlier)
    for state in era.steps.values():
        state.forgiven, state.retry_at = state.failures, None
    return era


def _by_seq(recorded: f.Recorded) -> int:
    return recorded.seq


def undo_targets(key: str) -> tuple[str, ...]:
    """The steps that a compensation's key may undo: `undo:<key>`, or `undo:<key>@<generation>` for an earlier one's."""
    if not key.startswith(UNDO):
        return ()
    target = key[len(UNDO) :]
    earlier = _OF_GENERATION.fullmatch(target)
    return (target, earlier[1]) if earlier else (target,)


StepFact = f.StepCompleted | f.AttemptFailed | f.StepSkipped | f.StepResolved | f.ChildEnded | f.IntentRecorded
STEP_FACTS: Final = (f.StepCompleted, f.AttemptFailed, f.StepSkipped, f.StepResolved, f.ChildEnded, f.IntentRecorded)


def ends_step(fact: f.AnyFact) -> bool:
    """Whether this fact is its step's outcome; a compensation that fails for good waits for a person instead (S19)."""
    if isinstance(fact, f.AttemptFailed):
        return fact.retry_at is None and not fact.key.startswith(UNDO)
    if isinstance(fact, f.StepResolved):
        return fact.how != "retry"
    return isinstance(fact, f.StepCompleted | f.StepSkipped | f.ChildEnded)


def fold_step(steps: dict[str, StepState], recorded: f.Recorded) -> None:
    """Fold one fact into its step's state, where it is about a step. The first recorded outcome stands."""
    fact = recorded.fact
    if not isinstance(fact, STEP_FACTS):
        if isinstance(fact, f.RunResumed):
            for stuck in [state for state in steps.values() if state.stuck]:
                stuck.forgiven, stuck.stuck = stuck.failures, False
        return
    state = steps.get(fact.key)
    if state is None:
        state = steps[fact.key] = StepState()
    state.facts.append(recorded)
    if state.outcome is not None:
        return
    if isinstance(fact, f.AttemptFailed):
        state.failures += 1
        state.retry_at = fact.retry_at
        state.stuck = fact.retry_at is None
    elif isinstance(fact, f.StepResolved) and fact.how == "retry":
        state.forgiven, state.retry_at, state.stuck = state.failures, None, False
    if ends_step(fact):
        state.outcome, state.end, state.stuck, state.retry_at = _outcome_of(fact), recorded, False, None


def _outcome_of(fact: StepFact) -> Literal["completed", "failed", "skipped"]:
    if isinstance(fact, f.StepSkipped):
        return "skipped"
    if isinstance(fact, f.ChildEnded):
        return "completed" if fact.status == "completed" else "failed"
    if isinstance(fact, f.StepResolved):
        return "completed" if fact.how == "result" or fact.key.startswith(UNDO) else "failed"
    return "completed" if isinstance(fact, f.StepCompleted) else "failed"
