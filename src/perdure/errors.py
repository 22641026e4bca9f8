"""Every error perdure raises, in one tree, grouped by what the caller can do about it.

A task that fails is data (`perdure.model.failure.Failure`) and becomes an exception only where
somebody awaits it. Signals that user code must not catch derive from `BaseException`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from perdure.model.failure import Failure


class Remedy(enum.Enum):
    """What a caller can do about an error; the command line's exit code follows from it."""

    FIX_CALL = "fix the call"
    FIX_CODE = "fix the workflow's code"
    LOOK = "look at the run"
    DECIDE = "decide what becomes of the run"
    FIX_STORE = "fix the store or its surroundings"
    ASK_LATER = "try again later"

    @property
    def exit_code(self) -> int:
        return _EXIT[self]


_EXIT = {
    Remedy.FIX_CALL: 2,
    Remedy.FIX_CODE: 2,
    Remedy.LOOK: 1,
    Remedy.DECIDE: 4,
    Remedy.FIX_STORE: 3,
    Remedy.ASK_LATER: 3,
}


class PerdureError(Exception):
    """The root of all errors that perdure raises on purpose."""

    remedy: ClassVar[Remedy] = Remedy.FIX_CALL


# --- the call was wrong: nothing was written ---------------------------------------------------


class BadCall(PerdureError):
    """An argument of a call is wrong; the message names it and what is expected."""


class BadArgument(BadCall):
    """A value does not fit the annotation of the task or workflow that it is given to."""


class NotEncodable(BadCall):
    """A value cannot be kept as JSON, or could not be read back as it was."""


class TooLarge(BadCall):
    """A value is over its limit; nothing was written."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} takes {size:,} bytes, more than the limit of {limit:,}: keep it elsewhere and pass a reference"
        )
        self.what, self.size, self.limit = what, size, limit


class BadDuration(BadCall):
    """A duration is not a timedelta nor text such as "30s", "1h30m" or "PT5M"."""


class BadId(BadCall):
    """An id is not made of 1 to 128 letters, digits, '_' and '-'."""


class DefinitionError(BadCall):
    """A workflow, task or graph is not well formed; the message names the path."""


class UnknownRun(BadCall):
    """There is no run with this id in the store."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id!r} in this store: `perdure ps` lists the runs")
        self.run_id = run_id


class UnknownWorkflow(BadCall):
    """No workflow of this name (and version) is served here."""

    def __init__(self, name: str, version: str | None = None) -> None:
        which = name if version is None else f"{name} (version {version})"
        super().__init__(f"workflow {which} is not served here: name it in open(..., workflows=[...])")
        self.name, self.version = name, version


class IdInUse(BadCall):
    """A run with this id exists and was started with other input."""

    def __init__(self, run_id: str, workflow: str) -> None:
        super().__init__(f"run {run_id!r} of {workflow} exists with other input: use another id, or fork it")
        self.run_id, self.workflow = run_id, workflow


class WrongState(BadCall):
    """The run is in a state in which this cannot be asked of it (retry of a live run, a signal to an ended one)."""


class NotInWorkflow(BadCall):
    """A task or a flow function was called where no workflow runs."""

    def __init__(self, name: str, instead: str) -> None:
        super().__init__(f"{name}() was called outside a workflow: {instead}")
        self.name = name


class LoopRunning(BadCall):
    """The blocking face was called where an event loop already runs."""


# --- the workflow's code was wrong -------------------------------------------------------------


class NotDurable(PerdureError):
    """Flow code asked for something that a replay could not repeat; the message names the durable twin."""

    remedy = Remedy.FIX_CODE

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} inside a flow would differ on replay: use {instead}")
        self.what, self.instead = what, instead


class NonDeterminism(PerdureError):
    """A replay asked for something else than what was recorded."""

    remedy = Remedy.FIX_CODE

    def __init__(self, step: str, recorded: str, asked: str, seq: int) -> None:
        super().__init__(f"at fact {seq}, step {step}: recorded was {recorded}, but the code now asks for {asked}")
        self.step, self.recorded, self.asked, self.seq = step, recorded, asked, seq


# --- what became of a step or a run ------------------------------------------------------------


class StepFailed(PerdureError):
    """A step failed for good; `.failure` says how."""

    remedy = Remedy.LOOK

    def __init__(self, key: str, failure: Failure) -> None:
        super().__init__(f"step {key} failed: {failure.summary()}")
        self.key, self.failure = key, failure


class RunFailed(PerdureError):
    """A run failed; `.failure` says how. `retry` makes its next generation."""

    remedy = Remedy.LOOK

    def __init__(self, run_id: str, failure: Failure) -> None:
        super().__init__(f"run {run_id} failed: {failure.summary()}")
        self.run_id, self.failure = run_id, failure


class RunCancelled(PerdureError):
    """A run was cancelled; `.reason` says why."""

    remedy = Remedy.LOOK

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id} was cancelled" + (f": {reason}" if reason else ""))
        self.run_id, self.reason = run_id, reason


class NeedsAttention(PerdureError):
    """A run cannot go on by itself; the message gives the reason and the ways out."""

    remedy = Remedy.DECIDE

    def __init__(self, run_id: str, reason: str, ways: str) -> None:
        super().__init__(f"run {run_id} needs attention: {reason}\n{ways}")
        self.run_id, self.reason, self.ways = run_id, reason, ways


class ResultTimeout(PerdureError, TimeoutError):
    """The run had not ended when the time given to `result` was over; it goes on."""

    remedy = Remedy.ASK_LATER


# --- the store or its surroundings -------------------------------------------------------------


class StoreError(PerdureError):
    """The store refused or failed; what was acknowledged before is kept."""

    remedy = Remedy.FIX_STORE


class NotAStore(StoreError):
    """The address or the file is not a perdure store."""


class StoreNewer(StoreError):
    """The store was written by a newer perdure."""


class StoreLocked(StoreError):
    """Another engine holds the store."""


class StoreUnavailable(StoreError):
    """The store cannot take writes now (disk full, read-only, busy); nothing of this call was kept."""

    remedy = Remedy.ASK_LATER


class OutcomeUnknown(StoreUnavailable):
    """Whether a commit took place is unknown; reload by request id to learn it."""


class StoreLost(StoreError):
    """The store can no longer be trusted to keep what it acknowledges (a failed fsync): the engine stopped."""


class StoreBehind(StoreError):
    """The file holds less than was acknowledged (a lost WAL, an old backup)."""


class StoreDamaged(StoreError):
    """A page or a fact does not verify."""


class ForkedProcess(StoreError):
    """A store opened before fork() was used after it."""


class EngineStopped(StoreError):
    """The engine is stopping; the run goes on at the next start."""

    remedy = Remedy.ASK_LATER


# --- outcomes that a probe or an operator may state --------------------------------------------


class NotDone(PerdureError):
    """Raised by a probe: the earlier attempt had no effect and can have none any more."""


# --- signals that user code must not catch -----------------------------------------------------


class Dropped(BaseException):
    """This flow has left memory; its coroutine is being closed and must do nothing any more."""


class Blocked(BaseException):
    """A flow or task blocked the event loop too long and was interrupted."""
