"""What an engine serves: workflows by name and version, tasks by name (S23, S24)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from perdure.errors import DefinitionError
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec


class Registry:
    """Serving a workflow serves the workflows and tasks of its module, and those that it calls.

    Shape: the newest definition of a name is the one that `latest` gives.
    """

    def __init__(self, served: Iterable[Any] = ()) -> None:
        self._workflows: dict[tuple[str, str], WorkflowSpec] = {}
        self._latest: dict[str, WorkflowSpec] = {}
        self._tasks: dict[str, TaskSpec] = {}
        self._modules: set[str] = set()
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
        self._latest[spec.name] = spec
        for task in spec.tasks.values():
            self._task(task)
        for child in spec.workflows.values():
            self._add(child)

    def _task(self, spec: TaskSpec) -> None:
        self._tasks.setdefault(spec.name, spec)

    def workflow(self, name: str, version: str) -> WorkflowSpec | None:
        """The workflow of this name and version; with an empty version the newest."""
        return self._workflows.get((name, version)) if version else self._latest.get(name)

    def task(self, name: str) -> TaskSpec | None:
        return self._tasks.get(name)

    def names(self) -> list[tuple[str, str]]:
        """(name, version) of everything served."""
        return sorted(self._workflows)
