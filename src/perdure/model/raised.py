"""Declared exceptions as data: written from their constructor's arguments, rebuilt and never unpickled (S8)."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

import msgspec

from perdure.errors import PerdureError
from perdure.model.shape import Shape
from perdure.model.signature import Signature
from perdure.model.values import encode

_BY_KEYWORD = frozenset({inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY})
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ARGS = Shape(list[Any], "arguments of an exception")


def exception_data(error: BaseException, limit: int) -> msgspec.Raw | None:
    """A declared exception as `{"name": value}` by its constructor's parameters, or as `{"args": [...]}`.

    Shape: None when it cannot be written within `limit` bytes, or cannot be rebuilt to the same.
    """
    try:
        for data in _ways(error):
            raw = encode(data)
            if len(raw) <= limit and _is_same(error, rebuild_exception(type(error), msgspec.Raw(raw))):
                return msgspec.Raw(raw)
    except Exception:  # noqa: BLE001 - an exception's own code may raise anything
        return None
    return None


def rebuild_exception(cls: type[BaseException], raw: bytes | msgspec.Raw) -> BaseException | None:
    """The exception that `exception_data` wrote; None when it cannot be rebuilt."""
    try:
        data = _members(raw)
        shapes = _parameters(cast("type[Any]", cls))
        if data.keys() == {"args"} and "args" not in shapes:
            made = cls(*_ARGS.decode(data["args"]))
        else:
            made = cls(**{name: shapes[name].decode(value) for name, value in data.items()})
    except Exception:  # noqa: BLE001 - an exception's own code may raise anything
        return None
    return made if type(made) is cls else None


def _ways(error: BaseException) -> list[dict[str, Any]]:
    """What the exception may be rebuilt from, the better way first."""
    ways: list[dict[str, Any]] = []
    shapes = _parameters(cast("type[Any]", type(error)))
    if shapes:
        present = {name: getattr(error, name) for name in shapes if hasattr(error, name)}
        ways.append(present)
    if "args" not in shapes:
        reduced = error.__reduce__() if not shapes else None
        args = reduced[1] if isinstance(reduced, tuple) and isinstance(reduced[1], tuple) else error.args
        ways.append({"args": list(args)})
    return ways


def _is_same(error: BaseException, made: BaseException | None) -> bool:
    """Whether the rebuilt exception tells the same: its text, and what its constructor was given."""
    if made is None or str(made) != str(error):
        return False
    names = _parameters(cast("type[Any]", type(error)))
    return all(encode(getattr(made, n, None)) == encode(getattr(error, n, None)) for n in names)


@functools.lru_cache(maxsize=256)
def _parameters(cls: type[Any]) -> dict[str, Shape]:
    """The parameters of the class's own constructor; empty where it has none."""
    init: Any = cls.__init__
    if not inspect.isfunction(init):
        return {}
    try:
        signature = Signature.of(init, f"exception {cls.__name__}")
        known = {p.name: shape for p, shape in zip(signature.parameters, signature.shapes, strict=True)}
    except PerdureError:
        known = {}
    own = list(inspect.signature(init).parameters.values())[1:]
    return {p.name: known.get(p.name) or Shape(Any, p.name) for p in own if p.kind in _BY_KEYWORD}
