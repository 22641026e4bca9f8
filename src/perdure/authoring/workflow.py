"""@workflow: a flow, from an async function."""

from __future__ import annotations

import inspect
import os
import sys
import textwrap
from collections.abc import Awaitable, Callable
from types import CodeType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from perdure.authoring.ambient import current
from perdure.authoring.compensation import check_compensation
from perdure.authoring.guard import guarded
from perdure.errors import DefinitionError, NotInWorkflow
from perdure.model.ids import short_hash
from perdure.model.payload import Shape, Signature
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec

P = ParamSpec("P")
R = TypeVar("R")


class Flow(WorkflowSpec, Generic[P, R], eq=False):
    """A workflow written as an async function; `.fn` is that function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        scope = current.get()
        if scope is None:
            called = getattr(self.fn, "__name__", self.name)
            raise NotInWorkflow(
                self.name,
                f"start it with perdure.run({called}, ...) or engine.start({called}, ...), or call it in a @workflow",
            )
        return cast("Awaitable[R]", scope.call_workflow(self, args, kwargs))


@overload
def workflow(fn: Callable[P, Awaitable[R]], /) -> Flow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, version: str = "1", compensate: TaskSpec | None = None
) -> Callable[[Callable[P, Awaitable[R]]], Flow[P, R]]: ...
def workflow(
    fn: Any = None, /, *, name: str | None = None, version: str = "1", compensate: TaskSpec | None = None
) -> Any:
    """Make a workflow of an async function.

    Shape: known by (name, version); `compensate` undoes a completed run of it where a parent fails later.
    Raises: `DefinitionError` naming what is wrong.
    """
    if fn is None:
        return lambda function: _define(function, name, version, compensate)
    return _define(fn, name, version, compensate)


def _define(fn: Any, name: str | None, version: str, compensate: TaskSpec | None) -> Flow[..., Any]:
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(f"@workflow takes an `async def` function, not {fn!r}")
    if not isinstance(version, str) or not version:
        raise DefinitionError(f'workflow {fn.__name__}: version={version!r} is no text such as "2"')
    called = name or fn.__name__
    signature = Signature.of(fn, f"workflow {called}")
    check_compensation(f"workflow {called}", signature, compensate)
    return Flow(
        name=called,
        version=version,
        kind="flow",
        signature=signature,
        result=Shape(signature.result, f"result of workflow {called}"),
        definition_hash=_source_hash(fn),
        source=source_file(fn),
        module=fn.__module__,
        fn=guarded(fn),
        compensate=compensate,
    )


def _source_hash(fn: Callable[..., Any]) -> str:
    """The hash of the function's source, or of its code where there is no source to read."""
    try:
        text = textwrap.dedent(inspect.getsource(fn)).encode()
    except (OSError, TypeError):
        text = _code_text(fn.__code__).encode()
    return short_hash(text)


def _code_text(code: CodeType) -> str:
    """What a function does, where there is no source: its code, names and constants, those of inner functions too."""
    constants = [_code_text(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def source_file(fn: Callable[..., Any]) -> str:
    """The file that a run is resumed from (S23): that of the module, or of the program when it is the main one."""
    module = sys.modules.get(fn.__module__)
    name = str(getattr(module, "__file__", "") or fn.__code__.co_filename)
    return os.path.realpath(name) if os.path.exists(name) else name  # noqa: PTH110 - it may be no path at all
