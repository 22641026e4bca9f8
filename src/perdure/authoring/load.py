"""Graphs from documents: the definition read, and its names bound to tasks, workflows and conditions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from perdure.authoring import condition as conditions
from perdure.authoring.definition import Graph, assemble
from perdure.authoring.document import from_json, from_yaml
from perdure.authoring.draft import Activity
from perdure.authoring.options import with_options
from perdure.authoring.reference import REFERENCE, imported
from perdure.errors import DefinitionError
from perdure.model.graph import GraphDefinition, Node
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec


def load_graph(
    text: str | bytes,
    tasks: Mapping[str, Activity] | None = None,
    *,
    imports: bool | Collection[str] = False,
    what: str = "document",
    source: str = "",
) -> Graph[..., Any]:
    """The graph of a JSON or YAML document.

    Shape: names are looked up in `tasks`; with `imports`, "module:name" is imported, which runs that module's code:
           only for documents that are as trusted as programs; `imports` may also be the modules that are allowed.
           `what` names the document in errors, and tells JSON from YAML by its ending; else a document that begins
           with a brace is JSON. `source` as in `WorkflowSpec`.
    Raises: `DefinitionError` with the line, or naming the step and what is wrong with it.
    """
    read = from_json if _is_json(text, what) else from_yaml
    return bind_graph(read(text, what), tasks, imports=imports, source=source)


def _is_json(text: str | bytes, what: str) -> bool:
    if what.endswith((".json", ".yaml", ".yml")):
        return what.endswith(".json")
    return text.lstrip()[:1] in {"{", b"{"}


def bind_graph(
    definition: GraphDefinition,
    tasks: Mapping[str, Activity] | None = None,
    *,
    imports: bool | Collection[str] = False,
    source: str = "",
) -> Graph[..., Any]:
    """A definition bound to its tasks, as `load_graph` does it. Raises: `DefinitionError`."""
    finder = _Finder(tasks or {}, imports)
    nodes: list[Node] = []
    activities: dict[str, Activity] = {}
    judges: dict[str, conditions.Compiled] = {}
    for node in definition.nodes:
        where = f"graph {definition.name}, step {node.name}"
        spec = finder.activity(node.task, where)
        if node.child and isinstance(spec, TaskSpec):
            raise DefinitionError(f"{where}: {node.task!r} is a task, not a workflow (child: true)")
        child = isinstance(spec, WorkflowSpec)
        if node.options and isinstance(spec, TaskSpec):
            spec = with_options(spec, node.options, finder.code, where)
        if node.when is not None:
            judges[node.name] = finder.condition(node, where)
        activities[node.name] = spec
        nodes.append(msgspec.structs.replace(node, task=spec.name, child=child))
    bound = msgspec.structs.replace(definition, nodes=tuple(nodes))
    return assemble(bound, activities, judges, source=source)


class _Finder(NamedTuple):
    """Finds what names and references mean, where that is allowed."""

    tasks: Mapping[str, Activity]
    imports: bool | Collection[str]

    def activity(self, name: str, where: str) -> Activity:
        found: Any = self.tasks.get(name)
        if found is None:
            if REFERENCE.fullmatch(name) is None:
                known = ", ".join(sorted(self.tasks)[:8]) or "none"
                raise DefinitionError(f'{where}: no task {name!r} is known here (known: {known}); write "module:name"')
            found = self._imported(name, where)
        if not isinstance(found, TaskSpec | WorkflowSpec):
            raise DefinitionError(f"{where}: {name!r} is neither a task nor a workflow, but {found!r}")
        return found

    def code(self, name: str, where: str) -> Any:
        """A compensation, a probe or an exception type."""
        found = self.tasks.get(name)
        if found is not None:
            return found
        if name.startswith("builtins:"):
            kind = imported(name, where)
            if isinstance(kind, type) and issubclass(kind, BaseException):
                return kind
        if REFERENCE.fullmatch(name) is None:
            raise DefinitionError(f'{where}: {name!r} is not known here; write "module:name"')
        return self._imported(name, where)

    def condition(self, node: Node, where: str) -> conditions.Compiled:
        assert node.when is not None
        if node.when.call is None:
            return conditions.compiled(node.when, where)
        reference, _, step = node.when.call.partition("#")
        graph: Any = self._imported(reference, f"{where}, condition")
        held = getattr(graph, "conditions", {}).get(step)
        if held is None:
            raise DefinitionError(f"{where}: {reference} is no graph with a condition at a step {step!r}")
        found: conditions.Compiled = held
        return found

    def _imported(self, reference: str, where: str) -> Any:
        allowed = self.imports if isinstance(self.imports, bool) else reference.partition(":")[0] in self.imports
        if not allowed:
            raise DefinitionError(
                f"{where}: {reference!r} is not known here, and a document may import nothing unless that is allowed "
                "(imports=True, or `perdure run` on the file)"
            )
        return imported(reference, where)
