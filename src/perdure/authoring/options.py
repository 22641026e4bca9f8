"""The options of a single step, as data: what differs from its task's own, there and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from perdure.authoring.reference import reference_to
from perdure.authoring.task import Task, configured
from perdure.errors import DefinitionError, PerdureError
from perdure.model.duration import duration_us
from perdure.model.payload import canonical
from perdure.model.policy import Retry
from perdure.model.task import TaskSpec

_DURATIONS: Final = ("timeout", "deadline", "heartbeat")
_PLAIN: Final = ("pool", "at_most_once", "concurrency", "priority", "needs", "queue")
_CODE: Final = ("compensate", "probe")
NAMES: Final = frozenset({*_DURATIONS, *_PLAIN, *_CODE, "raises", "retry"})
_UNITS: Final = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
)
_RETRY: Final = Retry()
Resolve = Callable[[str, str], Any]


def options_of(spec: TaskSpec, base: TaskSpec) -> dict[str, msgspec.Raw]:
    """What the options of a step's task change of its base."""
    found: dict[str, Any] = {}
    for name in _DURATIONS:
        if getattr(spec, f"{name}_us") != getattr(base, f"{name}_us"):
            micros = getattr(spec, f"{name}_us")
            found[name] = None if micros is None else _duration_text(micros)
    for name in _PLAIN:
        if getattr(spec, name) != getattr(base, name):
            value = getattr(spec, name)
            found[name] = dict(value) if isinstance(value, Mapping) else value
    for name in _CODE:
        if getattr(spec, name) is not getattr(base, name):
            found[name] = _referred(getattr(spec, name))
    if spec.raises != base.raises:
        found["raises"] = [_referred(kind) for kind in spec.raises]
    if spec.retry != base.retry:
        found["retry"] = _retry_data(spec.retry)
    return {name: msgspec.Raw(canonical(msgspec.json.encode(value))) for name, value in sorted(found.items())}


def with_options(base: TaskSpec, options: Mapping[str, msgspec.Raw], resolve: Resolve, where: str) -> TaskSpec:
    """The base with a step's options.

    Shape: `resolve` finds code by its reference.
    Raises: `DefinitionError` for an unknown option or a bad value.
    """
    given: dict[str, Any] = {}
    for name, raw in options.items():
        value, place = msgspec.json.decode(raw), f"{where}, option {name}"
        if name not in NAMES:
            raise DefinitionError(f"{place}: there is no such option; there are {', '.join(sorted(NAMES))}")
        if name in _CODE and value is not None:
            value = resolve(_text(value, place), place)
        elif name == "raises":
            value = tuple(resolve(_text(one, place), place) for one in _list(value, place))
        elif name == "retry" and value is not None:
            value = _retry(value, resolve, place)
        given[name] = value
    task: Any = base if isinstance(base, Task) else Task(**{f: getattr(base, f) for f in TaskSpec.__struct_fields__})
    try:
        return configured(task, given)
    except PerdureError as error:
        raise DefinitionError(f"{where}: {error}") from None


def _retry_data(retry: Retry) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name in ("attempts", "factor", "jitter"):
        if getattr(retry, name) != getattr(_RETRY, name):
            data[name] = getattr(retry, name)
    for name in ("first", "max"):
        micros = duration_us(getattr(retry, name))
        if micros != duration_us(getattr(_RETRY, name)):
            data[name] = _duration_text(micros)
    for name in ("on", "never"):
        if getattr(retry, name) != getattr(_RETRY, name):
            data[name] = [_referred(kind) for kind in getattr(retry, name)]
    return data


def _retry(data: Any, resolve: Resolve, where: str) -> Retry:
    if not isinstance(data, dict):
        raise DefinitionError(f"{where}: {data!r} is no mapping such as {{attempts: 3, first: 1s}}")
    given = dict(data)
    for name in ("on", "never"):
        if name in given:
            given[name] = tuple(resolve(_text(one, where), where) for one in _list(given[name], where))
    unknown = given.keys() - set(Retry.__struct_fields__)
    if unknown:
        raise DefinitionError(f"{where}: retry has no {min(unknown)!r}; it has {', '.join(Retry.__struct_fields__)}")
    try:
        for name in ("first", "max"):
            if name in given:
                given[name] = timedelta(microseconds=duration_us(given[name], name))
        return Retry(**given)
    except (PerdureError, TypeError) as error:
        raise DefinitionError(f"{where}: {error}") from None


def _referred(thing: Any) -> str | None:
    """A reference, even where it leads nowhere outside this process: the definition says what differs."""
    if thing is None:
        return None
    if isinstance(thing, TaskSpec):
        return reference_to(thing) or thing.name
    return f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', repr(thing))}"


def _duration_text(micros: int) -> str:
    return next(f"{micros // size}{unit}" for unit, size in _UNITS if micros % size == 0)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DefinitionError(f"{where}: {value!r} is no text")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DefinitionError(f"{where}: {value!r} is no list")
    return value
