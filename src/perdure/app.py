"""The only place that composes rooms: `open`, `connect`, `run`, `arun`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from perdure.authoring.registry import Registry
from perdure.clock import EngineClock
from perdure.errors import BadCall, LoopRunning, NotAStore
from perdure.model.ids import check_id
from perdure.model.payload import input_hash
from perdure.model.run import Life
from perdure.model.workflow import WorkflowSpec
from perdure.monitoring.progress import Progress
from perdure.runtime.client import Client
from perdure.runtime.desk import Handle
from perdure.runtime.engine import Engine
from perdure.runtime.figures import NodeFigures
from perdure.runtime.proxy import Blocking
from perdure.settings import Settings
from perdure.state.memory import MemoryStore
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Query

DEFAULT_STORE = "sqlite:///./perdure.db"
Notice = Callable[[str], None]


def say(text: str) -> None:
    """A notice for people, on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place where the library speaks


class Opening:
    """What `open` returns: an engine while it is entered."""

    def __init__(self, address: str, workflows: Iterable[Any], settings: Settings, notice: Notice) -> None:
        self.address, self.settings, self.notice = address, settings, notice
        self.registry = Registry(workflows)
        self.engine: Engine | None = None

    async def __aenter__(self) -> Engine:
        self.engine = await open_engine(self.address, self.registry, self.settings, self.notice)
        return self.engine

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.engine is not None
        await self.engine.stop()


def open(address: str = DEFAULT_STORE, workflows: Iterable[Any] = (), **settings: Any) -> Opening:
    """An engine on a store: `async with perdure.open("sqlite:///orders.db", workflows=[fulfil]) as engine`.

    Shape: `workflows` are workflows, graphs and modules; `settings` as in `perdure.settings`.
    Raises: `BadCall` for a bad setting; on entering, `StoreLocked`, `NotAStore` and other store errors.
    """
    return Opening(address, workflows, Settings.from_environment(os.environ, **settings), say)


async def open_engine(address: str, registry: Registry, settings: Settings, notice: Notice) -> Engine:
    """Open the store, claim it, and let an engine move its runs."""
    wall = EngineClock()
    if address == "memory:":
        store: Any = MemoryStore()
    else:
        store = await SqliteStore.open_engine(
            sqlite_path(address),
            settings,
            wall,
            waiting=lambda pid: notice(f"waiting for the engine that holds {address} (pid {pid})"),
        )
        for text in store.notices:
            notice(text)
    epoch, earlier, persisted = await store.claim(os.uname().nodename, os.getpid(), wall.now_us())
    engine = Engine(store, settings, EngineClock(persisted), registry, epoch, earlier)
    await engine.begin()
    return engine


def sqlite_path(address: str) -> str:
    """The file of a `sqlite:///…` address. Raises: `NotAStore` naming the forms that there are."""
    if address.startswith("sqlite:///"):
        return address.removeprefix("sqlite:///")
    if "://" not in address and address.endswith((".db", ".sqlite", ".perdure")):
        return address
    raise NotAStore(f'store {address!r}: give "sqlite:///FILE.db" (four slashes for an absolute path) or "memory:"')


def connect(address: str = DEFAULT_STORE, workflows: Iterable[Any] = (), **settings: Any) -> Blocking:
    """A client of a store, in any process: `async with` in async code, plain `with` elsewhere; the same names."""
    made = Settings.from_environment(os.environ, **settings)
    registry = Registry(workflows)

    async def enter() -> Client:
        store = await SqliteStore.open_client(sqlite_path(address), made)
        return Client(store, made, EngineClock(), registry)

    return Blocking(enter)


# --- run -------------------------------------------------------------------------------------------


async def arun(
    workflow: WorkflowSpec, *args: Any, id: str | None = None, fresh: bool = False, store: str | None = None,
    tags: Mapping[str, str] | None = None, input: Mapping[str, Any] | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """Run a workflow to its end and return its result; an unfinished run of the same input and file is resumed.

    Shape: `fresh=True` starts anew; `id=` names the run; `store=` is an address, else PERDURE_STORE, else ./perdure.db.
    Raises: what the run ended with (`RunFailed`, `RunCancelled`, `NeedsAttention`).
    """
    if not isinstance(workflow, WorkflowSpec):
        raise BadCall(f"run() takes a workflow, not {workflow!r}: decorate it with @workflow or @graph")
    address = store or os.environ.get("PERDURE_STORE") or DEFAULT_STORE
    settings = Settings.from_environment(os.environ)
    if id is not None:
        check_id(id)
    if input is not None:
        raw = workflow.signature.from_names(dict(input), settings.payload_max)
    else:
        raw, _ = workflow.signature.pack(args, kwargs, settings.payload_max)
    engine = await open_engine(address, Registry([workflow]), settings, say)
    try:
        handle = None
        if id is None and not fresh:
            handle = await resumable(engine, workflow, raw)
        if handle is None:
            handle = await engine.start(workflow, *args, id=id, tags=tags, input=input, **kwargs)
        with Progress(NodeFigures(engine.node), handle.id, sys.stderr):
            return await handle.result()
    finally:
        await engine.stop()


async def resumable(engine: Engine, workflow: WorkflowSpec, raw: bytes) -> Handle | None:
    """The newest unfinished run of this workflow with this input from the same file, and a word about it on stderr."""
    rows = await engine.store.find(
        Query(
            life=(Life.LIVE, Life.QUEUED, Life.ATTENTION), workflow=workflow.name, input_hash=input_hash(raw),
            source=workflow.source, roots=True, limit=1,
        )
    )  # fmt: skip
    if not rows:
        return None
    row = rows[0]
    state = await engine.state(row.id)
    kept = sum(1 for entry in state.history if entry.kind in {"step_completed", "child_ended"})
    say(f"resumed run {row.id}: {kept} steps kept")
    if row.life is Life.ATTENTION:
        await engine.retry(row.id, why="run again")
    return Handle(engine, row.id, workflow.result)


def run(workflow: WorkflowSpec, *args: Any, **options: Any) -> Any:
    """`arun` for plain programs: runs its own loop. Ctrl-C and SIGTERM stop the engine, never the run.

    Raises: `LoopRunning` where a loop runs already; KeyboardInterrupt and SystemExit(143) when stopped.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise LoopRunning("an event loop runs here already: use `await perdure.arun(...)`")
    return Stopper().run(arun(workflow, *args, **options))


class Stopper:
    """Runs a coroutine until it ends or a signal stops it: the first stops the engine, a second everything at once."""

    def __init__(self) -> None:
        self.caught: int | None = None

    def run(self, coro: Any) -> Any:
        return asyncio.run(self._guarded(coro))

    async def _guarded(self, coro: Any) -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(coro)
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._stop, number, task)
            except (ValueError, RuntimeError, NotImplementedError):
                continue  # not the main thread: its owner handles signals
        try:
            return await task
        except asyncio.CancelledError:
            if self.caught is None:
                raise
            say("stopped; the run goes on when the same command is given again")
            if self.caught == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + self.caught) from None

    def _stop(self, number: int, task: Any) -> None:
        if self.caught is not None:
            os._exit(128 + number)
        self.caught = number
        task.cancel()
