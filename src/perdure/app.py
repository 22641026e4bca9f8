"""The only place that composes rooms: `open`, `connect`, `run`, `arun`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from perdure.authoring.registry import Registry
from perdure.clock import EngineClock
from perdure.errors import BadCall, LoopRunning, NotAStore, WrongState
from perdure.model.ids import check_id
from perdure.model.message import Cancel, Resolve, Retry
from perdure.model.payload import input_hash
from perdure.model.run import Life, Outcome, RunRow
from perdure.model.text import redact
from perdure.model.workflow import WorkflowSpec
from perdure.monitoring.progress import Progress
from perdure.runtime.client import Client
from perdure.runtime.desk import Handle, encoded_input
from perdure.runtime.doubt import doubt_over, walls_seen
from perdure.runtime.engine import Engine
from perdure.runtime.figures import NodeFigures
from perdure.runtime.proxy import Blocking
from perdure.runtime.suspects import first_note
from perdure.runtime.ways import MENDED_BY_CODE
from perdure.settings import Settings
from perdure.state.memory import MemoryStore
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Query

DEFAULT_STORE = "sqlite:///./perdure.db"
# Unfinished runs with the same input, among which the newest of this version is resumed.
RESUMABLE_MAX = 100
# What persons said is taken up by the first sweep; this is for a store that takes no writes.
SAID_MAX_S, INBOX_MAX = 5.0, 10_000
# A stop that takes longer says so.
STOP_SAID_S = 0.5
Notice = Callable[[str], None]
T = TypeVar("T")


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
    store = await _engine_store(address, settings, wall, notice)
    try:
        note = msgspec.json.encode(first_note(registry.names(), wall))
        epoch, earlier, persisted = await store.claim(os.uname().nodename, os.getpid(), wall.now_us(), note)
        clock = EngineClock(persisted, seen=walls_seen(wall.sighting(), persisted, earlier))
        await doubt_over(clock)
        engine = Engine(store, settings, clock, registry, epoch=epoch, earlier=earlier)
        await engine.begin()
    except BaseException:
        await store.close()
        raise
    return engine


async def _engine_store(address: str, settings: Settings, wall: EngineClock, notice: Notice) -> Any:
    if address == "memory:":
        return MemoryStore()
    if is_postgres(address):
        return await _postgres(address, settings, wall)
    store = await SqliteStore.open_engine(
        sqlite_path(address),
        settings,
        wall,
        waiting=lambda pid: notice(f"waiting for the engine that holds {redact(address)} (pid {pid})"),
    )
    for text in store.notices:
        notice(text)
    return store


def is_postgres(address: Any) -> bool:
    """Whether an address names a store in PostgreSQL."""
    return isinstance(address, str) and address.startswith(("postgresql://", "postgres://"))


async def _postgres(address: str, settings: Settings, wall: EngineClock) -> Any:
    """Raises: `NotAStore` where the driver is missing."""
    try:
        room = import_module("perdure.state.postgres")  # its driver is an optional dependency
    except ImportError as error:
        raise NotAStore('a store in PostgreSQL needs asyncpg: pip install "perdure[postgres]"') from error
    return await room.PostgresStore.open(address, settings, wall)


def sqlite_path(address: str) -> str:
    """The file of a `sqlite:///…` address. Raises: `NotAStore` naming the forms that there are."""
    if not isinstance(address, str):
        raise NotAStore(f'store {address!r}: an address is a text, as "sqlite:///FILE.db"')
    if "?" in address:
        raise NotAStore(
            f"store {redact(address)!r}: an address has no part after a `?`: name the file alone, as sqlite:///FILE.db, "
            "and give settings as such (`perdure doctor --settings` lists them)"
        )
    if address.removeprefix("sqlite:///") and address.startswith("sqlite:///"):
        return address.removeprefix("sqlite:///")
    if "://" not in address and address.endswith((".db", ".sqlite", ".perdure")):
        return address
    if address == "memory:":
        raise NotAStore('store "memory:" ends with its program: name a file, sqlite:///FILE.db')
    raise NotAStore(
        f'store {redact(address)!r}: give "sqlite:///FILE.db" (four slashes for an absolute path), '
        '"postgresql://USER@HOST/DATABASE" or "memory:"'
    )


def connect(address: str = DEFAULT_STORE, workflows: Iterable[Any] = (), **settings: Any) -> Blocking:
    """A client of a store, in any process: `async with` in async code, plain `with` elsewhere; the same names."""
    made = Settings.from_environment(os.environ, **settings)
    registry = Registry(workflows)

    async def enter() -> Client:
        wall = EngineClock()
        if is_postgres(address):
            return Client(await _postgres(address, made, wall), made, wall, registry)
        return Client(await SqliteStore.open_client(sqlite_path(address), made), made, wall, registry)

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
    asked = Asked(workflow, args, kwargs, input=input, id=id, fresh=fresh, tags=tags)
    async with begun(asked, store_address(store), Settings.from_environment(os.environ), say) as (engine, handle):
        with Progress(NodeFigures(engine.node), handle.id, sys.stderr):
            return await handle.result()


def store_address(given: str | None = None) -> str:
    """The address of the store: as given, else PERDURE_STORE, else ./perdure.db."""
    if given or not (named := os.environ.get("PERDURE_STORE")):
        return given or DEFAULT_STORE
    if named != "memory:" and not is_postgres(named):
        try:
            sqlite_path(named)
        except NotAStore as error:
            raise NotAStore(f"PERDURE_STORE: {error}") from None
    return named


class Asked(msgspec.Struct, frozen=True):
    """What a call of `run` asks for.

    Shape: the input is `input` by name where that is given, else `args` and `kwargs`.
    """

    workflow: WorkflowSpec
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    input: Mapping[str, Any] | None = None
    id: str | None = None
    fresh: bool = False
    tags: Mapping[str, str] | None = None

    def encoded(self, limit: int) -> bytes:
        """Raises: `BadArgument`, `NotEncodable`, `TooLarge`."""
        return encoded_input(self.workflow, self.args, self.kwargs, by_name=self.input, limit=limit)


@asynccontextmanager
async def begun(asked: Asked, address: str, settings: Settings, notice: Notice) -> AsyncIterator[tuple[Engine, Handle]]:
    """An engine with the run that is asked for, new or resumed; all that can be wrong with the call is found before.

    Raises: `BadCall` and its kin; the errors of the store.
    """
    raw = asked.encoded(settings.payload_max)
    if asked.id is not None:
        check_id(asked.id)
    workflow = asked.workflow
    engine = await open_engine(address, Registry([workflow]), settings, notice)
    try:
        row = await resumable(engine, asked, raw)
        if row is not None:
            await resume(engine, row, notice)
            handle = Handle(engine, row.id, workflow.result)
        else:
            handle = await engine.start(
                workflow, *asked.args, id=asked.id, tags=asked.tags, input=asked.input, **asked.kwargs
            )
        yield engine, handle
    finally:
        await engine.stop()


async def resumable(engine: Engine, asked: Asked, raw: bytes) -> RunRow | None:
    """The newest unfinished run of this workflow with this input: the one of the id asked for, or from the same file.

    Raises: `BadCall` when a fresh run is asked for under the id of another.
    """
    workflow, life = asked.workflow, (Life.LIVE, Life.QUEUED, Life.ATTENTION)
    same = Query(workflow=workflow.name, input_hash=input_hash(raw), life=life, limit=RESUMABLE_MAX)
    if asked.id is not None:
        if asked.fresh and await engine.store.find(Query(ids=(asked.id,), limit=1)):
            raise BadCall(f"run {asked.id!r} exists: a fresh run needs another id, or none")
        rows = await engine.store.find(msgspec.structs.replace(same, ids=(asked.id,)))
    elif asked.fresh:
        return None
    else:
        rows = await engine.store.find(msgspec.structs.replace(same, source=workflow.source, roots=True))
    return next((row for row in rows if row.version == workflow.version), None)


async def resume(engine: Engine, row: RunRow, notice: Notice) -> None:
    """Say which run goes on and how many steps it keeps; one whose code may have been mended is tried again."""
    if row.life is Life.ATTENTION:
        await said_by_persons(engine, row.id)
        row = await engine.row(row.id)
    if row.life is Life.ATTENTION:
        outcome = msgspec.json.decode(row.outcome or b"{}", type=Outcome)
        if outcome.cause not in MENDED_BY_CODE:
            return
        with suppress(WrongState):  # code that has changed is tried again by the engine itself
            await engine.retry(row.id, why="run again")
    state = await engine.state(row.id)
    ends = [entry for entry in state.history if entry.kind in {"step_completed", "child_ended"}]
    kept = sum(entry.detail.get("epoch") != engine.epoch for entry in ends)  # those of now are no news
    notice(f"resumed run {row.id}: {kept:,} step{'s' * (kept != 1)} kept")


async def said_by_persons(engine: Engine, run_id: str) -> None:
    """Wait until what persons said about a run that needs attention is taken up."""
    until = engine.clock.monotonic() + SAID_MAX_S
    while engine.clock.monotonic() < until:
        waiting = await engine.store.inbox(0, INBOX_MAX)
        if not any(one.message.run == run_id and isinstance(one.message, Resolve | Retry | Cancel) for one in waiting):
            return
        await asyncio.sleep(0.01)


def run(workflow: WorkflowSpec, *args: Any, **options: Any) -> Any:
    """`arun` for plain programs: runs its own loop. Ctrl-C and SIGTERM stop the engine, never the run.

    Raises: `LoopRunning` where a loop runs already; `Stopped` (a KeyboardInterrupt) and SystemExit(143) when stopped.
    """
    if sys._getframe(1).f_globals.get("__name__") == "__mp_main__":  # the module that calls
        raise BadCall(
            "run() was called while a pool's process imports this module: put what starts runs "
            'below `if __name__ == "__main__":`'
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise LoopRunning("an event loop runs here already: use `await perdure.arun(...)`")
    left = "stopped; the run goes on when the same command is given again"
    return Stopper(lambda: left).run(arun(workflow, *args, **options))


class Stopped(SystemExit, KeyboardInterrupt):
    """Ctrl-C stopped a run: a KeyboardInterrupt that, uncaught, ends the program with 130 and without a traceback."""


class Stopper:
    """Runs a coroutine until it ends or a signal stops it: the first stops the engine, a second everything at once.

    Shape: `left` gives the text that says how what was stopped goes on.
    """

    def __init__(self, left: Callable[[], str], notice: Notice = say) -> None:
        self.left, self.notice = left, notice
        self.caught: int | None = None

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Raises: `Stopped`, a KeyboardInterrupt, or SystemExit(143) when a signal stopped it."""
        try:
            return asyncio.run(self._guarded(coro))
        except asyncio.CancelledError:
            if self.caught is None:
                raise
        self.notice(self.left())
        if self.caught == signal.SIGINT:
            raise KeyboardInterrupt if hasattr(sys, "ps1") else Stopped(128 + self.caught)
        raise SystemExit(128 + self.caught)

    async def _guarded(self, coro: Coroutine[Any, Any, T]) -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(coro)
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._stop, number, task)
            except (ValueError, RuntimeError, NotImplementedError):
                continue  # not the main thread: its owner handles signals
        return await task

    def _stop(self, number: int, task: asyncio.Future[Any]) -> None:
        if self.caught is not None:
            os._exit(128 + number)
        self.caught = number
        task.cancel()
        asyncio.get_running_loop().call_later(
            STOP_SAID_S, self.notice, "stopping: what is in hand may end first; once more stops at once"
        )
