"""A run as others see it: its status, its wait, its row, its state."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from perdure.model.failure import Failure

Status = Literal["queued", "running", "waiting", "completed", "failed", "cancelled", "attention"]
STATUSES: tuple[Status, ...] = ("queued", "running", "waiting", "completed", "failed", "cancelled", "attention")
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Life(enum.StrEnum):
    """Where a run stands in the table of moves; *running* and *waiting* are read from a live run's wait (S13)."""

    QUEUED = "queued"
    LIVE = "live"
    ATTENTION = "attention"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in _ENDED


_ENDED = frozenset({Life.COMPLETED, Life.FAILED, Life.CANCELLED})


class Wait(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What a run waits for, derived at each commit (S9).

    Units: `due` microseconds since 1970 UTC of the next timer or retry; None: no timer.
    Shape: `open` counts steps that are due or in an attempt; `retrying` those that wait for their next attempt.
    """

    due: int | None = None
    signals: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    open: int = 0
    retrying: int = 0
    settling: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing that can happen would wake the run, but a cancel."""
        return self.due is None and not (self.open or self.retrying or self.signals or self.children or self.settling)


NO_WAIT = Wait()


class RunRow(msgspec.Struct, kw_only=True):
    """One run as the store lists it. Derived from its history but for id, tags and what the start said.

    Units: `*_at` microseconds since 1970 UTC.
    Shape: `no` is the store's own number; `head` is the last fact's chain hash; `asked_n`/`asked_h` the digest after
           the last turn.
    """

    id: str
    no: int
    workflow: str
    version: str
    definition: str
    input_hash: bytes
    life: Life
    seq: int
    head: bytes
    asked_n: int
    asked_h: int
    generation: int
    epoch: int
    wait: Wait
    variables: bytes
    tags: dict[str, str]
    outcome: bytes | None
    parent: str
    parent_key: str
    source: str
    created_at: int
    updated_at: int
    ended_at: int | None

    @property
    def status(self) -> Status:
        if self.life is not Life.LIVE:
            return self.life.value  # type: ignore[return-value]
        wait = self.wait
        return "running" if wait.open or wait.settling else "waiting"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run ended, or why it needs attention. Shape: one of the fields is set."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None
    reason: str | None = None
    cause: str | None = None
    step: str | None = None


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One fact for a reader: `kind` as the fact's tag, `detail` its fields by name."""

    seq: int
    at: datetime
    kind: str
    detail: dict[str, Any]


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a run beside its variables and history."""

    id: str
    workflow: str
    version: str
    status: Status
    generation: int
    tags: dict[str, str]
    parent: str
    wait: Wait
    created: datetime
    ended: datetime | None
    failure: Failure | None = None
    reason: str | None = None
    progress: dict[str, Any] = {}


class WorkflowState(msgspec.Struct, frozen=True, kw_only=True):
    """`WorkflowState = (V variables, H history, M metadata, T timestamp)`."""

    variables: dict[str, Any]
    history: tuple[HistoryEntry, ...]
    metadata: Metadata
    timestamp: datetime

    @property
    def status(self) -> Status:
        return self.metadata.status


def when(micros: int) -> datetime:
    """The aware UTC instant of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


def micros(instant: datetime) -> int:
    """Microseconds since 1970 of an aware instant."""
    return (instant - EPOCH) // timedelta(microseconds=1)
