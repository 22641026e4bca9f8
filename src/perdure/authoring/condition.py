"""Conditions of steps: Python functions by parameter name, or CEL text; both become a function of values by name.

CEL text sees the JSON of a value and travels with the definition. A Python function sees the decoded value, is saved
as a reference, and loads only where its code is (S29).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from perdure.errors import DefinitionError
from perdure.model.graph import Condition
from perdure.model.payload import Shape

Compiled = Callable[[Mapping[str, Any]], bool]
CEL_MAX: Final = 10_000
_VALUE_MAX: Final = 64 << 20
_NEEDS_EXTRA: Final = "CEL text needs the extra `cel`: pip install 'perdure[cel]', or give a Python function"
_JSON: Final = Shape(Any, "value in a condition")
# Text, bytes and comments hold no names; a name behind a dot is a field.
_TOKEN: Final = re.compile(
    r"""//[^\n]*
      | [rRbB]{0,2}(?:\"{3}(?s:.*?)\"{3}|'{3}(?s:.*?)'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<dot>\.\s*)?(?P<name>[A-Za-z_]\w*)
      | \d[\w.]*
      | .""",
    re.VERBOSE | re.DOTALL,
)


class ConditionFailed(Exception):
    """A condition could not be judged; the message says which and why."""


def from_function(
    function: Callable[..., Any], known: Collection[str], reference: str, where: str
) -> tuple[Condition, Compiled]:
    """A condition from a Python function, whose parameters are names of steps or parameters of the graph.

    Raises: `DefinitionError` naming what is wrong.
    """
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(f"{where}: a condition is a plain function, not an async one: do the waiting in a task")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise DefinitionError(f"{where}: {function!r} has no parameters to name steps: use a lambda") from None
    names = []
    for parameter in parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise DefinitionError(f"{where}: its condition takes {parameter}: each of its parameters must name a step")
        if parameter.name in known or parameter.default is parameter.empty:
            names.append(parameter.name)
    return Condition(tuple(names), call=reference), called(function, tuple(names))


def called(function: Callable[..., Any], names: tuple[str, ...]) -> Compiled:
    """A Python condition as a function of values by name."""

    def holds(values: Mapping[str, Any]) -> bool:
        return bool(function(**{name: values[name] for name in names}))

    holds.__wrapped__ = function  # type: ignore[attr-defined]
    return holds


def from_text(text: str, known: Collection[str], where: str) -> Condition:
    """A condition from CEL text; what it reads is found by compiling it.

    Raises: `DefinitionError` for text that is not CEL, that gives no yes or no, or that names what is not known.
    """
    if len(text) > CEL_MAX:
        raise DefinitionError(f"{where}: its condition has {len(text):,} characters, more than {CEL_MAX:,}")
    known = known if isinstance(known, set | frozenset | dict) else set(known)
    candidates = tuple(dict.fromkeys(name for name in _names(text) if name in known))
    compiled = _compile(text, candidates, where)
    kind = compiled.return_type().name()
    if kind not in {"BOOL", "bool", "DYN", "dyn"}:
        raise DefinitionError(f"{where}: the condition {text!r} gives {kind.lower()}, not true or false")
    return Condition(tuple(name for name in candidates if _reads(text, candidates, name)), cel=text)


def compiled(condition: Condition, where: str) -> Compiled:
    """What judges a CEL condition. Raises: `DefinitionError` where it is none, or the extra is missing."""
    if condition.cel is None:
        raise DefinitionError(f"{where}: the condition {condition.call} is Python code that is not here")
    text, program = condition.cel, _compile(condition.cel, condition.names, where)
    names = condition.names

    def holds(values: Mapping[str, Any]) -> bool:
        found = program.eval(data={name: _plain(values[name]) for name in names})
        if found.type() == _cel().Type.ERROR:
            raise ConditionFailed(f"{text}: {found.value()}")
        if found.type() != _cel().Type.BOOL:
            raise ConditionFailed(f"{text}: gives {found.type().name().lower()}, not true or false")
        return found.value() is True

    return holds


def _plain(value: Any) -> Any:
    """The value as CEL sees it: its JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return msgspec.json.decode(_JSON.encode(value, _VALUE_MAX))


def _names(text: str) -> Iterator[str]:
    """The names in CEL text that are no fields, with some that comprehensions bind."""
    for token in _TOKEN.finditer(text):
        if token["name"] and not token["dot"]:
            yield token["name"]


def _reads(text: str, names: tuple[str, ...], name: str) -> bool:
    """Whether the text still compiles without the name: one that a comprehension binds is not read."""
    try:
        _program(text, tuple(other for other in names if other != name))
    except RuntimeError:
        return True
    return False


def _compile(text: str, names: tuple[str, ...], where: str) -> Any:
    try:
        return _program(text, names)
    except RuntimeError as error:
        said = (
            str(error)
            .split("\n")[0]
            .removeprefix("INVALID_ARGUMENT: ")
            .removeprefix("ERROR: ")
            .removesuffix(" [INVALID_ARGUMENT]")
        )
        unknown = re.search(r"undeclared reference to '([^']*)'", said)
        if unknown:
            name = unknown[1].split(".")[0]
            raise DefinitionError(
                f"{where}: the condition {text!r} names {name!r}, which is neither a step nor a parameter"
            ) from None
        raise DefinitionError(f"{where}: the condition {text!r} is no CEL: {said}") from None
    except ImportError:
        raise DefinitionError(f"{where}: {_NEEDS_EXTRA}") from None


@lru_cache(maxsize=4096)
def _program(text: str, names: tuple[str, ...]) -> Any:
    cel = _cel()
    return cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN)).compile(text)


@lru_cache(maxsize=1)
def _cel() -> Any:
    """An extra of 52 MB, loaded when a condition is CEL."""
    return importlib.import_module("cel_expr_python.cel")
