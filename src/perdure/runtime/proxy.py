"""The sync face of the client: one generated proxy over a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any

from perdure.runtime.client import Client
from perdure.runtime.desk import Handle


class Blocking:
    """What `connect` returns: with `async with` the client itself, with plain `with` the same names, blocking."""

    def __init__(self, enter: Callable[[], Awaitable[Client]]) -> None:
        self._enter = enter
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Client:
        self._client = await self._enter()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.store.close()

    def __enter__(self) -> Any:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perdure-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._call(self._enter())
        except BaseException:
            self._close()
            raise
        return _Face(self._client, self._call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._call(self._client.store.close())
        self._close()

    def _close(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coro: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result()


class _Face:
    """Every public name of a client or handle, blocking."""

    def __init__(self, target: Client | Handle, call: Callable[[Any], Any]) -> None:
        self._target, self._call = target, call

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._target, name)
        if inspect.isasyncgenfunction(found):
            return lambda *args, **kwargs: self._each(found(*args, **kwargs))
        if inspect.iscoroutinefunction(found):
            return lambda *args, **kwargs: self._wrap(self._call(found(*args, **kwargs)))
        if callable(found):
            return lambda *args, **kwargs: self._wrap(found(*args, **kwargs))
        return found

    def _wrap(self, value: Any) -> Any:
        return _Face(value, self._call) if isinstance(value, Handle) else value

    def _each(self, source: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._call(anext(source))
            except StopAsyncIteration:
                return

    def __repr__(self) -> str:
        return repr(self._target)
