"""What an engine serves: workflows by name and version, tasks by name (S23, S24)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from perdure.authoring.calls import called_by
from perdure.authoring.reference import held_by_module, same_code
from perdure.errors import DefinitionError
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec


class Registry:
    """Serving a workflow serves the workflows and tasks of its module, and those that it calls.

    Shape: `_latest` is what a name alone means: the version that the module holds under that name, else the one served
           last; `_kept` are graphs that were bound by what a
           store keeps of them, by the hash of their definition.
    """

    def __init__(self, served: Iterable[Any] = ()) -> None:
        self._workflows: dict[tuple[str, str], WorkflowSpec] = {}
        self._latest: dict[str, WorkflowSpec] = {}
        self._kept: dict[str, WorkflowSpec] = {}
        self._tasks: dict[str, TaskSpec] = {}
        self._modules: set[str] = set()
        if not isinstance(served, Iterable):
            raise DefinitionError(f"workflows= takes a list of workflows and modules, not {served!r}")
        for one in served:
            self.serve(one)

    def serve(self, one: Any) -> None:
        """Serve a workflow, or all of a module. Raises: `DefinitionError` for anything else, or a name taken twice."""
        if isinstance(one, ModuleType):
            self._module(one)
        elif isinstance(one, WorkflowSpec):
            self._add(one)
            module = sys.modules.get(one.module)
            if module is not None:
                self._module(module)
        else:
            raise DefinitionError(f"workflows= takes workflows and modules, not {one!r}")

    def _module(self, module: ModuleType) -> None:
        if module.__name__ in self._modules:
            return
        self._modules.add(module.__name__)
        for value in list(vars(module).values()):
            if isinstance(value, WorkflowSpec):
                if value not in self._latest.values():
                    self._add(value)
            elif isinstance(value, TaskSpec):
                self._task(value)

    def _add(self, spec: WorkflowSpec) -> None:
        key = (spec.name, spec.version)
        there = self._workflows.get(key)
        if there is spec:
            return
        if there is not None and (there.module, there.definition_hash) != (spec.module, spec.definition_hash):
            raise DefinitionError(
                f"two workflows are named {spec.name!r} in version {spec.version!r}: in {there.module} "
                f"and in {spec.module}; "
                "give one of them another name= or version="
            )
        self._workflows[key] = spec
        newest = self._latest.get(spec.name)
        if newest is None or _is_own(spec) or not _is_own(newest):
            self._latest[spec.name] = spec
        for task in spec.tasks.values():
            self._task(task)
        for child in spec.workflows.values():
            self._add(child)
        for one in called_by(spec.fn):
            if isinstance(one, TaskSpec):
                self._task(one)
            elif (one.name, one.version) not in self._workflows:
                newest = self._latest.get(one.name)
                self._add(one)
                self._latest[one.name] = newest or one

    def _task(self, spec: TaskSpec) -> None:
        """Serve a task as its module holds it, without the options of a single step."""
        if spec.name not in self._tasks:
            held = held_by_module(spec.fn.__module__, getattr(spec.fn, "__name__", spec.name), same_code(spec))
            self._tasks[spec.name] = held[1] if held else spec

    def keep(self, spec: WorkflowSpec) -> None:
        """Serve a graph that no code serves, by the hash of its definition alone."""
        self._kept[spec.definition_hash] = spec

    def kept(self, definition: str) -> WorkflowSpec | None:
        """The graph that `keep` was given, by the hash of its definition."""
        return self._kept.get(definition)

    def workflow(self, name: str, version: str, definition: str = "") -> WorkflowSpec | None:
        """The workflow of this name and version, else of this kept definition; with an empty version the newest."""
        if not version:
            return self._latest.get(name)
        return self._workflows.get((name, version)) or self._kept.get(definition)

    def task(self, name: str) -> TaskSpec | None:
        return self._tasks.get(name)

    def activities(self) -> dict[str, TaskSpec | WorkflowSpec]:
        """Every task and workflow that is served, by name."""
        return {**self._latest, **self._tasks}

    @property
    def modules(self) -> frozenset[str]:
        """The modules whose code is served."""
        return frozenset({*self._modules, *(task.fn.__module__ for task in self._tasks.values())})

    def names(self) -> list[tuple[str, str]]:
        """(name, version) of everything served."""
        return sorted(self._workflows)


def _is_own(spec: WorkflowSpec) -> bool:
    """Whether its module holds a workflow under its function's own name: an older version stands under another one."""
    name = getattr(spec.fn, "__name__", spec.name)
    return vars(sys.modules.get(spec.module, object)).get(name) is spec
