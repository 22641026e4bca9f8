"""Annotations that msgspec alone cannot read back: unions of several record classes are told apart by `"$type"`.

A `Node` stands for one annotation. Where a union of records is nowhere below, it is a `Leaf`, and msgspec does
all of the work; the others write a `"$type"` member and read the JSON text piece by piece.
"""

from __future__ import annotations

import dataclasses
from collections import abc
from typing import Any, Final, Protocol

import msgspec
from msgspec import ValidationError

from perdure.model.values import Arrays, encode, from_plain

Raw = msgspec.Raw
TAG: Final = "$type"
WRAPPED: Final = "$value"  # holds a member of a union whose own encoding is no object that can carry the tag
_items = msgspec.json.Decoder(list[Raw]).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


class Node(Protocol):
    """Shape: `back(to(value))`, encoded between, is the value in the types of the annotation."""

    def to(self, value: Any) -> Any:
        """What msgspec can encode; a value of another type is given back as it is, and reading it will tell."""

    def back(self, raw: bytes | Raw) -> Any:
        """Raises: msgspec.ValidationError naming the place."""


class Leaf:
    """An annotation that msgspec reads by itself."""

    __slots__ = ("arrays", "back")

    def __init__(self, annotation: Any, arrays: Arrays = Arrays.ANYWHERE) -> None:
        self.arrays = arrays
        self.back = msgspec.json.Decoder(annotation, dec_hook=from_plain).decode

    def to(self, value: Any) -> Any:
        return value


class Ahead:
    """A class that is being built: it stands within itself."""

    __slots__ = ("node",)

    def __init__(self) -> None:
        self.node: Node | None = None

    def to(self, value: Any) -> Any:
        assert self.node is not None
        return self.node.to(value)

    def back(self, raw: bytes | Raw) -> Any:
        assert self.node is not None
        return self.node.back(raw)


def _at(error: Exception, place: str) -> ValidationError:
    """The error with its place told from one level further up."""
    text, found, path = str(error).rpartition(" - at `$")
    return ValidationError(f"{text} - at `${place}{path}" if found else f"{error} - at `${place}`")


def _read(node: Node, raw: Raw, place: str) -> Any:
    try:
        return node.back(raw)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise _at(error, place) from None


class Items:
    """A list or a set."""

    __slots__ = ("kind", "node")

    def __init__(self, kind: type, node: Node) -> None:
        self.kind, self.node = kind, node

    def to(self, value: Any) -> Any:
        if not isinstance(value, list | tuple | set | frozenset):
            return value
        items = [self.node.to(item) for item in value]
        return [Raw(raw) for raw in sorted(map(encode, items))] if isinstance(value, set | frozenset) else items

    def back(self, raw: bytes | Raw) -> Any:
        return self.kind([_read(self.node, item, f"[{i}]") for i, item in enumerate(_items(raw))])


