"""What the audit looks at: a run's row and whole history, and what its surroundings know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

import msgspec

from perdure.kernel.fold import Folded, Generation, IllegalMove, fold
from perdure.model import fact as f
from perdure.model.graph import GraphDefinition
from perdure.model.run import Outcome, RunRow, Wait

Digest = tuple[int, int]
# What only a person or a newer definition can set right: while a run needs attention for it, a replay may fail.
UNREPLAYABLE: Final = frozenset(
    {"nondeterminism", "endless_turn", "blocked", "stalled", "refused", "not_recorded", "damaged"}
)


class ReplayResult(msgspec.Struct, kw_only=True):
    """What came of running the workflow's code on the history of its last generation.

    Shape: `mismatch` and `seq` tell the first difference when it is not `ok`; `asked` maps the sequence number of each
           turn to the digest after it, as (`asked_n`, `asked_h`); `keys` maps each step and child asked for to the
           sequence number of the turn that asked; `open` are those still wanted after the last turn (no outcome, not
           given up, not detached); `limits` maps keys to the attempts that their retry policies allow (none for
           at-most-once steps, which a probe may begin again); `unmade` are a graph's nodes that failed without an
           attempt, since their arguments could not be made; `wait` is the decider's after the last turn. What is None
           was not looked at.
    """

    ok: bool = True
    mismatch: str = ""
    seq: int | None = None
    asked: Mapping[int, Digest] = {}
    keys: Mapping[str, int] | None = None
    open: frozenset[str] | None = None
    limits: Mapping[str, int] = {}
    unmade: frozenset[str] = frozenset()
    wait: Wait | None = None


class Subject(msgspec.Struct, kw_only=True):
    """One run to audit.

    Shape: `facts` is the whole history from sequence number 1, blobs not filled in; `children` holds the rows of child
           runs by id (None: looked for and not there), `parent` the parent's row; `inbox` counts the messages that
           wait for the run; `epochs` are numbers that were granted to engines (empty: not known); `acknowledged` are
           request ids for this run that a witness saw acknowledged; `answers` maps request ids to the run that the
           store answers with.
    """

    row: RunRow
    facts: Sequence[f.Recorded]
    children: Mapping[str, RunRow | None] = {}
    parent: RunRow | None = None
    replay: ReplayResult | None = None
    graph: GraphDefinition | None = None
    inbox: int = 0
    epochs: frozenset[int] = frozenset()
    acknowledged: frozenset[str] = frozenset()
    answers: Mapping[str, str] = {}


def outcome_of(row: RunRow) -> Outcome | str | None:
    """A row's outcome; as text when it cannot be read."""
    if row.outcome is None:
        return None
    try:
        return msgspec.json.decode(row.outcome, type=Outcome)
    except msgspec.DecodeError as error:
        return f"unreadable ({error})"


class View:
    """A subject with what several checks need, computed once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.row = subject.row
        self.facts = subject.facts
        self.illegal: list[IllegalMove] = []
        self.folded: Folded = fold(subject.facts, graph=subject.graph is not None, illegal=self.illegal)
        self.generations: list[Generation] = self.folded.generations
        started = self.folded.started
        self.forked_at = started.fork_at if started is not None and started.fork_of else 0

    @property
    def last(self) -> Generation | None:
        return self.generations[-1] if self.generations else None

    @cached_property
    def by_seq(self) -> dict[int, f.Recorded]:
        return {recorded.seq: recorded for recorded in self.facts}

    @cached_property
    def turns(self) -> dict[int, int]:
        """For each fact, the fact whose turn it belongs to: a decision's cause, and every other fact itself."""
        turns, cause = {}, 0
        for recorded in self.facts:
            fact = recorded.fact
            if not isinstance(fact, f.DECISIONS) or isinstance(fact, f.RunContinued):
                cause = recorded.seq
            turns[recorded.seq] = cause
        return turns
