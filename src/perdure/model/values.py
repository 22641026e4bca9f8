"""Values as JSON: what is refused, in which order sets are written, and how deep a value may go."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
import re
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import PurePath
from typing import Any, Final, cast

import msgspec

from perdure.errors import NotEncodable

Raw = msgspec.Raw
# A value that nests deeper could be written where the stack is shallow and not be read where it is deep.
DEPTH_MAX: Final = 200
LONG: Final = 2 * DEPTH_MAX  # bytes; nothing shorter can nest deeper than DEPTH_MAX
_TOO_DEEP: Final = f"the value holds itself, or nests deeper than {DEPTH_MAX} levels"
_ATOMS: Final = frozenset({str, int, bool, float, type(None), bytes, Raw})
_ROWS: Final = frozenset({list, tuple})
_SETS: Final = (set, frozenset)
_ARRAYS: Final = (list, tuple, set, frozenset, deque)
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


# --- the two hooks of msgspec ---------------------------------------------------------------------


def is_pydantic(cls: object) -> bool:
    """Whether this is a pydantic model class; pydantic itself is not imported."""
    return isinstance(cls, type) and hasattr(cls, "model_validate_json") and hasattr(cls, "__pydantic_validator__")


def readable(cls: object) -> bool:
    """Whether a class that msgspec does not know can be read back by `from_plain`."""
    return cls is object or is_pydantic(cls) or (isinstance(cls, type) and issubclass(cls, PurePath))


def to_plain(value: Any) -> Any:
    """What msgspec cannot encode by itself. Raises: `NotEncodable` for a type that is unknown here too."""
    cls = type(value)
    if is_pydantic(cls):
        return _dumped(value)
    for kind, plain in _PLAIN:
        if isinstance(value, kind):
            return plain(value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if isinstance(value, Awaitable):
        raise NotEncodable(f"a {name} that was not awaited cannot be kept as JSON: write `await` before it")
    raise NotEncodable(f"a {name} cannot be kept as JSON: pass its data instead")


_PLAIN: Final[tuple[tuple[type, Any], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (PurePath, str),
    (deque, list),
    (Mapping, dict),
)


def from_plain(cls: Any, plain: Any) -> Any:
    """An instance of a class that msgspec does not know. Raises: ValueError or TypeError when it does not fit."""
    if cls is object:
        return plain
    if is_pydantic(cls):
        return cls.model_validate_json(ENCODE(plain), **_by_name(cls)[1])
    if not isinstance(plain, str):
        raise TypeError(f"Expected `str`, got `{type(plain).__name__}`")
    return cls(plain)


@functools.lru_cache(maxsize=1024)
def _by_name(cls: Any) -> tuple[dict[str, bool], dict[str, bool]]:
    """How a pydantic model is dumped and validated: by the names of its fields where that version can."""
    if "by_name" in inspect.signature(cls.model_validate_json).parameters:
        return {"by_alias": False, "round_trip": True}, {"by_alias": True, "by_name": True}
    return {"by_alias": True, "round_trip": True}, {}


def _dumped(model: Any) -> Raw:
    """A pydantic model by its own dump; a set in it is put in order."""
    how = _by_name(type(model))[0]  # type: ignore[arg-type]  # a class is hashable
    python = model.model_dump(**how)
    refuse_non_finite(python)
    if any(hasattr(kind, "get_secret_value") for kinds, _ in _levels(python) for kind in kinds):
        raise NotEncodable(f"{type(model).__name__} holds a secret, which would be lost: pass a reference to it")
    text = model.model_dump_json(**how).encode()
    if holds_set(python):
        text = ENCODE(_sorted_alike(python, msgspec.json.decode(text)))
    return Raw(text)


def _sorted_alike(python: Any, plain: Any) -> Any:
    if isinstance(python, set | frozenset) and isinstance(plain, list):
        return sorted(plain, key=ENCODE)
    if isinstance(python, dict) and isinstance(plain, dict) and len(python) == len(plain):
        return {k: _sorted_alike(p, v) for p, (k, v) in zip(python.values(), plain.items(), strict=True)}
    if isinstance(python, list | tuple) and isinstance(plain, list) and len(python) == len(plain):
        return [_sorted_alike(p, v) for p, v in zip(python, plain, strict=True)]
    return plain


ENCODE: Final = msgspec.json.Encoder(enc_hook=to_plain).encode


# --- walking a value -------------------------------------------------------------------------------


class Arrays(enum.IntEnum):
    """Where an annotation lets arrays stand, and so where a set may be that has no order of its own."""

    NOWHERE = 0
    AT_TOP = 1
    IN_EACH = 2  # of a row: one level down
    ANYWHERE = 3  # or it lets values nest without bound


def parts(value: Any) -> Iterable[Any]:
    """What a value holds one level down: items, a mapping's values, an object's fields."""
    kind = type(value)
    if kind is dict:
        return cast("Iterable[Any]", value.values())
    if kind in _ROWS or isinstance(value, _ARRAYS):
        return cast("Iterable[Any]", value)
    if isinstance(value, enum.Enum):
        return (value.value,)
    return value.values() if isinstance(value, Mapping) else fields(value).values()


def fields(value: Any) -> dict[str, Any]:
    """The fields of a struct, dataclass or attrs object by their encoded names; empty for anything else."""
    cls = type(value)
    if isinstance(value, msgspec.Struct):
        pairs = zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True)
        return {encoded: getattr(value, name) for encoded, name in pairs}
    if dataclasses.is_dataclass(cls):
        names = (field.name for field in dataclasses.fields(cls))
    elif hasattr(cls, "__attrs_attrs__"):
        names = (attribute.name for attribute in cls.__attrs_attrs__)
    else:
        return {}
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _levels(value: Any) -> Iterator[tuple[set[Any], list[Any]]]:
    """All that a value holds, level by level from the top, and the types of each level.

    Raises: `NotEncodable` for a value that nests too deep.
    """
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX + 1):
        kinds: set[Any] = set(map(type, level))
        yield kinds, level
        if kinds <= _ATOMS:
            return
        inner: list[Any] = []
        for kind in kinds - _ATOMS:
            these = [one for one in level if type(one) is kind] if len(kinds) > 1 else level
            if kind is dict:
                inner.extend(chain.from_iterable(map(dict.values, these)))
            else:
                inner.extend(chain.from_iterable(these if kind in _ROWS else map(parts, these)))
        level = inner
    raise NotEncodable(_TOO_DEEP)


def refuse_non_finite(value: Any) -> None:
    """Raises: `NotEncodable` naming where a NaN or an infinity stands: as JSON it would become null in silence."""
    for kinds, level in _levels(value):
        for kind in kinds:
            if not issubclass(kind, float):
                continue
            for one in level:
                if type(one) is kind and not math.isfinite(one):
                    raise NotEncodable(f"{float(one)!r} is no JSON number{_found(value, one)}: pass None or text")


def _found(value: Any, wanted: Any) -> str:
    """Where in the value this very object stands; empty at the top."""
    stack: list[tuple[str, Any]] = [("$", value)]
    while stack:
        path, one = stack.pop()
        if one is wanted:
            return "" if path == "$" else f" (at `{path}`)"
        if type(one) in _ATOMS:
            continue
        if isinstance(one, list | tuple):
            stack.extend((f"{path}[{i}]", item) for i, item in enumerate(one))
        elif isinstance(one, set | frozenset | deque):
            stack.extend((f"{path}[...]", item) for item in one)
        else:
            inner = one if isinstance(one, Mapping) else fields(one)
            stack.extend((f"{path}.{key}", item) for key, item in inner.items())
    return ""


def holds_set(value: Any) -> bool:
    """Whether a set of two or more stands anywhere in the value: its order differs between processes.

    Raises: `NotEncodable` for a value that nests too deep.
    """
    found = False
    for kinds, level in _levels(value):  # to the end, for the depth
        if not found and any(issubclass(kind, _SETS) for kind in kinds):
            found = any(isinstance(one, _SETS) and len(one) > 1 for one in level)
    return found


def ordered(value: Any) -> Any:
    """The same value with every set written as a list in the order of its items' encodings."""
    if type(value) in _ATOMS or not holds_set(value):
        return value
    if isinstance(value, _SETS):
        return [Raw(raw) for raw in sorted(ENCODE(ordered(item)) for item in value)]
    if isinstance(value, Mapping):
        return {key: ordered(item) for key, item in value.items()}
    if isinstance(value, _ARRAYS):
        return [ordered(item) for item in value]
    shown = {name: ordered(item) for name, item in fields(value).items()}
    config = getattr(value, "__struct_config__", None)
    if config is None:
        return shown
    tag = {} if config.tag is None else {config.tag_field: config.tag}
    shown = {**tag, **shown}
    return list(shown.values()) if config.array_like else shown


