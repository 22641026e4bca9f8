"""What the commands have in common: their options, the session behind them, the client that they talk through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from perdure.app import connect, is_postgres, sqlite_path, store_address
from perdure.errors import NotAStore
from perdure.runtime.client import Client
from perdure.runtime.suspects import note_of
from perdure.state.sqlite_health import holder_of, newest_epochs

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """What was said about the whole call. Shape: `store` is an address."""

    def __init__(self) -> None:
        self.debug = False
        self.json = False
        self._store: str | None = None

    @property
    def store(self) -> str:
        return store_address(self._store)

    def set_store(self, address: str | None) -> None:
        self._store = address

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of a store that exists. Raises: `NotAStore` when there is none: nothing is made by looking."""
        self.must_exist()
        async with connect(self.store) as found:
            yield found

    def must_exist(self) -> None:
        """Raises: `NotAStore` when there is no store to look at."""
        if self.store == "memory:":
            raise NotAStore('store "memory:" ends with its program: name a file, sqlite:///FILE.db')
        if is_postgres(self.store):
            return
        path = Path(sqlite_path(self.store)).expanduser()
        if not path.exists():
            raise NotAStore(
                f"there is no store at {path}: `perdure run` makes one; --store or PERDURE_STORE names another"
            )


class EngineSeen(msgspec.Struct, frozen=True):
    """The engine that runs on a store now. Shape: `pid` is -1 when it cannot be told; `serves` (name, version)."""

    pid: int
    serves: frozenset[tuple[str, str]]


async def engine_of(client: Client) -> EngineSeen | None:
    """The engine that runs on the client's store; None when none does."""
    store: Any = client.store
    pid = holder_of(store)
    if not pid:
        return None
    epochs = await newest_epochs(store)
    return EngineSeen(pid, frozenset(note_of(epochs[0]).serves if epochs else ()))


async def say_whether_served(client: Client, asked: str) -> str:
    """What was asked for, and when it will be taken up."""
    seen = await engine_of(client)
    if seen is None:
        return f"{asked}; no engine runs on this store: the next one takes it up"
    return asked


# --- decorators ----------------------------------------------------------------------------------------


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> Any:
        session = ctx.ensure_object(Session)
        if name == "store":
            session.set_store(value)
        elif value:
            setattr(session, name, True)
        return value

    return callback


def command(
    name: str, short: str, *, examples: str, store: bool = True, as_json: bool = False
) -> Callable[[F], click.Command]:
    """A command with the options that all have; its function takes the session first."""
    lines = [f"  {line.strip()}" for line in examples.strip().splitlines()]
    title = "Example:" if len(lines) == 1 else "Examples:"

    def decorate(function: F) -> click.Command:
        made = click.command(name, short_help=short, epilog="\n".join(["\b", title, *lines]))(click.pass_obj(function))
        if store:
            made.params.append(_option("store", "The store; else PERDURE_STORE, else sqlite:///./perdure.db.", "URL"))
        if as_json:
            made.params.append(_option("json", "Print JSON."))
        made.params.append(_option("debug", "Show tracebacks of errors."))
        return made

    return decorate


def _option(name: str, what: str, metavar: str | None = None) -> click.Option:
    return click.Option(
        [f"--{name}"], is_flag=metavar is None, metavar=metavar, help=what, expose_value=False, callback=_set(name)
    )


def awaited(coro: Coroutine[Any, Any, T]) -> T:
    """Run a client's coroutine to its end."""
    return asyncio.run(coro)
