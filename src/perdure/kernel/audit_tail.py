"""The audit as facts are committed: what one fact can break, at a few microseconds each."""

from __future__ import annotations

from typing import NamedTuple

from perdure.kernel.audit_report import Violation
from perdure.kernel.fold import ELEMENT, STEP_FACTS, UNDO, IllegalMove, ends_step, move, undo_targets
from perdure.model import fact as f
from perdure.model.run import Life


class _Ended(NamedTuple):
    seq: int
    completed: bool


class AuditTail:
    """The checks of sequence, chain, time, moves, epochs and single outcomes, fed fact by fact from a run's first.

    Shape: holds the sequence number of each outcome of the generation, and no facts.
    """

    __slots__ = ("at", "ended", "epoch", "failures", "generation", "graph", "head", "life", "requests", "run", "seq")

    def __init__(self, run: str, *, graph: bool = False) -> None:
        self.run, self.graph = run, graph
        self.life = Life.QUEUED
        self.seq = 0
        self.at = 0
        self.head = f.CHAIN_START
        self.generation = 1
        self.epoch = 0
        self.ended: dict[str, _Ended] = {}
        self.failures: dict[str, list[int]] = {}
        self.requests: dict[str, int] = {}

    def feed(self, recorded: f.Recorded) -> list[Violation]:
        """What this fact breaks; usually nothing. The tail then goes on from the fact as it stands."""
        found: list[Violation] = []
        fact, seq = recorded.fact, recorded.seq
        if seq != self.seq + 1:
            found.append(Violation("O1 sequence numbers 1..n", seq, f"it follows fact {self.seq} of run {self.run}"))
        if f.chain(self.head, recorded.body) != recorded.hash:
            found.append(
                Violation("K4 the hash chain holds", seq, "its hash does not follow from its body and the fact before")
            )
        if fact.at < self.at:
            found.append(
                Violation("O5 time never goes back", seq, f"its time is {self.at - fact.at} us before the last fact's")
            )
        try:
            self.life = move(self.life, type(fact), seq)
        except IllegalMove as error:
            found.append(Violation("K1 only moves of the table", seq, str(error)))
        self.seq, self.head, self.at = seq, recorded.hash, max(self.at, fact.at)
        if isinstance(fact, STEP_FACTS):
            self._step(found, seq, fact)
        elif isinstance(fact, f.RunContinued | f.RunRetried):
            self._next_generation(found, seq, fact)
        elif isinstance(fact, f.TimerFired):
            self._timer(found, seq, fact)
        self._epoch_and_request(found, seq, fact)
        return found

    def _step(self, found: list[Violation], seq: int, fact: f.AnyFact) -> None:
        assert isinstance(fact, STEP_FACTS)
        key = fact.key
        before = self.ended.get(key)
        if before is not None:
            text = f"step {key} had its outcome at fact {before.seq} already"
            found.append(Violation("A1 at most one outcome for a step", seq, text))
            return
        if isinstance(fact, f.StepCompleted | f.AttemptFailed | f.IntentRecorded):
            failed = self.failures.get(key, ())
            if fact.attempt != len(failed) + 1:
                text = f"attempt {fact.attempt} of step {key} is recorded where attempt {len(failed) + 1} is next"
                found.append(Violation("A5 attempts counted from 1 without a gap", seq, text))
            if isinstance(fact, f.AttemptFailed):
                self.failures.setdefault(key, []).append(seq)
        if isinstance(fact, f.StepCompleted | f.AttemptFailed | f.ChildEnded) and not 0 < fact.asked_seq < seq:
            text = f"step {key} says that fact {fact.asked_seq} asked for it"
            found.append(Violation("O2 outcomes follow what asked for them", seq, text))
        if ends_step(fact):
            self.ended[key] = _Ended(seq, _completed(fact))

    def _timer(self, found: list[Violation], seq: int, fact: f.TimerFired) -> None:
        before = self.ended.get(fact.key)
        if before is not None or fact.at < fact.due:
            text = f"timer {fact.key} " + (
                f"fired at fact {before.seq} already" if before else "fired before it was due"
            )
            found.append(Violation("O4 timers fire once, when due", seq, text))
        self.ended.setdefault(fact.key, _Ended(seq, False))

    def _next_generation(self, found: list[Violation], seq: int, fact: f.RunContinued | f.RunRetried) -> None:
        if fact.generation != self.generation + 1:
            text = f"generation {fact.generation} begins where generation {self.generation + 1} is next"
            found.append(Violation("K1 generations counted", seq, text))
        self.generation = fact.generation
        ended, failures, self.ended, self.failures = self.ended, self.failures, {}, {}
        if isinstance(fact, f.RunRetried) and not self.graph:
            self.ended = {key: end for key, end in ended.items() if end.seq <= fact.keep}
            before = {key: [at for at in seqs if at <= fact.keep] for key, seqs in failures.items()}
            self.failures = {key: seqs for key, seqs in before.items() if seqs}
        elif isinstance(fact, f.RunRetried):
            undone = {target for key, end in ended.items() if end.completed for target in undo_targets(key)}
            kept = (k for k, end in ended.items() if end.completed and k not in undone and not k.startswith(UNDO))
            # An element of a fan-out is made again when its list has changed, which is not seen here.
            self.ended = {key: ended[key] for key in kept if not ELEMENT.fullmatch(key)}

    def _epoch_and_request(self, found: list[Violation], seq: int, fact: f.AnyFact) -> None:
        epoch = getattr(fact, "epoch", self.epoch)
        if epoch < self.epoch:
            text = f"it is of epoch {epoch}, but epoch {self.epoch} had taken over before"
            found.append(Violation("A4 outcomes are of the owner's epoch", seq, text))
        self.epoch = max(self.epoch, epoch)
        request = getattr(fact, "request", "")
        if request:
            first = self.requests.setdefault(request, seq)
            if first != seq:
                text = f"request {request!r} was consumed at fact {first} already"
                found.append(Violation("C2 each request counts once", seq, text))


def _completed(fact: f.AnyFact) -> bool:
    if isinstance(fact, f.ChildEnded):
        return fact.status == "completed"
    if isinstance(fact, f.StepResolved):
        return fact.how == "result" or fact.key.startswith(UNDO)
    return isinstance(fact, f.StepCompleted)
