"""One attempt of a step, from its begin to its outcome; and what its code may ask about it."""

from __future__ import annotations

import inspect
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.authoring.ambient import current as flow_current
from perdure.errors import BadCall, NotInWorkflow, PerdureError
from perdure.kernel.failures import clipped, text_of, type_name
from perdure.model.duration import duration_us
from perdure.model.failure import Failure
from perdure.model.ids import idempotency_key as derived_key
from perdure.model.payload import Shape, exception_data
from perdure.model.task import Pool, TaskSpec

if TYPE_CHECKING:
    from asyncio import Task

    from perdure.model.command import Activity
    from perdure.runtime.hold import Hold
    from perdure.runtime.pools import Pools

DATA_MAX = 64_000
WHERE_MAX = 8_000
_PROGRESS = Shape(Any, "progress")


class Attempt:
    """Shape: exactly one of `result` (encoded) and `failure` is set when it is `done`; `allowed` when
           its failure is one to retry, `declared` when the task declares it. `left`: nobody wants its outcome any more.
           `late`: its code gave one after that, or after it was done (it had timed out). `hold`: what may still commit
           of one that has a transaction.

    Units: `started`, `deadline_at` microseconds of the engine's clock; `beat_at` seconds of the monotonic clock.
    """

    __slots__ = (
        "after", "allowed", "beat_at", "deadline_at", "declared", "done", "epoch", "failure", "generation", "hold", "key", "late",
        "left", "number", "pools", "probing", "progress", "progress_new", "result", "run_id", "spec", "started", "step", "task", "worker",
    )  # fmt: skip

    def __init__(self, run_id: str, step: Activity, epoch: int, progress: bytes | None, pools: Pools) -> None:
        spec = step.spec
        self.run_id, self.step, self.spec, self.epoch, self.pools = run_id, step, spec, epoch, pools
        self.key, self.number, self.generation = step.key, step.attempt, step.generation
        self.deadline_at = None if spec.deadline_us is None else step.asked_at + spec.deadline_us
        self.progress = progress
        self.progress_new: bytes | None = None
        self.result: bytes | None = None
        self.failure: Failure | None = None
        self.allowed = True
        self.declared = False
        self.done = self.left = self.late = False
        self.probing = False
        self.after: Attempt | None = None
        self.started = 0
        self.beat_at = 0.0
        self.worker = ""
        self.task: Task[None] | None = None
        self.hold: Hold | None = None

    def succeed(self, value: Any, limit: int) -> None:
        """Encode the result; one that cannot be kept fails the attempt, one that comes late is of no account."""
        if self.done or self.left:
            self.late = True
            return
        try:
            self.result = self.spec.result.round(value, limit)[0]
        except PerdureError as error:
            self.fail(error, refused=True)

    def fail(self, error: BaseException, *, refused: bool = False) -> None:
        """Note how it failed. Shape: `refused` where the value it gave is at fault: another attempt gives the same."""
        if self.done or self.left:
            self.late = True
            return
        spec = self.spec
        try:
            self.failure = failure_from(error, spec.raises, refused=refused)
            self.allowed, self.declared = spec.retry.allows(error), issubclass(type(error), spec.raises)
        except BaseException as trouble:  # noqa: BLE001 - an attempt ends, whatever the exception's own code does
            said = f"it could not be looked at: {type_name(type(trouble))}: {text_of(trouble)}"
            self.failure = Failure(type_name(type(error)), said, "refused" if refused else "error")
            self.allowed, self.declared = True, False

    def call(self) -> Any:
        """Call the task's function with its arguments, or the probe of one that is in doubt."""
        spec, values = self.spec, self.step.inputs()
        if not self.probing:
            return spec.signature.call(spec.fn, values)
        probe: Any = spec.probe
        return probe.signature.call(probe.fn, values) if isinstance(probe, TaskSpec) else probe(*values)

    @property
    def pool(self) -> Pool:
        """Where it is made: a probe runs on the loop when it is async, else in a thread, whatever its task is."""
        if not self.probing:
            return self.spec.pool
        return "async" if inspect.iscoroutinefunction(getattr(self.spec.probe, "fn", self.spec.probe)) else "thread"


def failure_from(error: BaseException, raises: tuple[type[BaseException], ...], *, refused: bool = False) -> Failure:
    """An exception as data: its type, message, place, and the constructor's arguments where it is declared."""
    try:
        where = "".join(traceback.format_tb(error.__traceback__)[-12:])
    except BaseException:  # noqa: BLE001 - a frame may name a file whose loader raises anything
        where = ""
    data = exception_data(error, DATA_MAX) if issubclass(type(error), raises) else None
    return Failure(
        type_name(type(error)),
        text_of(error),
        "refused" if refused else "error",
        where=clipped(where, WHERE_MAX),
        data=msgspec.Raw(b"null") if data is None else data,
        retry_after_us=_retry_after_us(error),
        cause=_cause(error),
    )


def _retry_after_us(error: BaseException) -> int | None:
    """How long the exception itself asks to wait. Units: microseconds."""
    try:
        asked = getattr(error, "retry_after", None)
        return None if asked is None else duration_us(asked, "retry_after")
    except BaseException:  # noqa: BLE001 - a service may answer anything, and an exception's own code may raise anything
        return None


def _cause(error: BaseException) -> str:
    """What the exception was raised from, in one line."""
    try:
        cause = error.__cause__
    except BaseException:  # noqa: BLE001 - as above
        return ""
    return "" if cause is None else f"{type_name(type(cause))}: {text_of(cause)}"


# --- what a task's code may ask -------------------------------------------------------------------

current: ContextVar[Attempt | None] = ContextVar("perdure_attempt", default=None)


def _attempt(name: str) -> Attempt:
    found = current.get()
    if found is None:
        raise NotInWorkflow(name, f"{name} works inside a task that a workflow runs")
    return found


def heartbeat(progress: Any = None) -> None:
    """Say that this attempt is alive, and how far it is; `progress` is given to the next attempt."""
    attempt = _attempt("heartbeat")
    attempt.pools.beat(attempt, None if progress is None else _PROGRESS.encode(progress, 1 << 20))


def progress() -> Any:
    """The last progress that the attempt before this one told; None where there is none."""
    raw = _attempt("progress").progress
    return None if raw is None else _PROGRESS.decode(raw)


def transaction() -> Any:
    """The connection of this attempt's transaction: apsw's for SQLite, asyncpg's for PostgreSQL.

    Raises: `BadCall` in a task without `transaction=`.
    """
    hold = getattr(_attempt("transaction"), "hold", None)
    if hold is None or hold.connection is None:
        raise BadCall('transaction() works in a task with @task(transaction="sqlite:///FILE.db" or "postgresql://…")')
    return hold.connection


def attempt() -> int:
    """The number of this attempt, counted from 1."""
    return _attempt("attempt").number


def idempotency_key() -> str:
    """The same for every attempt of this step; give it to services that honour one."""
    found = _attempt("idempotency_key")
    return derived_key(found.run_id, found.generation, found.key)


def run_id() -> str:
    """The id of the run that this flow or task belongs to."""
    scope = flow_current.get()
    if scope is not None and hasattr(scope, "run_id"):
        return str(scope.run_id)
    return _attempt("run_id").run_id
