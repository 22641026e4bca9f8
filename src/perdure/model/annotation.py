"""From annotations to nodes: what can be read back, and how."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NewType, Union, get_args, get_origin

import msgspec

from perdure.errors import DefinitionError
from perdure.model.tagged import NOTHING, Ahead, Choice, Entries, Field, Items, Leaf, Node, Record, Row
from perdure.model.values import Arrays, is_pydantic, readable

_ARRAYS: Final[dict[Any, type]] = {
    list: list, set: set, frozenset: frozenset, abc.Sequence: list, abc.MutableSequence: list, abc.Collection: list,
    abc.Set: set, abc.MutableSet: set,
}  # fmt: skip
_MAPPINGS: Final = (dict, abc.Mapping, abc.MutableMapping)


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
        return Leaf(annotation, _arrays(info))

    def _bad(self, why: object) -> DefinitionError:
        return DefinitionError(f"{self.where}: {why}")

    def _check(self, info: msgspec.inspect.Type) -> None:
        """Every class below can be read back and loses nothing."""
        stack = [info]
        seen: set[int] = set()
        while stack:
            one = stack.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, msgspec.inspect.CustomType) and not readable(one.cls):
                raise self._bad(_UNREADABLE.format(_name(one.cls)))
            if isinstance(one, msgspec.inspect.DataclassType) and hasattr(one.cls, "__attrs_attrs__"):
                self._check_attrs(one)
            stack.extend(_inner(one))

    def _check_attrs(self, info: msgspec.inspect.DataclassType) -> None:
        for field in info.fields:
            if field.name.startswith("_"):
                raise self._bad(f"the private field {field.name!r} of {_name(info.cls)} would be lost: rename it")

    def _split(self, annotation: Any, error: Exception) -> Node:
        try:
            if annotation in self.ahead:
                return self.ahead[annotation]
        except TypeError:  # not hashable, as `[int]`
            raise self._bad(f"{annotation!r} is no type") from None
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
            ahead.node = self._record(origin, args)
            return ahead
        raise self._bad(error)

    def _record(self, cls: type, args: tuple[Any, ...]) -> Node:
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except NameError as error:
            raise self._bad(f"the name {error.name!r} in {_name(cls)} cannot be found") from None
        given = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))

        def node(name: str) -> Node:
            return self.build(_filled(hints.get(name, Any), given))

        if _is_named_tuple(cls):
            names, defaults = getattr(cls, "_fields", ()), getattr(cls, "_field_defaults", ())
            return Row([node(name) for name in names], lambda items: cls(*items), len(defaults))
        return Record(cls, list(_fields(cls, hints, node)))

    def _choice(self, args: tuple[Any, ...], error: Exception) -> Node:
        members = [unwrapped(arg) for arg in args]
        if Any in members:
            return Leaf(Any)
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
        scalar: Node = self.build(Union[tuple(plain)]) if plain else NOTHING  # noqa: UP007
        array = self.build(arrays[0]) if arrays else scalar
        mappings = [one for one in slow if one not in arrays]
        mapping = self.build(mappings[0]) if mappings else scalar
        tags = _tags([get_origin(one) or one for one in records])
        nodes = [(get_origin(one) or one, self.build(one)) for one in records]
        return Choice(dict(zip(tags, nodes, strict=True)), array, mapping, scalar)


class _Stand(msgspec.Struct):
    """Stands for the records of a union when its rest is checked."""


_NO_TYPES: Final = frozenset({"cls", "default", "default_factory", "encode_name", "name", "extra", "extra_json_schema"})
_UNREADABLE: Final = (
    "a {} cannot be read back from JSON: use a dataclass, a msgspec, attrs or pydantic class, or plain data"
)


def _name(cls: Any) -> str:
    return cls.__qualname__ if isinstance(cls, type) else str(cls)


def unwrapped(annotation: Any) -> Any:
    """The annotation below a NewType, a type alias, or an `Annotated` that says nothing to msgspec."""
    if annotation is typing.NoReturn or annotation is typing.Never:
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


def _arrays(info: msgspec.inspect.Type) -> Arrays:
    """Where arrays may stand in what the annotation lets through; a class that is met twice may nest without bound."""
    top = list(info.types) if isinstance(info, msgspec.inspect.UnionType) else [info]
    below = [inner for one in top for inner in _inner(one)]
    seen = {id(one) for one in top}
    if any(isinstance(one, _OPEN) for one in top):
        return Arrays.ANYWHERE
    while below:
        one = below.pop()
        if isinstance(one, _OPEN) or _is_row(one) or id(one) in seen:
            return Arrays.ANYWHERE
        if isinstance(one, _CLASSES):
            seen.add(id(one))
        below.extend(_inner(one))
    return Arrays.AT_TOP if any(map(_is_row, top)) else Arrays.NOWHERE


def _is_row(info: msgspec.inspect.Type) -> bool:
    return isinstance(info, _ROWS) or bool(getattr(info, "array_like", False))


def _inner(info: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """The types that stand directly within a type."""
    for name in info.__struct_fields__:
        held = getattr(info, name) if name not in _NO_TYPES else None
        for one in held if isinstance(held, tuple) else (held,):
            if isinstance(one, msgspec.inspect.Field):
                yield one.type
            elif isinstance(one, msgspec.inspect.Type):
                yield one


_OPEN: Final = (msgspec.inspect.AnyType, msgspec.inspect.CustomType, msgspec.inspect.RawType)
_CLASSES: Final = (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)
_ROWS: Final = (
    msgspec.inspect.ListType,
    msgspec.inspect.SetType,
    msgspec.inspect.FrozenSetType,
    msgspec.inspect.TupleType,
    msgspec.inspect.VarTupleType,
    msgspec.inspect.NamedTupleType,
    msgspec.inspect.CollectionType,
)


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


def _fields(cls: Any, hints: Iterable[str], node: Callable[[str], Node]) -> Iterator[Field]:
    if typing.is_typeddict(cls):
        for name in hints:
            yield Field(name, name, node(name), name in cls.__required_keys__, name)
    elif issubclass(cls, msgspec.Struct):
        for one in msgspec.structs.fields(cls):
            yield Field(one.name, one.encode_name, node(one.name), one.required, one.name)
    elif dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            keyword = field.name if field.init else None
            yield Field(field.name, field.name, node(field.name), bare and field.init, keyword)
    else:
        for attribute in cls.__attrs_attrs__:
            bare = repr(attribute.default) == "NOTHING"
            keyword = attribute.alias if attribute.init else None
            yield Field(attribute.name, attribute.name, node(attribute.name), bare and attribute.init, keyword)
