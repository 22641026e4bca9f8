"""A run in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from perdure.model.fact import CHAIN_START
from perdure.model.run import NO_WAIT, Life, RunRow, Wait
from perdure.state.store import Ref

if TYPE_CHECKING:
    from perdure.kernel.decider import Decider
    from perdure.model.workflow import WorkflowSpec


class Ended(NamedTuple):
    """How a run has ended, or that it needs attention: what those who wait for it are told, from memory or its row."""

    id: str
    workflow: str
    version: str
    definition: str
    life: Life
    outcome: bytes | None

    @classmethod
    def of(cls, row: RunRow) -> Ended:
        return cls(row.id, row.workflow, row.version, row.definition, row.life, row.outcome)


class LiveRun:
    """Shape: `seq`, `head` are those of the last fact folded, committed or not; `batch` is the batch that holds its
    newest facts, None when all are committed; `marked` are steps that were due when the owner before died (S15);
    `kept` is the hash of the definition that the store keeps for it, where it is a graph; `snapped` the fact of the
    snapshot that the store has (0: none), `snapshot_at` the one from which on the next is taken (0: never); from the
    fact `look_at` on its history is looked at for its length (0: that is not planned yet).
    """

    __slots__ = (
        "batch", "decider", "definition", "due", "generation", "head", "id", "input_hash", "kept", "life", "look_at",
        "marked", "outcome", "owner", "parent", "parent_key", "progress", "ref", "requests", "seq", "snapped",
        "snapshot_at", "spec", "variables", "wait",
    )  # fmt: skip

    def __init__(self, id: str, spec: WorkflowSpec, decider: Decider) -> None:
        self.id, self.spec, self.decider = id, spec, decider
        self.ref = Ref(id)
        self.seq = 0
        self.input_hash = b""
        self.head = CHAIN_START
        self.life = Life.LIVE
        self.generation = 1
        self.definition = spec.definition_hash
        self.parent = self.parent_key = ""
        self.wait: Wait = NO_WAIT
        self.due: int | None = None
        self.outcome: bytes | None = None
        self.variables = b"{}"
        self.requests: set[str] = set()
        self.progress: dict[str, bytes] = {}
        self.batch: object | None = None
        self.kept = ""
        self.snapped = self.snapshot_at = self.look_at = 0
        self.owner = 0
        self.marked: set[str] = set()

    @property
    def placed(self) -> bool:
        """Whether its row is in the store: until then its start may be refused, and all that was folded into it with it."""
        return self.ref.no > 0

    def ended(self) -> Ended:
        """What its waiters are told, once its end is durable."""
        spec = self.spec
        return Ended(self.id, spec.name, spec.version, self.definition, self.life, self.outcome)
