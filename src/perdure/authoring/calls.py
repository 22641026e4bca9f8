"""What a flow's code calls: the workflows and tasks that it, or a function that it uses, names (S24)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from perdure.authoring.guard import names_of
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec

# Code of these calls no workflow of a user.
_FOREIGN = sys.stdlib_module_names | {"perdure"}


def called_by(fn: Any) -> Iterator[WorkflowSpec | TaskSpec]:
    """Each workflow and task that a function names: as a global, in a closure, or as `module.name`.

    What is found only while the code runs (in a mapping, by `getattr`) has to be served by name.
    """
    left, seen = [fn], set()
    while left:
        one = left.pop()
        if not isinstance(one, FunctionType) or one.__code__ in seen:
            continue
        seen.add(one.__code__)
        for value in _values(one):
            if isinstance(value, WorkflowSpec | TaskSpec):
                yield value
            elif isinstance(value, FunctionType) and _top(value.__module__) not in _FOREIGN:
                left.append(value)


def _values(fn: FunctionType) -> Iterator[Any]:
    names = set(names_of(fn.__code__))
    for name in names:
        if name not in fn.__globals__:
            continue
        value = fn.__globals__[name]
        yield value
        if isinstance(value, ModuleType) and _top(value.__name__) not in _FOREIGN:
            yield from (vars(value)[inner] for inner in names if inner in vars(value))
    for cell in fn.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is filled later, or never
            continue


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]