class Row:
    """A tuple of known length, or a named tuple. Shape: the last `optional` items may be missing."""

    __slots__ = ("make", "nodes", "optional")

    def __init__(self, nodes: list[Node], make: Any, optional: int = 0) -> None:
        self.nodes, self.make, self.optional = nodes, make, optional

    def to(self, value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(self.nodes):
            return value
        return [node.to(item) for node, item in zip(self.nodes, value, strict=True)]

    def back(self, raw: bytes | Raw) -> Any:
        items, count = _items(raw), len(self.nodes)
        if not count - self.optional <= len(items) <= count:
            raise ValidationError(f"Expected `array` of length {count}, got {len(items)}")
        return self.make([_read(node, item, f"[{i}]") for i, (node, item) in enumerate(zip(self.nodes, items))])  # noqa: B905


class Entries:
    """A mapping."""

    __slots__ = ("keys", "node")

    def __init__(self, key: Any, node: Node) -> None:
        self.keys = None if key in {str, Any} else Leaf(dict[key, None]).back
        self.node = node

    def to(self, value: Any) -> Any:
        return {k: self.node.to(v) for k, v in value.items()} if isinstance(value, abc.Mapping) else value

    def back(self, raw: bytes | Raw) -> Any:
        found = _members(raw)
        values = [_read(self.node, item, "[...]") for item in found.values()]
        keys = found if self.keys is None else self.keys(msgspec.json.encode(dict.fromkeys(found)))
        return dict(zip(keys, values, strict=True))


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    name: str
    encoded: str
    node: Node
    required: bool
    keyword: str | None  # the constructor's name for it; None: it is set afterwards


class Record:
    """A dataclass, attrs class, struct or typed dictionary with a tagged union somewhere in its fields."""

    __slots__ = ("cls", "fields")

    def __init__(self, cls: type, fields: list[Field]) -> None:
        self.cls, self.fields = cls, fields

    def to(self, value: Any) -> Any:
        if isinstance(value, dict):
            named = {field.name: field.node for field in self.fields}
            return {key: named[key].to(item) if key in named else item for key, item in value.items()}
        if not isinstance(value, self.cls):
            return value
        present = (field for field in self.fields if hasattr(value, field.name))
        return {field.encoded: field.node.to(getattr(value, field.name)) for field in present}

    def back(self, raw: bytes | Raw) -> Any:
        found = _members(raw)
        given: dict[str, Any] = {}
        later: dict[str, Any] = {}
        for field in self.fields:
            if field.encoded in found:
                value = _read(field.node, found[field.encoded], f".{field.encoded}")
                if field.keyword is None:
                    later[field.name] = value
                else:
                    given[field.keyword] = value
            elif field.required:
                raise ValidationError(f"Object missing required field `{field.encoded}`")
        try:
            made = self.cls(**given)
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error)) from None
        for name, value in later.items():
            object.__setattr__(made, name, value)
        return made


class Choice:
    """A union. Shape: `records` by tag; the rest is told apart by the first character of its JSON."""

    __slots__ = ("array", "classes", "mapping", "records", "scalar")

    def __init__(self, records: dict[str, tuple[type, Node]], array: Node, mapping: Node, scalar: Node) -> None:
        self.records, self.array, self.mapping, self.scalar = records, array, mapping, scalar
        self.classes = {cls: (tag, node) for tag, (cls, node) in records.items()}

    def to(self, value: Any) -> Any:
        found = self.classes.get(type(value)) or next(
            (self.classes[cls] for cls in type(value).__mro__ if cls in self.classes), None
        )
        if found is not None:
            tag, node = found
            return self._tagged(tag, encode(node.to(value)))
        if isinstance(value, abc.Mapping):
            return self.mapping.to(value)
        return self.array.to(value) if isinstance(value, list | tuple | set | frozenset) else value

    def _tagged(self, tag: str, raw: bytes) -> Raw:
        name = msgspec.json.encode(tag)
        if not raw.startswith(b"{") or (b'"$' in raw and {TAG, WRAPPED} & _members(raw).keys()):
            return Raw(b'{"%b":%b,"%b":%b}' % (TAG.encode(), name, WRAPPED.encode(), raw))
        if len(self.records) == 1:
            return Raw(raw)
        return Raw(b'{"%b":%b%b%b' % (TAG.encode(), name, b"" if raw == b"{}" else b",", raw[1:]))

    def back(self, raw: bytes | Raw) -> Any:
        first = bytes(memoryview(raw)[:1])
        if first == b"{":
            return self._record(raw) if self.records else self.mapping.back(raw)
        return self.array.back(raw) if first == b"[" else self.scalar.back(raw)

    def _record(self, raw: bytes | Raw) -> Any:
        found = _members(raw)
        tag = msgspec.json.decode(found.pop(TAG)) if TAG in found else None
        if tag is None and len(self.records) == 1:
            return next(iter(self.records.values()))[1].back(raw)
        if not isinstance(tag, str) or tag not in self.records:
            names = ", ".join(map(repr, self.records))
            raise ValidationError(f'Expected an object whose "{TAG}" is one of {names}')
        node = self.records[tag][1]
        return node.back(found[WRAPPED] if found.keys() == {WRAPPED} else msgspec.json.encode(found))


class _Nothing:
    """The rest of a union that has none but records."""

    def to(self, value: Any) -> Any:
        return value

    def back(self, raw: bytes | Raw) -> Any:
        raise ValidationError(f"Expected `object`, got `{type(msgspec.json.decode(raw)).__name__}`")


NOTHING: Final = _Nothing()
