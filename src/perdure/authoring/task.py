"""@task: an activity, from a plain or async function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from perdure.authoring.ambient import current
from perdure.authoring.compensation import check_compensation
from perdure.authoring.transaction import check_transaction
from perdure.errors import DefinitionError, NotInWorkflow
from perdure.model.duration import duration_us
from perdure.model.payload import Shape, Signature
from perdure.model.policy import ONCE, Retry
from perdure.model.task import TaskSpec

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = frozenset(
    {
        "name", "retry", "timeout", "deadline", "heartbeat", "compensate", "raises", "pool",
        "at_most_once", "probe", "concurrency", "priority", "needs", "queue", "transaction",
    }
)  # fmt: skip
PRIORITIES = ("low", "normal", "high")


class Task(TaskSpec, Generic[P, R], eq=False):
    """A task that can be called inside a workflow; `.fn` is the plain function."""

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        scope = current.get()
        if scope is None:
            raise NotInWorkflow(self.name, _ways_to_call(self))
        return cast("Awaitable[R]", scope.call_task(self, args, kwargs))

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """In a graph: one step for each item of the first argument. In a flow: a list of steps."""
        scope = current.get()
        if scope is None:
            raise NotInWorkflow(f"{self.name}.map", _ways_to_call(self, ".map"))
        return scope.map_task(self, args, kwargs)

    def options(self, **options: Any) -> Task[P, R]:
        """The same task with other options for the calls made through it.

        Raises: `DefinitionError` for an unknown option or a bad value.
        """
        if "transaction" in options:
            raise DefinitionError(
                f"task {self.name}: transaction= belongs to the task itself, since an attempt looks there for what an "
                "earlier one did: give it in @task(...)"
            )
        return configured(self, options)


def _ways_to_call(spec: TaskSpec, how: str = "") -> str:
    """What to write instead. Shape: the task as the code calls it, which need not be the task's name."""
    called = getattr(spec.fn, "__name__", spec.name)
    plain = f"for the plain function, without a record, call {called}.fn(...)"
    if how:
        plain += " for each item"
    return f"{plain}; for a durable step call {called}{how}(...) in a @workflow or @graph, and run that with perdure.run(...)"


class _Decorator(Protocol):
    """What `@task(...)` gives: it makes a task of the function below it."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(fn: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Any) -> _Decorator: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task of a function.

    Shape: `retry=Retry(...)`, `timeout=` of one attempt, `deadline=` of the step with all its attempts,
           `heartbeat=` the longest silence between two heartbeats, `compensate=` a task that gets the arguments,
           then the result, `raises=` exception types that come back as themselves, `pool=` "async", "thread" or
           "process", `at_most_once=` with `probe=`, `concurrency=` on one node, `priority=`, `needs=`, `queue=`,
           `name=`, `transaction=` the address of the database that it commits with, or True for the store's own.
    Raises: `DefinitionError` naming what is wrong.
    """
    if fn is None:
        return lambda function: _define(function, options)
    return _define(fn, options)


def _define(fn: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
    if not callable(fn) or isinstance(fn, TaskSpec):
        raise DefinitionError(f"@task takes a function, not {fn!r}")
    name = str(options.get("name") or getattr(fn, "__name__", "task"))
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"task {name}: it yields, and a step has one result: return a list")
    signature = Signature.of(fn, f"task {name}")
    is_async = inspect.iscoroutinefunction(fn)
    plain: Task[..., Any] = Task(
        name=name,
        fn=fn,
        signature=signature,
        result=Shape(signature.result, f"result of task {name}"),
        pool="async" if is_async else "thread",
    )
    return configured(plain, {key: value for key, value in options.items() if key != "name"})


def configured(spec: Task[P, R], options: Mapping[str, Any]) -> Task[P, R]:
    """A copy of the task with these options checked and set."""
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise DefinitionError(f"task {spec.name}: no option {min(unknown)!r}; there are {', '.join(sorted(_OPTIONS))}")
    changed: dict[str, Any] = {field: getattr(spec, field) for field in TaskSpec.__struct_fields__}
    for key, value in options.items():
        if key in {"timeout", "deadline", "heartbeat"}:
            changed[f"{key}_us"] = None if value is None else duration_us(value, f"task {spec.name}: {key}=")
        elif key == "retry":
            changed["retry"] = _checked_retry(spec.name, value)
        elif key == "raises":
            changed["raises"] = _exceptions(spec.name, value)
        else:
            changed[key] = value
    made: Task[P, R] = Task(**changed)
    _check(made)
    return made


def _checked_retry(name: str, value: Any) -> Retry:
    if value is None:
        return ONCE
    if not isinstance(value, Retry):
        raise DefinitionError(f"task {name}: retry={value!r} is no perdure.Retry(...)")
    return value


def _exceptions(name: str, value: Any) -> tuple[type[BaseException], ...]:
    types = value if isinstance(value, tuple | list) else (value,)
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise DefinitionError(f"task {name}: raises= takes exception types, not {kind!r}")
    return tuple(types)


def _check(spec: Task[Any, Any]) -> None:
    name, is_async = spec.name, inspect.iscoroutinefunction(spec.fn)
    if spec.pool not in {"async", "thread", "process"}:
        raise DefinitionError(f'task {name}: pool={spec.pool!r} is none of "async", "thread", "process"')
    if is_async != (spec.pool == "async"):
        kind = "an async" if is_async else "a sync"
        raise DefinitionError(f"task {name}: {kind} function cannot run with pool={spec.pool!r}")
    check_compensation(f"task {name}", spec.signature, spec.compensate)
    check_transaction(spec)
    if spec.probe is not None and not callable(getattr(spec.probe, "fn", spec.probe)):
        raise DefinitionError(f"task {name}: probe= takes a function, not {spec.probe!r}")
    if spec.probe is not None and not spec.at_most_once:
        raise DefinitionError(f"task {name}: probe= goes with at_most_once=True")
    if spec.concurrency is not None and (not isinstance(spec.concurrency, int) or spec.concurrency < 1):
        raise DefinitionError(f"task {name}: concurrency={spec.concurrency!r}: at least 1")
    if spec.priority not in PRIORITIES and (isinstance(spec.priority, bool) or not isinstance(spec.priority, int)):
        raise DefinitionError(
            f"task {name}: priority={spec.priority!r} is neither low, normal, high nor a whole number"
        )
    if not isinstance(spec.needs, Mapping):
        raise DefinitionError(f'task {name}: needs={spec.needs!r} is no mapping such as {{"cpu": 2}}')
    for resource, amount in spec.needs.items():
        if (
            not isinstance(resource, str)
            or isinstance(amount, bool)
            or not isinstance(amount, int | float)
            or not amount >= 0
        ):
            raise DefinitionError(f"task {name}: needs {resource!r}: {amount!r} is no amount of at least 0")
