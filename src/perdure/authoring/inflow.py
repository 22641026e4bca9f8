"""What a flow may ask for beside steps: time, chance, signals, variables, patches."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterator, MutableMapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from perdure.authoring.ambient import current, flow_scope
from perdure.model.duration import Duration, duration_us
from perdure.model.ids import check_id
from perdure.model.run import when
from perdure.model.text import check_signal_name, check_text

T = TypeVar("T")


def now() -> datetime:
    """The run's time (aware UTC): that of the fact folded last, the same on replay."""
    return when(flow_scope("now").now_us())


def random() -> float:
    """A number from 0 to below 1, the same on replay."""
    return (flow_scope("random").chance() >> 75) * 2.0**-53


def uuid() -> UUID:
    """A version 4 UUID, the same on replay."""
    return UUID(int=flow_scope("uuid").chance(), version=4)


def wait_signal(name: str, type: type[T] | Any = Any, timeout: Duration | None = None) -> Coroutine[Any, Any, T | Any]:
    """The next signal of this name that was not yet consumed, decoded as `type`.

    Raises: TimeoutError when none came within `timeout` of durable time.
    """
    flow_scope("wait_signal")  # refused at the call, not only where it is awaited
    check_signal_name(name)
    limit = None if timeout is None else duration_us(timeout, f"wait_signal({name!r}, timeout=)")
    return _next_signal(name, type, limit)


async def _next_signal(name: str, type: Any, limit: int | None) -> Any:
    return await flow_scope("wait_signal").wait_signal(name, type, limit)


def signal_run(run_id: str, name: str, value: Any = None) -> Any:
    """Send a signal to another run, exactly once, in the commit of this turn; awaiting it is allowed, not needed."""
    scope = flow_scope("signal_run")
    return scope.signal_run(check_id(run_id), check_signal_name(name), value)


def patched(id: str) -> bool:
    """Whether this run takes the new code: true for turns that happen now, false for those that happened before."""
    return flow_scope("patched").patched(check_text(id, "patched id", 200))


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this generation and begin the next with new input, under the same id."""
    flow_scope("continue_as_new").continue_as_new(args, kwargs)


def detach(child: Any) -> None:
    """Let a child run live on its own: this run neither waits for it nor takes it along."""
    flow_scope("detach").detach(child)


class _Variables(MutableMapping[str, Any]):
    """The running flow's variables: JSON values, visible from outside (V of the state)."""

    def __getitem__(self, key: str) -> Any:
        return flow_scope("variables").variables[key]

    def __setitem__(self, key: str, value: Any) -> None:
        flow_scope("variables").variables[key] = value

    def __delitem__(self, key: str) -> None:
        del flow_scope("variables").variables[key]

    def __iter__(self) -> Iterator[str]:
        return iter(flow_scope("variables").variables)

    def __len__(self) -> int:
        return len(flow_scope("variables").variables)

    def __repr__(self) -> str:
        scope = current.get()
        return f"variables({dict(self)!r})" if scope is not None else "variables (outside a workflow)"


variables: MutableMapping[str, Any] = _Variables()


class _FlowFilter(logging.Filter):
    """Lets a record pass when no flow runs, or when its turn happens now; marks it with the run's id."""

    def filter(self, record: logging.LogRecord) -> bool:
        scope = current.get()
        record.run = getattr(scope, "run_id", "")
        return bool(getattr(scope, "live", True))


log = logging.getLogger("perdure.flow")
log.addFilter(_FlowFilter())
