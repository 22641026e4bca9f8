"""Where a call is made: in a flow, while a graph is traced, in a task, or in plain Python."""

from __future__ import annotations

from collections.abc import Awaitable, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from perdure.errors import NotInWorkflow

if TYPE_CHECKING:
    from perdure.model.task import TaskSpec
    from perdure.model.workflow import WorkflowSpec


class Scope(Protocol):
    """What turns a call of a task or workflow into a step: a flow, or a graph that is traced."""

    def call_task(self, task: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def map_task(self, task: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def call_workflow(self, workflow: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for something that this scope does not offer."""


class FlowScope(Scope, Protocol):
    """What a flow offers beside steps."""

    run_id: str
    variables: MutableMapping[str, Any]
    live: bool

    def now_us(self) -> int: ...

    def chance(self) -> int:
        """128 bits from the run's seed and the scope's ordinal."""

    def patched(self, id: str) -> bool: ...

    def wait_signal(self, name: str, type: Any, timeout_us: int | None) -> Awaitable[Any]: ...

    def signal_run(self, run_id: str, name: str, value: Any) -> Awaitable[None]: ...

    def detach(self, child: Any) -> None: ...

    def continue_as_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn: ...


current: ContextVar[Scope | None] = ContextVar("perdure_scope", default=None)


def flow_scope(name: str) -> FlowScope:
    """The flow that is running. Raises: `NotInWorkflow` naming the function that was called."""
    scope = current.get()
    if scope is None:
        raise NotInWorkflow(name, f"{name} works inside a @workflow only; run that with perdure.run(...)")
    if not hasattr(scope, "now_us"):
        scope.refuse(name)
    return scope  # type: ignore[return-value]
