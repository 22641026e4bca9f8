"""Commands: what a decider wants done. They follow from the facts and are never stored."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from perdure.model.task import TaskSpec
    from perdure.model.workflow import WorkflowSpec


class Unknown(enum.Enum):
    """What a compensation is given as a result when nobody knows whether the step took place."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "perdure.UNKNOWN"


UNKNOWN = Unknown.UNKNOWN


class Activity(Protocol):
    """A step that is open: what the shell needs to make its attempts.

    Shape: `attempt` is the number of the next or current attempt (recorded failures + 1); `forgiven` failures do
           not count for its retry policy any more; `ask` is the digest of what was asked, `asked_seq` the fact
           whose turn asked; `generation` the one that first asked for it to be made; `intent` the epoch in which the
           intent of this attempt was recorded (0: it was not).
    Units: `asked_at`, `due` microseconds since 1970 UTC; `due` is when a retry may begin, None when it is not waiting.
    """

    key: str
    spec: TaskSpec
    args: bytes
    values: tuple[Any, ...] | None
    ask: int
    asked_seq: int
    asked_at: int
    attempt: int
    forgiven: int
    generation: int
    due: int | None
    intent: int
    given_up: bool

    def inputs(self) -> tuple[Any, ...]:
        """The decoded arguments, fresh for each attempt."""


class Command(msgspec.Struct):
    """What is wanted beside attempts."""


class Abandon(Command):
    """Nobody wants this step's attempt any more."""

    key: str


class StartChild(Command):
    key: str
    child: str
    workflow: WorkflowSpec
    input: bytes
    detached: bool = False


class CancelChild(Command):
    child: str
    reason: str


class SendSignal(Command):
    """Shape: `ordinal` makes the message's request id, derived so that asking twice is asking once."""

    run: str
    name: str
    value: bytes
    ordinal: str
