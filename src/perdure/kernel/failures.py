"""Failures and the exceptions they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TypeGuard, TypeVar

from perdure.errors import NotDurable, RunFailed, StepFailed
from perdure.kernel.futures import lacking
from perdure.model import fact as f
from perdure.model.failure import Failure
from perdure.model.payload import rebuild_exception
from perdure.model.task import TaskSpec

MESSAGE_MAX = 4_000
NAME_MAX = 200
PLACES_MAX = 8
MAIN = "__main__"
OURS = __file__.removesuffix("kernel/failures.py")
# Of the exceptions in a group, so many are told.
PARTS_MAX = 5
E = TypeVar("E", bound=BaseException)


def declared(spec: TaskSpec, failure: Failure) -> BaseException | None:
    """The declared exception that a failure stands for, rebuilt from data; None where it is not declared."""
    if failure.data == f.NULL:
        return None
    for kind in spec.raises:
        for one in _with_subclasses(kind):
            if _is_named(one, failure.type):
                return rebuild_exception(one, failure.data)
    return None


def _is_named(kind: type[BaseException], name: str) -> bool:
    """Whether a failure's type is this class, which is in another module when a program is imported (S23)."""
    known = type_name(kind)
    if known == name or MAIN not in {kind.__module__, name.partition(".")[0]}:
        return known == name
    return name.removeprefix(f"{MAIN}.") == kind.__qualname__ or name.endswith(f".{kind.__qualname__}")


def _with_subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """The class and all classes below it: `except` takes those too."""
    yield kind
    for below in kind.__subclasses__():
        yield from _with_subclasses(below)


def is_a(error: BaseException, kind: type[E]) -> TypeGuard[E]:
    """Whether it is one, by its type, as `except` looks: an exception may lie about its class, or raise when asked."""
    return issubclass(type(error), kind)


def type_name(kind: type[BaseException]) -> str:
    """An exception's qualified name as failures hold it."""
    try:
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:  # noqa: BLE001 - its own class may raise anything when it is asked
        name = type.__repr__(kind)
    return clipped(name, NAME_MAX)


def text_of(error: BaseException) -> str:
    """An exception's own words, cut to a length; what its code raises while it is asked is of no account."""
    try:
        return clipped(str(error), MESSAGE_MAX)
    except BaseException as trouble:  # noqa: BLE001 - an exception whose text fails is still a failure to record
        return f"(its message could not be read: {type_name(type(trouble))})"


def clipped(text: str, limit: int) -> str:
    """Text that can be kept: whole characters only, and not too many of them."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"{text[: limit - 30]} … ({len(text):,} characters)"


def failure_of(error: BaseException | None) -> Failure:
    """What made a flow fail, as data: a step's own failure, or the exception that left its code."""
    assert error is not None
    if (is_a(error, StepFailed) or is_a(error, RunFailed)) and isinstance(error.failure, Failure):
        return error.failure
    said = (lacking(error) if type(error) is AttributeError else "") or text_of(error)
    return Failure(type_name(type(error)), said, where=_where(error), cause=_parts(error))


def _parts(error: BaseException) -> str:
    """What the exceptions of a group say, one a line; of another exception nothing."""
    if not is_a(error, BaseExceptionGroup):
        return ""
    leaves = list(_leaves(error))
    said = [f"{type_name(type(one))}: {text_of(one)}" for one in leaves[:PARTS_MAX]]
    if len(leaves) > PARTS_MAX:
        said.append(f"and {len(leaves) - PARTS_MAX} more")
    return clipped("\n".join(said), MESSAGE_MAX)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if is_a(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def refusal_in(error: BaseException) -> NotDurable | None:
    """The refusal that made a flow fail, alone or in a group."""
    return next((one for one in _leaves(error) if is_a(one, NotDurable)), None)


def _where(error: BaseException) -> str:
    """The last lines of the traceback, as `file:line in function`, up to the last that is not of perdure itself."""
    places, last = list[str](), 0
    trace: TracebackType | None = BaseException.__getattribute__(error, "__traceback__")
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        if not code.co_filename.startswith(OURS):
            last = len(places)
        trace = trace.tb_next
    return "\n".join(places[: last or None][-PLACES_MAX:])
