"""Failures and the exceptions they stand for."""

from __future__ import annotations

from perdure.errors import RunFailed, StepFailed
from perdure.model import fact as f
from perdure.model.failure import Failure
from perdure.model.payload import rebuild_exception
from perdure.model.task import TaskSpec

MESSAGE_MAX = 4_000
PLACES_MAX = 8


def declared(spec: TaskSpec, failure: Failure) -> BaseException | None:
    """The declared exception that a failure stands for, rebuilt from data; None where it is not declared."""
    if failure.data == f.NULL:
        return None
    for kind in spec.raises:
        if type_name(kind) == failure.type:
            return rebuild_exception(kind, failure.data)
    return None


def type_name(kind: type[BaseException]) -> str:
    """An exception's qualified name as failures hold it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def failure_of(error: BaseException | None) -> Failure:
    """What made a flow fail, as data: a step's own failure, or the exception that left its code."""
    if isinstance(error, StepFailed | RunFailed):
        return error.failure
    assert error is not None
    return Failure(type_name(type(error)), str(error)[:MESSAGE_MAX], where=_where(error))


def _where(error: BaseException) -> str:
    """The last lines of the traceback, as `file:line in function`."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return "\n".join(places[-PLACES_MAX:])
