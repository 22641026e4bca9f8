"""Annotations that msgspec alone cannot read back: unions of several record classes are told apart by `"$type"`.

A `Node` stands for one annotation. Where a union of records is nowhere below, it is a `Leaf`, and msgspec does
all of the work; the others write a `"$type"` member and read the JSON text piece by piece.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import abc
from typing import Any, Final, NewType, Protocol, Union, get_args, get_origin

import msgspec
from msgspec import ValidationError

from perdure.errors import DefinitionError
from perdure.model.values import encode, from_plain, is_pydantic, readable

Raw = msgspec.Raw
TAG: Final = "$type"
WRAPPED: Final = "$value"  # holds a member of a union whose own encoding is no object that can carry the tag
_ARRAYS: Final[dict[Any, type]] = {
    list: list, set: set, frozenset: frozenset, abc.Sequence: list, abc.MutableSequence: list, abc.Collection: list,
    abc.Set: set, abc.MutableSet: set,
}  # fmt: skip
_MAPPINGS: Final = (dict, abc.Mapping, abc.MutableMapping)
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

    __slots__ = ("back",)

    def __init__(self, annotation: Any) -> None:
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


# --- from annotations to nodes -----------------------------------------------------------------------


class Builder:
    """Makes the node of an annotation. Shape: `where` names the place for errors; `ahead` the classes under way."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.ahead: dict[Any, Ahead] = {}

    def build(self, annotation: Any) -> Node:
        """Raises: `DefinitionError` naming the place and what cannot be read back."""
        annotation = unwrapped(annotation)
        try:
            info = msgspec.inspect.type_info(annotation)
        except NameError as error:
            raise self._bad(f"the name {error.name!r} in its annotation cannot be found") from None
        except Exception as error:  # noqa: BLE001 - msgspec refuses: only tagged unions can help
            return self._split(annotation, error)
        self._check(info)
        return Leaf(annotation)

    def _bad(self, why: object) -> DefinitionError:
        return DefinitionError(f"{self.where}: {why}")

    def _check(self, info: msgspec.inspect.Type) -> None:
        """Every class below can be read back and loses nothing."""
        stack: list[Any] = [info]
        seen: set[int] = set()
        while stack:
            one = stack.pop()
            if isinstance(one, tuple | list):
                stack.extend(one)
            elif isinstance(one, msgspec.inspect.CustomType):
                if not readable(one.cls):
                    raise self._bad(_UNREADABLE.format(_name(one.cls)))
            elif isinstance(one, msgspec.inspect.Type | msgspec.inspect.Field) and id(one) not in seen:
                seen.add(id(one))
                if isinstance(one, msgspec.inspect.DataclassType) and hasattr(one.cls, "__attrs_attrs__"):
                    self._check_attrs(one)
                stack.extend(getattr(one, name) for name in one.__struct_fields__ if name not in _NO_TYPES)

    def _check_attrs(self, info: msgspec.inspect.DataclassType) -> None:
        for field in info.fields:
            if field.name.startswith("_"):
                raise self._bad(f"the private field {field.name!r} of {_name(info.cls)} would be lost: rename it")

    def _split(self, annotation: Any, error: Exception) -> Node:
        if annotation in self.ahead:
            return self.ahead[annotation]
        origin, args = get_origin(annotation) or annotation, get_args(annotation)
        if origin in {Union, types.UnionType}:
            return self._choice(args, error)
        if origin in _ARRAYS and args:
            return Items(_ARRAYS[origin], self.build(args[0]))
        if origin is tuple and args:
            if len(args) == 2 and args[1] is ...:
                return Items(tuple, self.build(args[0]))
            return Row([self.build(arg) for arg in args], tuple)
        if origin in _MAPPINGS and len(args) == 2:
            return Entries(args[0], self.build(args[1]))
        if isinstance(origin, type) and (is_record(origin) or typing.is_typeddict(origin) or _is_named_tuple(origin)):
            self.ahead[annotation] = ahead = Ahead()
            ahead.node = self._record(annotation, origin, args)
            return ahead
        raise self._bad(error)

    def _record(self, annotation: Any, cls: type, args: tuple[Any, ...]) -> Node:
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except NameError as error:
            raise self._bad(f"the name {error.name!r} in {_name(cls)} cannot be found") from None
        given = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
        nodes = {name: self.build(_filled(hint, given)) for name, hint in hints.items() if not _is_class_var(hint)}
        if _is_named_tuple(cls):
            names = cls._fields  # type: ignore[attr-defined]
            row = [nodes.get(name) or Leaf(Any) for name in names]
            return Row(row, lambda items: cls(*items), len(cls._field_defaults))  # type: ignore[attr-defined]
        return Record(cls if isinstance(cls, type) else annotation, list(_fields(cls, nodes)))

    def _choice(self, args: tuple[Any, ...], error: Exception) -> Node:
        members = [unwrapped(arg) for arg in args]
        records = [one for one in members if is_record(get_origin(one) or one)]
        rest = [one for one in members if one not in records]
        slow = [one for one in rest if not _fast(one)]
        arrays = [one for one in slow if _is_array(one)]
        stand_ins = [list if one in arrays else dict if one in slow else one for one in rest]
        if len({get_origin(one) or one for one in records}) != len(records):
            raise self._bad(f"its union names one class twice: {error}")
        try:
            if stand_ins:
                msgspec.inspect.type_info(Union[tuple(stand_ins)])  # noqa: UP007
            if stand_ins and records:
                msgspec.inspect.type_info(Union[(*stand_ins, _Stand)])
        except TypeError:
            raise self._bad(error) from None
        plain = [one for one in rest if one not in slow]
        scalar: Node = self.build(Union[tuple(plain)]) if plain else _NOTHING  # noqa: UP007
        array = self.build(arrays[0]) if arrays else scalar
        mappings = [one for one in slow if one not in arrays]
        mapping = self.build(mappings[0]) if mappings else scalar
        tags = _tags([get_origin(one) or one for one in records])
        nodes = [(get_origin(one) or one, self.build(one)) for one in records]
        return Choice(dict(zip(tags, nodes, strict=True)), array, mapping, scalar)


