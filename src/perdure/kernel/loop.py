"""The deterministic event loop that flows run on: no selector, no clock, no threads.

It has the ready queue and the timers; time is that of the fact folded last. What an ordinary loop offers
beyond that would differ on replay and is refused with the durable way named.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events, tasks
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, NoReturn, Protocol

from perdure.errors import Blocked, Dropped, NotDurable
from perdure.kernel.futures import FlowFuture, FlowTask, Handle, Timer

# Below this many timers, cancelled ones are not worth sorting out.
TIMERS_KEPT = 64
# What waits longer than this waits for ever; no time is after the last one. Units: seconds.
FOREVER_S = 36_525 * 86_400
LAST_S = 10 * FOREVER_S


class Closable(Protocol):
    """A coroutine, as far as leaving memory is concerned."""

    def close(self) -> None: ...


class EndlessTurn(Exception):
    """One turn ran more callbacks than its budget."""


class ContinueAsNew(BaseException):
    """Leaves the flow towards its next generation; carries the packed input."""

    def __init__(self, input: bytes) -> None:
        super().__init__("continue as new")
        self.input = input


class FlowLoop(asyncio.AbstractEventLoop):
    """Shape: `_timers` is a heap; cancelled ones are dropped when they reach its top or are more than half."""

    def start_loop(self, salt: int) -> None:
        self._ready: deque[Handle] = deque()
        self._timers: list[Timer] = []
        self._timers_dead = 0
        self._timer_count = 0
        self._ordinals = salt
        self._tasks: list[FlowTask] = []
        self._tasks_bound = 64
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._generators_bound = 64
        self.dropped = False

    def ordinal(self) -> int:
        """The next ordinal, salted with the run's id."""
        if self.dropped:
            raise Dropped
        self._ordinals += 1
        return self._ordinals

    # --- turns -------------------------------------------------------------------------------------

    def drain(self, budget: int) -> None:
        """Run what is ready until nothing is. Raises: `EndlessTurn` past the budget of callbacks."""
        ready = self._ready
        if not ready:
            return
        outer, hooks = events._get_running_loop(), sys.get_asyncgen_hooks()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(self._generator_begun, _left_alone)
        try:
            take = ready.popleft
            while ready:
                handle = take()
                if not handle.dead:
                    try:
                        handle.context.run(handle.call, *handle.args)
                    except (KeyboardInterrupt, Blocked):
                        raise
                    except BaseException as error:  # noqa: BLE001 - a callback's own, or a task's SystemExit: it holds that too
                        self.call_exception_handler({"message": f"in callback {handle.call!r}", "exception": error})
                    budget -= 1
                    if budget < 0:
                        raise EndlessTurn
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(outer)

    # --- what asyncio's primitives stand on ----------------------------------------------------------

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        if self.dropped:
            raise Dropped
        handle = Handle(callback, args, context or copy_context())
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self._arm(self._time_us() + _micros(min(delay, FOREVER_S)), callback, args, context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        now = self._time_us()
        return self._arm(min(max(now, _micros(when)), now + _micros(FOREVER_S)), callback, args, context)

    def _arm(self, due: int, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None) -> Timer:
        if self.dropped:
            raise Dropped
        self._timer_count += 1
        timer = Timer(
            self,
            due,
            self._timer_key(due),
            callback,
            order=self._timer_count,
            args=args,
            context=context or copy_context(),
        )
        heappush(self._timers, timer)
        return timer

    def timer_cancelled(self) -> None:
        self._timers_dead += 1
        if self._timers_dead > TIMERS_KEPT and self._timers_dead * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer.dead]
            heapify(self._timers)
            self._timers_dead = 0

    def top_timer(self) -> Timer | None:
        """The earliest timer that is armed."""
        timers = self._timers
        while timers:
            if not timers[0].dead:
                return timers[0]
            heappop(timers)
            self._timers_dead -= 1
        return None

    def fire(self, timer: Timer) -> None:
        """Make a timer's callback ready; it must be the top one."""
        heappop(self._timers)
        timer.dead = True
        self._ready.append(Handle(timer.call, timer.args, timer.context))

    def time(self) -> float:
        return self._time_us() / 1e6

    def create_future(self) -> FlowFuture:
        return FlowFuture(self)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None, **_: Any) -> Any:
        if self.dropped:
            coro.close()
            raise Dropped
        if asyncio.isfuture(coro):
            return coro  # a step has started already
        _refuse_as_completed(coro)
        parent = asyncio.current_task(self)
        if isinstance(parent, FlowTask):
            parent.kids += 1
            scope = f"{parent.scope}{parent.kids}."
        else:
            self._timer_count += 1
            scope = f"c{self._timer_count}."
        task = FlowTask(coro, self, scope, context)
        if name is not None:
            task.set_name(name)
        self._keep(task)
        return task

    def _keep(self, task: FlowTask) -> None:
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_bound:
            self._tasks = [kept for kept in self._tasks if not kept.done()]
            self._tasks_bound = max(64, 2 * len(self._tasks))

    def live_tasks(self) -> list[FlowTask]:
        """Tasks beside the main one that have not ended."""
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    def scope(self) -> FlowTask:
        """The task that is running. Raises: `RuntimeError` from a bare callback, which has no scope."""
        task = asyncio.current_task(self)
        if not isinstance(task, FlowTask):
            raise RuntimeError("a bare callback of the flow's loop cannot ask for steps: use asyncio.create_task(...)")
        return task

    def close_coroutine(self, coro: Closable) -> None:
        """Close a coroutine so that its cleanup can ask for nothing; what it raises then is of no account."""
        outer = events._get_running_loop()
        events._set_running_loop(self)
        try:
            coro.close()
        except BaseException as error:  # the run is leaving memory: user code may raise anything here
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            events._set_running_loop(outer)

    # --- facts about the loop ------------------------------------------------------------------------

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Unretrieved errors surface when the flow returns (S18); nothing is printed here."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """See `call_exception_handler`."""

    # --- async generators ----------------------------------------------------------------------------

    def _generator_begun(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Hold a generator, so that no collector chooses when its cleanup runs."""
        self._generators.append(generator)
        if len(self._generators) > self._generators_bound:
            self._generators = self.open_generators()
            self._generators_bound = max(64, 2 * len(self._generators))

    def open_generators(self) -> list[AsyncGenerator[Any, Any]]:
        """Those that were begun and have not ended, in the order of their begin."""
        return [kept for kept in self._generators if getattr(kept, "ag_frame", None) is not None]

    async def shutdown_asyncgens(self) -> None:
        """Close the generators that are open, as `asyncio.run` does at its end."""
        generators, self._generators = self.open_generators(), []
        await asyncio.gather(*(generator.aclose() for generator in generators), return_exceptions=True)

    def close_generators(self) -> None:
        """Close them at once; their cleanup can ask for nothing any more."""
        generators, self._generators = self.open_generators(), []
        for generator in generators:
            self.close_coroutine(_Closing(generator))

    def _time_us(self) -> int:
        raise NotImplementedError

    def _timer_key(self, due: int) -> str:
        raise NotImplementedError


