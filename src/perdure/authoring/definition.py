"""A graph as a workflow: its definition bound to its tasks; built by hand here, by tracing in `graph.py`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, Optional, ParamSpec, TypeVar, cast

import msgspec

from perdure.authoring import document
from perdure.authoring.ambient import current
from perdure.authoring.argument import literal
from perdure.authoring.check import check
from perdure.authoring.compensation import check_compensation
from perdure.authoring.condition import Compiled
from perdure.authoring.draft import Activity, Drafts
from perdure.authoring.reference import reference_to
from perdure.errors import DefinitionError, NotInWorkflow
from perdure.model.graph import (
    Argument,
    Condition,
    GraphDefinition,
    InputRef,
    Join,
    Node,
    StepRef,
    definition_hash,
    dependencies,
)
from perdure.model.payload import Shape, Signature
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec

P = ParamSpec("P")
R = TypeVar("R")


class Graph(WorkflowSpec, Generic[P, R], eq=False):
    """A workflow written as a graph: `.definition` is its frozen data."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        scope = current.get()
        if scope is None:
            called = getattr(self.fn, "__name__", self.name)
            hint = f"start it with perdure.run({called}, ...) or engine.start({called}, ...), or call it in a @workflow"
            raise NotInWorkflow(self.name, hint)
        return cast("Awaitable[R]", scope.call_workflow(self, args, kwargs))

    @property
    def definition(self) -> GraphDefinition:
        """`(N, A, D, C, P)` as frozen data."""
        assert self.graph is not None
        return self.graph

    def to_json(self) -> str:
        """The definition as a JSON document."""
        return document.to_json(self.definition, self.references())

    def to_yaml(self) -> str:
        """The definition as a YAML document."""
        return document.to_yaml(self.definition, self.references())

    def references(self) -> dict[str, str]:
        """ "module:name" of each task and workflow that a module holds, by its name in the definition."""
        found: dict[str, str] = {}
        for node in self.definition.nodes:
            if node.task not in found:
                reference = reference_to(self.workflows[node.task] if node.child else self.tasks[node.name])
                if reference is not None:
                    found[node.task] = reference
        return found

    def __str__(self) -> str:
        return str(self.definition)

    def __repr__(self) -> str:
        return f"<graph {self.name} (version {self.version}), {len(self.definition.nodes)} steps>"


class GraphBuilder:
    """Builds a graph by hand.

        build = GraphBuilder("etl", parameters=["day"])
        raw = build.add(extract, args={"day": build.input("day")})
        build.add(load, name="load", args={"rows": raw}, when="extract.rows > 0", join="done")
        etl = build.build(output=build.step("load"))

    Shape: `parameters` are names, or names with their defaults (`...`: none). Steps may refer to others that are added
           later. `module` is that which holds the graph, where another graph shall refer to it by "module:name".
    """

    def __init__(
        self, name: str, *, version: str = "1", parameters: Iterable[str] | Mapping[str, Any] = (), module: str = ""
    ) -> None:
        self.name, self.version = name, version
        self.parameters = tuple(parameters)
        where = f"graph {name}, default of"
        values = parameters if isinstance(parameters, Mapping) else {}
        self.defaults = {
            key: literal(value, f"{where} {key}").value for key, value in values.items() if value is not ...
        }
        self.module = module
        self._drafts = Drafts(name)

    def input(self, name: str, *path: str | int) -> InputRef:
        """A parameter of the graph, or what lies in it."""
        return InputRef(name, path)

    def step(self, name: str, *path: str | int) -> StepRef:
        """The result of a step, or what lies in it; the step may be added later."""
        return StepRef(name, path)

    def add(
        self,
        task: Activity,
        *,
        name: str | None = None,
        args: Mapping[str, Any] | None = None,
        after: Iterable[Any] = (),
        join: Join = "succeeded",
        when: Callable[..., Any] | str | Condition | None = None,
        map: str | None = None,  # noqa: A002
    ) -> StepRef:
        """Add a step and give the reference to its result.

        Shape: `args` by parameter name: literals, references, and lists and mappings of them; `after` names or
               references; `map` names the argument that fans out.
        Raises: `DefinitionError` naming the step and what is wrong with it.
        """
        if not isinstance(task, TaskSpec | WorkflowSpec):
            raise DefinitionError(f"graph {self.name}: add() takes a task or a workflow, not {task!r}")
        draft = self._drafts.add(task, name)
        draft.map = map
        for key, value in (args or {}).items():
            self._drafts.set_argument(draft, key, value)
        draft.add_after(after, join)
        if when is not None:
            draft.set_condition(when)
        return StepRef(draft.name)

    def build(self, output: Any = None, *, source: str = "", compensate: TaskSpec | None = None) -> Graph[..., Any]:
        """The graph, checked. Shape: `output` is a reference, or nested references; None: all leaves by name.

        Raises: `DefinitionError` naming the path of what is wrong.
        """
        return frozen(
            self._drafts, (self.name, self.version), self.parameters, output, defaults=self.defaults,
            module=self.module, source=source, compensate=compensate,
        )  # fmt: skip


