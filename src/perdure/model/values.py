"""Values as JSON: what is refused, in which order sets are written, and how deep a value may go."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final

import msgspec

from perdure.errors import NotEncodable

Raw = msgspec.Raw
# A value that nests deeper could be written where the stack is shallow and not be read where it is deep.
DEPTH_MAX: Final = 200
_DEEP_BYTES: Final = 2 * DEPTH_MAX  # nothing shorter can nest deeper than DEPTH_MAX
_ATOMS: Final = frozenset({str, int, bool, float, type(None), bytes, Raw})
_HASHLESS: Final = frozenset({str, int, bool, type(None), bytes, Raw})
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
    raise NotEncodable(f"a {cls.__module__}.{cls.__qualname__} cannot be kept as JSON: pass its data instead")


_PLAIN: Final[tuple[tuple[type, Any], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (PurePath, str),
    (deque, list),
    (Mapping, dict),
)


def from_plain(cls: type, plain: Any) -> Any:
    """An instance of a class that msgspec does not know. Raises: ValueError or TypeError when it does not fit."""
    if cls is object:
        return plain
    if is_pydantic(cls):
        return cls.model_validate_json(ENCODE(plain))  # type: ignore[attr-defined]
    if not isinstance(plain, str):
        raise TypeError(f"Expected `str`, got `{type(plain).__name__}`")
    return cls(plain)


def _dumped(model: Any) -> Raw:
    """A pydantic model by its own dump; a set in it is put in order."""
    python = model.model_dump(by_alias=True, round_trip=True)
    refuse_non_finite(python)
    text = model.model_dump_json(by_alias=True, round_trip=True).encode()
    if b"[" in text and holds_set(python):
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


def parts(value: Any) -> Iterable[Any]:
    """What a value holds one level down: items, a mapping's values, an object's fields."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset | deque):
        return value
    return fields(value).values()


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


def refuse_non_finite(value: Any) -> None:
    """Raises: `NotEncodable` naming where a NaN or an infinity stands: as JSON it would become null in silence."""
    stack: list[Any] = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, float):
            if not math.isfinite(one):
                raise NotEncodable(f"{one!r} is no JSON number{_found(value, one)}: pass None or text instead")
        elif type(one) not in _HASHLESS:
            stack.extend(parts(one))


def _found(value: Any, wanted: Any) -> str:
    """Where in the value this very object stands, as ` at $.a[0]`; empty at the top."""
    stack: list[tuple[str, Any]] = [("$", value)]
    while stack:
        path, one = stack.pop()
        if one is wanted:
            return "" if path == "$" else f" (at `{path}`)"
        if type(one) in _ATOMS:
            continue
        if isinstance(one, list | tuple):
            stack.extend((f"{path}[{i}]", item) for i, item in enumerate(one))
        elif isinstance(one, Mapping):
            stack.extend((f"{path}.{key}", item) for key, item in one.items())
        else:
            stack.extend((f"{path}.{key}", item) for key, item in fields(one).items())
    return ""


def holds_set(value: Any) -> bool:
    """Whether a set of two or more stands anywhere in the value; its order differs between processes."""
    stack: list[Any] = [value]
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind in _ATOMS:
            continue
        if isinstance(one, set | frozenset) and len(one) > 1:
            return True
        inner = parts(one)
        if not _ATOMS.issuperset(map(type, inner)):
            stack.extend(inner)
    return False


def ordered(value: Any) -> Any:
    """The same value with every set written as a list in the order of its items' encodings."""
    if type(value) in _ATOMS or not holds_set(value):
        return value
    if isinstance(value, set | frozenset):
        return [Raw(raw) for raw in sorted(ENCODE(ordered(item)) for item in value)]
    if isinstance(value, Mapping):
        return {key: ordered(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
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
        raw = ENCODE(value)
        return raw if plainly_good(raw) else looked_at(value, raw)
    except NotEncodable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a value's own code raises, it cannot be encoded
        raise refusal(error) from None


def plainly_good(raw: bytes) -> bool:
    """Whether nothing in the encoding asks for a second look."""
    return b"null" not in raw and b"[" not in raw and len(raw) < _DEEP_BYTES


def looked_at(value: Any, raw: bytes) -> bytes:
    """The encoding again, after the checks that need the value itself. Raises: `NotEncodable`."""
    if type(value) is Raw:
        raw = ENCODE(msgspec.json.decode(raw))
    elif b"null" in raw:
        refuse_non_finite(value)
    if b"[" in raw and holds_set(value):
        raw = ENCODE(ordered(value))
    if len(raw) >= _DEEP_BYTES and deeper_than(raw, DEPTH_MAX):
        raise NotEncodable(f"the value nests deeper than {DEPTH_MAX} levels")
    return raw


def refusal(error: Exception) -> NotEncodable:
    """What an error of the encoder means to the caller."""
    if isinstance(error, NotEncodable):
        return error
    if isinstance(error, RecursionError):
        return NotEncodable(f"the value holds itself, or nests deeper than {DEPTH_MAX} levels")
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
