"""Arguments of a graph's steps: placeholders, references and literals, nested as Python nests them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from perdure.authoring.placeholder import Placeholder
from perdure.errors import DefinitionError, PerdureError
from perdure.model.graph import NESTING_MAX, Argument, Fields, InputRef, Many, StepRef, Value
from perdure.model.payload import Shape, canonical

LITERAL_MAX: Final = 16 << 20
NULL: Final = Value(msgspec.Raw(b"null"))
_ANY: Final = Shape(Any, "literal argument")
_FORMS: Final = (StepRef, InputRef, Value, Many, Fields)
_REFERENCES: Final = (Placeholder, *_FORMS)


def literal(value: Any, what: str, shape: Shape = _ANY) -> Value:
    """A literal as JSON with its keys sorted. Raises: `DefinitionError` where it does not fit, or cannot be JSON."""
    try:
        return Value(msgspec.Raw(canonical(shape.round(value, LITERAL_MAX)[0])))
    except PerdureError as error:
        if Placeholder.__module__ in str(error):
            raise DefinitionError(
                f"{what}: a result that is not known yet is inside a {type(value).__name__}: "
                "give a list or a mapping, or pass it as an argument of its own"
            ) from None
        raise DefinitionError(f"{what}: {error}") from None


class Arguments:
    """Makes arguments of values; equal lists of the same references become one object, so that layers cost little.

    Shape: `resolve` gives the reference that a placeholder stands for, or raises for one of another graph.
    """

    def __init__(self, resolve: Callable[[Placeholder, str], Argument]) -> None:
        self._resolve = resolve
        self._lists: dict[tuple[int, ...], Many] = {}

    def of(self, value: Any, what: str, shape: Shape = _ANY, *, fan: bool = False) -> Argument:
        """The argument that a value is; `shape` checks a literal, or each item of one that is fanned out over.

        Raises: `DefinitionError` naming `what`.
        """
        if isinstance(value, Placeholder):
            return self._resolve(value, what)
        if isinstance(value, _FORMS):
            return value
        if isinstance(value, list | tuple | Mapping) and self._has_references(value, what):
            return self._nested(value, what, 1)
        if not fan:
            return literal(value, what, shape)
        if not isinstance(value, list | tuple):
            raise DefinitionError(f"{what}: map() fans out over a list, not over {value!r}")
        items = [bytes(literal(item, f"{what}, item {i}", shape).value) for i, item in enumerate(value)]
        return Value(msgspec.Raw(b"[%b]" % b",".join(items)))

    def _nested(self, value: Any, what: str, depth: int) -> Argument:
        if isinstance(value, Placeholder):
            return self._resolve(value, what)
        if isinstance(value, _FORMS):
            return value
        if isinstance(value, list | tuple):
            return self._many(tuple([self._nested(item, what, depth + 1) for item in value]))
        if isinstance(value, Mapping):
            return Fields({_key(key, what): self._nested(item, what, depth + 1) for key, item in value.items()})
        return literal(value, what)

    def _many(self, items: tuple[Argument, ...]) -> Many:
        key = tuple(map(id, items))
        found = self._lists.get(key)
        if found is None:
            found = self._lists[key] = Many(items)
        return found

    def _has_references(self, value: Any, what: str) -> bool:
        """Whether a reference stands anywhere inside; looks no deeper than arguments may be nested."""
        level, found = [value], False
        for _ in range(NESTING_MAX):
            below: list[Any] = []
            for one in level:
                for item in one.values() if isinstance(one, Mapping) else one:
                    if isinstance(item, _REFERENCES):
                        found = True
                    elif isinstance(item, list | tuple | Mapping):
                        below.append(item)
                    elif isinstance(item, set | frozenset) and any(isinstance(one, Placeholder) for one in item):
                        raise DefinitionError(f"{what}: a set of placeholders has no order: give a list")
            if not below:
                return found
            level = below
        raise DefinitionError(f"{what}: nested more than {NESTING_MAX} deep")


def _key(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise DefinitionError(f"{what}: the key {key!r} of a mapping with references is no text")
    return key
