"""One attempt of a step, from its begin to its outcome; and what its code may ask about it."""

from __future__ import annotations

import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.authoring.ambient import current as flow_current
from perdure.errors import NotInWorkflow, PerdureError
from perdure.kernel.failures import clipped, text_of, type_name
from perdure.model.duration import duration_us
from perdure.model.failure import Failure
from perdure.model.ids import idempotency_key as derived_key
from perdure.model.payload import Shape, exception_data

if TYPE_CHECKING:
    from asyncio import Task

    from perdure.model.command import Activity
    from perdure.model.task import TaskSpec
    from perdure.runtime.pools import Pools

DATA_MAX = 64_000
WHERE_MAX = 8_000
_PROGRESS = Shape(Any, "progress")


class Attempt:
    """Shape: exactly one of `result` (encoded) and `failure` is set when it is `done`; `error` is the live exception.

    Units: `started`, `deadline_at` microseconds of the engine's clock; `beat_at` seconds of the monotonic clock.
    """

    __slots__ = (
        "after", "beat_at", "deadline_at", "done", "epoch", "error", "failure", "generation", "key", "left", "number", "pools",
        "probing", "progress", "progress_new", "result", "run_id", "spec", "started", "step", "task", "worker",
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
        self.error: BaseException | None = None
        self.done = False
        self.left = False
        self.probing = False
        self.after: Attempt | None = None
        self.started = 0
        self.beat_at = 0.0
        self.worker = ""
        self.task: Task[None] | None = None

    def succeed(self, value: Any, limit: int) -> None:
        """Encode the result; one that cannot be kept fails the attempt."""
        try:
            self.result = self.spec.result.round(value, limit)[0]
        except PerdureError as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.failure = failure_from(error, self.spec)


def failure_from(error: BaseException, spec: TaskSpec) -> Failure:
    """An exception as data: its type, message, place, and the constructor's arguments where it is declared."""
    try:
        where = "".join(traceback.format_tb(error.__traceback__)[-12:])
    except Exception:  # noqa: BLE001 - as above
        where = ""
    data = exception_data(error, DATA_MAX) if isinstance(error, spec.raises) else None
    return Failure(
        type_name(type(error)),
        text_of(error),
        "refused" if isinstance(error, PerdureError) and not isinstance(error, spec.raises) else "error",
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
    except Exception:  # noqa: BLE001 - a service may answer anything, and an exception's own code may raise anything
        return None


def _cause(error: BaseException) -> str:
    """What the exception was raised from, in one line."""
    cause = error.__cause__
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
