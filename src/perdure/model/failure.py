"""How an attempt, a step or a run failed, as data."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["error", "timeout", "heartbeat", "deadline", "lost", "cancelled", "unknown", "refused"]


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What went wrong, told without the exception object.

    Shape: `type` is the exception's qualified name; `data` holds a declared exception's constructor
           arguments by name (null: none); `where` is the end of the traceback, outermost frame first; `attempts`
           counts the attempts made, `step` names the step where one is to blame.
    Units: `retry_after_us` microseconds asked for by the exception itself.
    """

    type: str
    message: str
    kind: Kind = "error"
    attempts: int = 1
    where: str = ""
    step: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    retry_after_us: int | None = None
    cause: str = ""

    def summary(self) -> str:
        """One line for people."""
        name = self.type.rpartition(".")[2]
        tries = f" (after {self.attempts} attempts)" if self.attempts > 1 else ""
        place = f" in step {self.step}" if self.step else ""
        return f"{name}: {self.message}{place}{tries}" if self.message else f"{name}{place}{tries}"