class _Stand(msgspec.Struct):
    """Stands for the records of a union when its rest is checked."""


class _Nothing:
    """The rest of a union that has none but records."""

    def to(self, value: Any) -> Any:
        return value

    def back(self, raw: bytes | Raw) -> Any:
        raise ValidationError(f"Expected `object`, got `{type(msgspec.json.decode(raw)).__name__}`")


_NOTHING: Final = _Nothing()
_NO_TYPES: Final = frozenset({"cls", "default", "default_factory", "encode_name", "name", "extra", "extra_json_schema"})
_UNREADABLE: Final = (
    "a {} cannot be read back from JSON: use a dataclass, a msgspec, attrs or pydantic class, or plain data"
)


def _name(cls: Any) -> str:
    return cls.__qualname__ if isinstance(cls, type) else str(cls)


def unwrapped(annotation: Any) -> Any:
    """The annotation below a NewType, a type alias, or an `Annotated` that says nothing to msgspec."""
    if annotation in {typing.NoReturn, typing.Never}:
        return Any
    if isinstance(annotation, NewType):
        return unwrapped(annotation.__supertype__)
    if get_origin(annotation) is typing.Annotated and not any(
        isinstance(extra, msgspec.Meta) for extra in annotation.__metadata__
    ):
        return unwrapped(get_args(annotation)[0])
    if type(annotation).__name__ == "TypeAliasType":
        return unwrapped(annotation.__value__)
    if get_origin(annotation) in {typing.Required, typing.NotRequired, typing.Final}:
        return unwrapped(get_args(annotation)[0])
    return annotation


def is_record(cls: Any) -> bool:
    """Whether instances of the class know what they are: only such members of a union can be tagged."""
    return isinstance(cls, type) and (
        dataclasses.is_dataclass(cls)
        or issubclass(cls, msgspec.Struct)
        or hasattr(cls, "__attrs_attrs__")
        or is_pydantic(cls)
    )


def _fast(annotation: Any) -> bool:
    try:
        msgspec.inspect.type_info(annotation)
    except Exception:  # noqa: BLE001 - as in `Builder.build`: what msgspec refuses is looked at here
        return False
    return True


def _is_array(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    return origin in _ARRAYS or (isinstance(origin, type) and issubclass(origin, tuple))


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _is_class_var(hint: Any) -> bool:
    return (get_origin(hint) or hint) is typing.ClassVar


def _filled(hint: Any, given: dict[Any, Any]) -> Any:
    """The hint with a generic class's parameters put in."""
    if isinstance(hint, typing.TypeVar):
        return given.get(hint, hint)
    open_ = getattr(hint, "__parameters__", ())
    return hint[tuple(given.get(one, one) for one in open_)] if open_ and get_origin(hint) is not None else hint


def _tags(classes: list[type]) -> list[str]:
    """One tag a class: its name, or its full name where two are called the same."""
    names = [cls.__name__ for cls in classes]
    return [
        name if names.count(name) == 1 else f"{cls.__module__}.{cls.__qualname__}"
        for name, cls in zip(names, classes, strict=True)
    ]


def _fields(cls: Any, nodes: dict[str, Node]) -> typing.Iterator[Field]:
    if typing.is_typeddict(cls):
        for name, node in nodes.items():
            yield Field(name, name, node, name in cls.__required_keys__, name)
    elif issubclass(cls, msgspec.Struct):
        for one in msgspec.structs.fields(cls):
            yield Field(one.name, one.encode_name, nodes[one.name], one.required, one.name)
    elif dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            yield Field(
                field.name, field.name, nodes[field.name], bare and field.init, field.name if field.init else None
            )
    else:
        for attribute in cls.__attrs_attrs__:
            bare = attribute.default is type(attribute.default) or repr(attribute.default) == "NOTHING"
            node = nodes.get(attribute.name) or Leaf(Any)
            keyword = attribute.alias if attribute.init else None
            yield Field(attribute.name, attribute.name, node, bare and attribute.init, keyword)