# --- encoding ----------------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """The compact encoding of any value, the same in every process.

    Raises: `NotEncodable`.
    """
    try:
        raw = looked_at(value, ENCODE(value), Arrays.ANYWHERE)
    except Exception as error:  # noqa: BLE001 - whatever a value's own code raises, it cannot be encoded
        raise refusal(error) from None
    if len(raw) >= LONG and deeper_than(raw, DEPTH_MAX):  # what is spliced in was not walked
        raise NotEncodable(_TOO_DEEP)
    return raw


def looked_at(value: Any, raw: bytes, arrays: Arrays) -> bytes:
    """The encoding again, after the checks that need the value itself. Raises: `NotEncodable`."""
    if type(value) is Raw:
        return ENCODE(msgspec.json.decode(raw))
    if b"null" in raw:
        refuse_non_finite(value)
    if arrays is Arrays.AT_TOP:
        return ENCODE(ordered(value)) if isinstance(value, _SETS) else raw
    if arrays is Arrays.IN_EACH:
        return ENCODE(ordered(value)) if any(isinstance(one, _SETS) for one in value) else raw
    if arrays and (b"[" in raw or len(raw) >= LONG) and holds_set(value):
        return ENCODE(ordered(value))
    return raw


def refusal(error: Exception) -> NotEncodable:
    """What an error of the encoder means to the caller."""
    if isinstance(error, NotEncodable):
        return error
    if isinstance(error, RecursionError):
        return NotEncodable(_TOO_DEEP)
    if isinstance(error, UnicodeEncodeError):
        return NotEncodable(f"text with a lone surrogate cannot be kept as JSON: {error.object[error.start :][:20]!r}")
    if isinstance(error, ValueError) and "integer string conversion" in str(error):
        return NotEncodable("a whole number has more than 4,300 digits: pass it as text")
    return NotEncodable(f"the value cannot be kept as JSON: {error}")


def deeper_than(raw: bytes, depth: int) -> bool:
    """Whether JSON text nests deeper than this; it need not be well formed, and nothing here recurses."""
    if raw.count(b"[") + raw.count(b"{") <= depth:
        return False
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    level = 0
    while brackets:
        if level == depth:
            return True
        peeled = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(peeled) == len(brackets):
            return max(brackets.count(b"["), brackets.count(b"{")) > depth  # not balanced, so not well formed
        brackets, level = peeled, level + 1
    return False
