"""@graph: a workflow as a graph of steps, from a function that is traced once, when it is defined."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn, overload

import msgspec

from perdure.authoring.ambient import current
from perdure.authoring.argument import literal
from perdure.authoring.definition import Graph, frozen
from perdure.authoring.draft import Activity, Drafts
from perdure.authoring.placeholder import Placeholder, Step
from perdure.authoring.workflow import source_file
from perdure.errors import DefinitionError
from perdure.model.graph import InputRef
from perdure.model.payload import Signature
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec


class Tracer:
    """The scope in which a graph's function is called: each call of a task or workflow makes a step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.drafts = Drafts(name)

    def call_task(self, task: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        return self._call(task, args, kwargs)

    def map_task(self, task: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        return self._call(task, args, kwargs, fan=True)

    def call_workflow(self, workflow: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        return self._call(workflow, args, kwargs)

    def _call(self, spec: Activity, args: tuple[Any, ...], kwargs: dict[str, Any], *, fan: bool = False) -> Step:
        draft = self.drafts.add(spec)
        self.drafts.bind(draft, args, kwargs, fan=fan)
        return Step(draft, self.drafts)

    def refuse(self, what: str) -> NoReturn:
        raise DefinitionError(
            f"graph {self.name}: {what} works while a flow runs, but a graph is traced before any run: "
            "call it in a @workflow, or do it in a task"
        )


@overload
def graph(fn: Callable[..., Any], /) -> Graph[..., Any]: ...
@overload
def graph(
    *, name: str | None = None, version: str = "1", compensate: TaskSpec | None = None
) -> Callable[[Callable[..., Any]], Graph[..., Any]]: ...
def graph(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "1",
    compensate: TaskSpec | None = None,
) -> Any:
    """Make a graph of a function: it is called once, now, and what it calls become the steps.

    Shape: known by (name, version); `compensate` undoes a completed run of it where a parent fails later.
    Raises: `DefinitionError` naming the path of what is wrong.
    """
    if fn is None:
        return lambda function: _define(function, name, version, compensate)
    return _define(fn, name, version, compensate)


def _define(fn: Callable[..., Any], name: str | None, version: str, compensate: TaskSpec | None) -> Graph[..., Any]:
    called = str(name or getattr(fn, "__name__", "graph"))
    if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or not inspect.isfunction(fn):
        raise DefinitionError(f"@graph takes a plain `def` function, which is traced and not awaited; {called} is none")
    signature = Signature.of(fn, f"graph {called}")
    tracer = Tracer(called)
    output = _trace(fn, signature, tracer)
    defaults = _defaults(signature, called)
    return frozen(
        tracer.drafts, (called, version), signature.names, output, defaults=defaults, signature=signature,
        fn=fn, source=source_file(fn), module=fn.__module__, compensate=compensate,
    )  # fmt: skip


def _trace(fn: Callable[..., Any], signature: Signature, tracer: Tracer) -> Any:
    args: list[Placeholder] = []
    kwargs: dict[str, Placeholder] = {}
    for parameter in signature.parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise DefinitionError(
                f"graph {tracer.name}: {parameter} has no fixed number of parameters: name each, or take a list"
            )
        placeholder = Placeholder(InputRef(parameter.name), tracer.drafts)
        if parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = placeholder
        else:
            args.append(placeholder)
    token = current.set(tracer)
    try:
        return fn(*args, **kwargs)
    finally:
        current.reset(token)


def _defaults(signature: Signature, name: str) -> dict[str, msgspec.Raw]:
    found: dict[str, msgspec.Raw] = {}
    for parameter, shape in zip(signature.parameters, signature.shapes, strict=True):
        if parameter.default is not parameter.empty:
            found[parameter.name] = literal(
                parameter.default, f"graph {name}, default of {parameter.name}", shape
            ).value
    return found
