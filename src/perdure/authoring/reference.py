"""References to code: "module:name" for what a module holds, found again by importing it where that is allowed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from perdure.errors import DefinitionError
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec

REFERENCE: Final = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
NOT_IMPORTABLE: Final = frozenset({"", "__main__", "__mp_main__"})


def held_by_module(module_name: str, name: str, fits: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """The name under which a module holds what fits, and what it holds there; looks under `name` first."""
    module = sys.modules.get(module_name)
    if module is None:
        return None
    held = vars(module)
    if name in held and fits(held[name]):
        return name, held[name]
    return next(((other, value) for other, value in list(held.items()) if fits(value)), None)


def same_code(spec: TaskSpec) -> Callable[[Any], bool]:
    """Whether something is a task of the same function."""
    return lambda value: isinstance(value, TaskSpec) and value.fn is spec.fn and value.name == spec.name


def reference_to(thing: Any) -> str | None:
    """ "module:name" of a task, workflow, function or exception type; None where no module holds it."""
    if isinstance(thing, WorkflowSpec):
        held = held_by_module(thing.module, thing.name, lambda value: value is thing)
        module = thing.module
    elif isinstance(thing, TaskSpec):
        module = thing.fn.__module__
        held = held_by_module(module, getattr(thing.fn, "__name__", thing.name), same_code(thing))
    else:
        module, name = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "")
        held = (name, thing) if "<" not in name and _attribute(sys.modules.get(module), name) is thing else None
    if held is None or module in NOT_IMPORTABLE:
        return None
    return f"{module}:{held[0]}"


def imported(reference: str, where: str) -> Any:
    """What "module:name" refers to; imports the module.

    Raises: `DefinitionError` naming the part that is missing.
    """
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise DefinitionError(f'{where}: {reference!r} is no reference such as "package.module:name"')
    try:
        module = importlib.import_module(match[1])
    except Exception as error:
        raise DefinitionError(f"{where}: {match[1]} cannot be imported: {type(error).__name__}: {error}") from error
    found = _attribute(module, match[2])
    if found is None:
        raise DefinitionError(f"{where}: {match[1]} has no {match[2]!r}")
    return found


def _attribute(thing: Any, path: str) -> Any:
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return thing
