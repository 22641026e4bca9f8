"""Declared exceptions as data: written from their constructor's arguments, rebuilt and never unpickled (S8)."""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple

import msgspec

from perdure.errors import PerdureError
from perdure.model.shape import Shape
from perdure.model.signature import Signature
from perdure.model.values import encode

_MANY = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ARGS = Shape(list[Any], "arguments of an exception")


def exception_data(error: BaseException, limit: int) -> msgspec.Raw | None:
    """A declared exception as `{"name": value}` by its constructor's parameters, or as `{"args": [...]}`.

    Shape: None when it cannot be written within `limit` bytes, or cannot be rebuilt to the same.
    """
    try:
        ways = _ways(error)
    except BaseException:  # noqa: BLE001 - an exception's own code may raise anything
        return None
    for data, whole in ways:
        try:
            raw = encode(data)
            if len(raw) <= limit and _is_same(error, rebuild_exception(type(error), raw), whole):
                return msgspec.Raw(raw)
        except BaseException:  # noqa: BLE001, S112 - as above; the next way may do
            continue
    return None


def rebuild_exception(cls: type[BaseException], raw: bytes | msgspec.Raw) -> BaseException | None:
    """The exception that `exception_data` wrote; None when it cannot be rebuilt."""
    try:
        data = _members(raw)
        parameters = _parameters(cls)
        if data.keys() == {"args"} and "args" not in parameters:
            made = cls(*_ARGS.decode(data["args"]))
        else:
            made = _called(cls, {name: parameters[name].shape.decode(value) for name, value in data.items()})
    except BaseException:  # noqa: BLE001 - an exception's own code may raise anything
        return None
    return made if type(made) is cls else None


def _called(cls: type[BaseException], given: dict[str, Any]) -> BaseException:
    """By place as far as that goes, since Python keeps what was given so as the exception's `args`."""
    args = []
    for name, parameter in _parameters(cls).items():
        if parameter.by_name or name not in given:
            break
        args.append(given.pop(name))
    return cls(*args, **given)


def _ways(error: BaseException) -> list[tuple[dict[str, Any], bool]]:
    """What the exception may be rebuilt from, the better way first, and whether all parameters were attributes."""
    parameters = _parameters(type(error))
    present = {name: getattr(error, name) for name in parameters if hasattr(error, name)}
    missing = [name for name in parameters if name not in present]
    ways = []
    if parameters:
        ways.append(({**present, **dict(zip(missing, error.args, strict=False))}, not missing))
        ways.append((present, not missing))
    if "args" not in parameters:
        reduced = None if parameters else error.__reduce__()  # an OSError keeps its file name there alone
        args = reduced[1] if isinstance(reduced, tuple) and isinstance(reduced[1], tuple) else error.args
        ways.append(({"args": list(args)}, False))
    return ways


def _is_same(error: BaseException, made: BaseException | None, whole: bool) -> bool:
    """Whether the rebuilt exception tells the same: what its constructor was given, else also its text."""
    if made is None or not (whole or str(made) == str(error)):
        return False
    return all(encode(getattr(made, n, None)) == encode(getattr(error, n, None)) for n in _parameters(type(error)))


class _Parameter(NamedTuple):
    shape: Shape
    by_name: bool


def _parameters(cls: Any) -> dict[str, _Parameter]:
    """The parameters of the class's own constructor; empty where it has none."""
    return _constructor(getattr(cls, "__init__"))  # noqa: B009 - to mypy an attribute of a class is unsound


@functools.lru_cache(maxsize=256)
def _constructor(init: Any) -> dict[str, _Parameter]:
    if not inspect.isfunction(init):
        return {}
    own = [p for p in list(inspect.signature(init).parameters.values())[1:] if p.kind not in _MANY]
    try:
        signature = Signature.of(init, f"exception {init.__qualname__}")
        known = dict(zip(signature.names, signature.shapes, strict=True))
    except PerdureError:  # without types then
        known = {}
    return {p.name: _Parameter(known.get(p.name) or Shape(Any, p.name), p.kind is p.KEYWORD_ONLY) for p in own}
