"""The flow loop's futures, tasks and handles: asyncio's own in C, with the order of sets made repeatable (S5)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from perdure.errors import Dropped, NotDurable

if TYPE_CHECKING:
    from perdure.kernel.flow import Flow
    from perdure.kernel.loop import FlowLoop
    from perdure.model.task import TaskSpec

# What stands before the name in the key of a step that another task of the flow made (S6).
_SCOPE = re.compile(r"(?:\d+\.)+|callback\.")


class Handle:
    """A callback that is ready to run."""

    __slots__ = ("args", "call", "context", "dead")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.call, self.args, self.context = call, args, context
        self.dead = False

    def cancel(self) -> None:
        self.dead = True

    def cancelled(self) -> bool:
        return self.dead


class Timer(Handle):
    """A durable timer. Units: `due` microseconds since 1970 UTC."""

    __slots__ = ("due", "key", "loop", "order")

    def __init__(
        self, loop: FlowLoop, due: int, key: str, call: Callable[..., Any], *, order: int, args: tuple[Any, ...],
        context: Context,
    ) -> None:  # fmt: skip
        super().__init__(call, args, context)
        self.loop, self.due, self.order, self.key = loop, due, order, key

    def __lt__(self, other: Timer) -> bool:
        return (self.due, self.order) < (other.due, other.order)

    def when(self) -> float:
        return self.due / 1e6

    def cancel(self) -> None:
        if not self.dead:
            self.dead = True
            self.loop.timer_cancelled()


class FlowFuture(asyncio.Future[Any]):
    __slots__ = ("_ordinal",)

    def __init__(self, loop: FlowLoop) -> None:
        self._ordinal = loop.ordinal()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._ordinal


def untie(future: Any) -> None:
    """Let a future of a dropped loop forget its callbacks.

    It and the task that waits for it hold each other, and the loop with them: a hundred thousand sleeping runs would
    stay in memory until the collector comes round to the oldest.
    """
    if isinstance(future, asyncio.Future) and not future.done():
        with suppress(Dropped):  # its callbacks find no loop to run on, and are gone
            asyncio.Future.cancel(future)


class FlowTask(asyncio.Task[Any]):
    """A task of a flow: its scope names it (S6), `counts` gives the ordinals within it."""

    __slots__ = ("_ordinal", "counts", "kids", "scope")

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: FlowLoop, scope: str, context: Context | None) -> None:
        self._ordinal = loop.ordinal()
        self.scope = scope
        self.kids = 0
        self.counts: dict[str, int] = {}
        super().__init__(coro, loop=loop, name=scope or "flow", context=context)

    def __hash__(self) -> int:
        return self._ordinal


class Awaited(asyncio.Future[Any]):
    """A result that a flow must await; what would take it for the result itself is refused where it can be (S29).

    An f-string over one would embed nonsense in silence, and other nonsense on replay: the text has its address.
    """

    __slots__ = ()

    key: str

    def __str__(self) -> str:
        raise NotDurable(
            f"the text of {self.key}, which is no result before it is awaited,", f"`await {_called(self)}`"
        )

    def __format__(self, spec: str) -> str:
        return str(self)


def lacking(error: AttributeError) -> str:
    """What to say of an attribute that was looked for on a step that was not awaited; else nothing.

    A `__getattr__` of the class would say it at once, and make every look at a step slower: a twentieth of its time.
    """
    if not isinstance(error.obj, Awaited):
        return ""
    return f"{_called(error.obj)} was not awaited, so it has no attribute {error.name!r}: write `await` before it"


def _called(one: Awaited) -> str:
    """The call as it may stand in the code."""
    name = one.key.rpartition("#")[0]
    return f"{name[found.end() if (found := _SCOPE.match(name)) else 0 :]}(...)"


class Step(Awaited):
    """One use of a task in a flow: an awaitable, and an activity (see `model.command.Activity`)."""

    __slots__ = (
        "_ordinal", "args", "ask", "asked_at", "asked_seq", "attempt", "due", "flow", "forgiven", "generation",
        "given_up", "intent", "key", "spec", "values",
    )  # fmt: skip

    def __init__(self, flow: Flow, key: str, spec: TaskSpec, args: bytes, values: tuple[Any, ...], *, ask: int) -> None:
        self._ordinal = flow.ordinal()
        super().__init__(loop=flow)
        self.flow = flow
        self.key, self.spec, self.args, self.ask = key, spec, args, ask
        self.values: tuple[Any, ...] | None = values
        self.asked_seq = flow.seq
        self.asked_at = flow.now
        self.attempt = 1
        self.forgiven = 0
        self.generation = flow.steps_generation
        self.due: int | None = None
        self.intent = 0
        self.given_up = False

    def __hash__(self) -> int:
        return self._ordinal

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        self.flow.give_up(self)
        return True

    def inputs(self) -> tuple[Any, ...]:
        values, self.values = self.values, None
        return self.spec.signature.unpack(self.args) if values is None else values


class ChildStep(Awaited):
    """A child run that a flow called: an awaitable of its result."""

    __slots__ = ("_ordinal", "flow", "id", "key")

    def __init__(self, flow: Flow, key: str, id: str) -> None:
        self._ordinal = flow.ordinal()
        super().__init__(loop=flow)
        self.flow, self.key, self.id = flow, key, id

    def __hash__(self) -> int:
        return self._ordinal

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        child = self.flow.children.get(self.key)
        if child is not None:
            self.flow.give_up_child(child, str(msg or "the parent gave it up"))
        return True