def frozen(
    drafts: Drafts, names: tuple[str, str], parameters: tuple[str, ...], output: Any, **more: Any
) -> Graph[..., Any]:
    """A graph of what was drafted. Shape: `names` are its name and version; `more` as for `assemble`, and `defaults`.

    Raises: `DefinitionError`.
    """
    given: Argument | None = None
    if output is not None:
        given = drafts.arguments.of(output, f"{drafts.where}, output")
    nodes = drafts.freeze(parameters, names[0])
    definition = GraphDefinition(*names, parameters, nodes.nodes, given, more.pop("defaults"))
    return assemble(definition, nodes.activities, nodes.conditions, **more)


def assemble(
    definition: GraphDefinition,
    activities: Mapping[str, Activity],
    conditions: Mapping[str, Compiled],
    *,
    fn: Callable[..., Any] | None = None,
    signature: Signature | None = None,
    source: str = "",
    module: str = "",
    compensate: TaskSpec | None = None,
) -> Graph[..., Any]:
    """A definition bound to what its nodes run, checked.

    Shape: `activities` and `conditions` by the node's name; `fn` is the function that was traced.
    Raises: `DefinitionError` naming the path of what is wrong.
    """
    check(definition)
    where = f"graph {definition.name}"
    known: set[tuple[int, tuple[str, ...]]] = set()
    for node in definition.nodes:
        spec = activities[node.name]
        key = (id(spec.signature), tuple(node.args))
        if key not in known:
            _check_arguments(f"{where}, step {node.name}", node, spec)
            known.add(key)
        if node.when is not None and node.name not in conditions:
            raise DefinitionError(f"{where}, step {node.name}: the code of its condition {node.when.call} is not here")
    signature = signature or _signature(definition, where)
    check_compensation(where, signature, compensate)
    result = signature.result if signature.result is not Any else _result(definition, activities)
    return Graph(
        name=definition.name,
        version=definition.version,
        kind="graph",
        signature=signature,
        result=Shape(result, f"result of {where}"),
        definition_hash=definition_hash(definition),
        source=source,
        module=module,
        fn=fn,
        graph=definition,
        tasks={name: spec for name, spec in activities.items() if isinstance(spec, TaskSpec)},
        workflows={spec.name: spec for spec in activities.values() if isinstance(spec, WorkflowSpec)},
        conditions=dict(conditions),
        compensate=compensate,
    )


def _check_arguments(where: str, node: Node, spec: Activity) -> None:
    signature = spec.signature
    unknown = [name for name in node.args if name not in signature.names]
    missing = [name for name in signature.required if name not in node.args]
    if unknown:
        raise DefinitionError(f"{where}: {spec.name} has no parameter {unknown[0]!r}; it takes {signature.describe()}")
    if missing:
        raise DefinitionError(f"{where}: no argument for {missing[0]!r}; {spec.name} takes {signature.describe()}")


def _signature(definition: GraphDefinition, where: str) -> Signature:
    """The parameters of a graph that is data: of any type; by name only where a default stands before the last."""
    given = [name in definition.defaults for name in definition.parameters]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if given == sorted(given) else inspect.Parameter.KEYWORD_ONLY
    defaults = {name: msgspec.json.decode(raw) for name, raw in definition.defaults.items()}
    empty = inspect.Parameter.empty
    parameters = (
        inspect.Parameter(n, kind, default=defaults.get(n, empty), annotation=Any) for n in definition.parameters
    )
    return Signature(where, tuple(parameters), Any)


def _result(definition: GraphDefinition, activities: Mapping[str, Activity]) -> Any:
    """The annotation of the run's result, where it is a single step's; None when that can be skipped."""
    output = definition.output
    if not isinstance(output, StepRef) or output.path:
        return Any
    node = next(node for node in definition.nodes if node.name == output.step)
    result = activities[node.name].result.annotation
    if node.map is not None:
        result = list[result]  # type: ignore[valid-type]
    plain = all(one.when is None and one.join == "succeeded" for one in definition.nodes)
    return result if plain else Optional[result]  # noqa: UP045


__all__ = ["Graph", "GraphBuilder", "assemble", "dependencies", "frozen"]