class _Closing:
    """Closes an async generator with one push, for `close_coroutine`."""

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.generator = generator

    def close(self) -> None:
        self.generator.aclose().send(None)


def _left_alone(_: AsyncGenerator[Any, Any]) -> None:
    """A generator of a flow that has left memory: its cleanup must not run any more (S7)."""


def _micros(seconds: float) -> int:
    """Whole microseconds, from 0; what is longer than for ever is for ever."""
    if seconds != seconds:  # noqa: PLR0124 - only NaN differs from itself
        raise ValueError(f"{seconds} is no time to wait")
    return round(max(0.0, seconds) * 1_000_000) if seconds < LAST_S else LAST_S * 1_000_000


def _refuse_as_completed(coro: Any) -> None:
    """`as_completed` makes its tasks in the order of a set of coroutines, which differs from process to process."""
    frame: Any = sys._getframe(2)
    for _ in range(4):
        if frame is None or frame.f_code.co_filename != tasks.__file__:
            return
        if frame.f_code.co_name in {"as_completed", "__init__"}:
            coro.close()
            raise NotDurable(
                "as_completed of bare coroutines", "asyncio.as_completed([asyncio.create_task(c) for c in ...])"
            )
        frame = frame.f_back


def _refused(name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotDurable(f"loop.{name}()", instead)

    return refuse


_THREADS = "a @task (a sync function runs in a thread by itself)"
_NETWORK = "a @task that talks to the network"
for _name, _instead in {
    "run_in_executor": _THREADS,
    "call_soon_threadsafe": _THREADS,
    "set_default_executor": _THREADS,
    "shutdown_default_executor": _THREADS,
    "run_until_complete": "await",
    "run_forever": "await",
    "stop": "return",
    "close": "return",
    "add_signal_handler": "perdure.wait_signal(...)",
    "remove_signal_handler": "perdure.wait_signal(...)",
    "set_task_factory": "plain tasks",
    **dict.fromkeys(
        (
            "create_connection", "create_server", "create_unix_connection", "create_unix_server",
            "create_datagram_endpoint", "connect_accepted_socket", "getaddrinfo", "getnameinfo", "sock_recv",
            "sock_recv_into", "sock_sendall", "sock_connect", "sock_accept", "sock_sendfile", "sendfile", "start_tls",
            "add_reader", "remove_reader", "add_writer", "remove_writer", "connect_read_pipe", "connect_write_pipe",
            "subprocess_exec", "subprocess_shell",
        ),
        _NETWORK,
    ),
}.items():  # fmt: skip
    setattr(FlowLoop, _name, _refused(_name, _instead))
