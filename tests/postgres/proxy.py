"""A TCP proxy in front of a PostgreSQL, which delays, holds, swallows, cuts and refuses what passes.

It runs on a loop in a thread of its own: the test's loop may be blocked or simulated, or be in another process. It
answers requests for encryption with no, so that it can read what passes. The machine's kernel acknowledges what the
proxy holds or swallows: a peer that relies on TCP alone will never notice, just as with a host that only seems to live.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from tests.postgres.wire import Framing, Message, Statements

CHUNK = 65536
PATIENCE_S = 60.0


class Way(StrEnum):
    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


class When(StrEnum):
    """Where a cut falls, seen from the statement that it is for."""

    BEFORE = "before"  # the server never sees it
    SENT = "sent"  # its bytes have left; nothing is known of what the server did
    DONE = "done"  # the server has done it and answered; the client never hears so


BOTH = tuple(Way)


class Cut:
    """A cut that waits for its statement. It falls once."""

    def __init__(self, text: str, when: When, skip: int) -> None:
        self.text = text.casefold()
        self.when = when
        self.skip = skip
        self._fell = threading.Event()

    @property
    def fell(self) -> bool:
        return self._fell.is_set()

    def wait(self) -> None:
        """Block until it has fallen. In a test that shares its loop with the client, ask `fell` instead."""
        assert self._fell.wait(PATIENCE_S), f"no statement with {self.text!r} came by"

    def takes(self, text: str) -> bool:
        """Whether this is its statement; the ones to skip are counted off."""
        if self.text not in text.casefold():
            return False
        self.skip -= 1
        return self.skip < 0

    def falls(self) -> None:
        self._fell.set()


class Road:
    """One way through the proxy for all connections: what happens to bytes that take it."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.swallows = False
        self.clear = asyncio.Event()
        self.clear.set()


class Connection:
    """One client with its connection to the server. Ends when either side does."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.statements = Statements()
        self.lost: set[Way] = set()
        self.doom: Cut | None = None

    async def carry(self, from_client: asyncio.StreamReader, from_server: asyncio.StreamReader) -> None:
        ways = [
            asyncio.create_task(self._pump(Way.TO_SERVER, from_client, self.server, self._asked)),
            asyncio.create_task(self._pump(Way.TO_CLIENT, from_server, self.client, self._answered)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self.end()

    def end(self) -> None:
        """Reset the client's connection, end the server's in order: the server still reads what it was sent."""
        self.client.transport.abort()
        with suppress(OSError, RuntimeError):
            self.server.close()

    async def _pump(
        self,
        way: Way,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        seen: Callable[[Message], Awaitable[bool]],
    ) -> None:
        """Read messages, and write each after its delay: a long way, not a narrow one."""
        under_way: asyncio.Queue[tuple[float, Message]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(way, under_way, target, seen))
        framing = Framing(first=way is Way.TO_SERVER)
        clock = asyncio.get_running_loop().time
        try:
            while not writing.done():
                reading = asyncio.ensure_future(source.read(CHUNK))
                await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return
                if not (data := reading.result()):
                    return
                for message in framing.feed(data):
                    under_way.put_nowait((clock() + self.proxy.roads[way].delay_s, message))
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write(
        self,
        way: Way,
        under_way: asyncio.Queue[tuple[float, Message]],
        target: asyncio.StreamWriter,
        seen: Callable[[Message], Awaitable[bool]],
    ) -> None:
        road, clock = self.proxy.roads[way], asyncio.get_running_loop().time
        while True:
            due, message = await under_way.get()
            await asyncio.sleep(max(0.0, due - clock()))  # work: this is the delay
            await road.clear.wait()
            if road.swallows:
                self.lost.add(way)
            if way not in self.lost and await seen(message):
                target.write(message.raw)
                await target.drain()
                await self._passed(message, way)

    async def _asked(self, message: Message) -> bool:
        """Look at a message of the client; whether it goes on to the server."""
        if message.asks_encryption:
            self.client.write(b"N")
            return False
        text = self.statements.executes(message)
        if text is not None and self.doom is None:
            self.doom = self.proxy.cut_for(text)
        if self.doom is not None and self.doom.when is When.BEFORE:
            await self._fall(self.doom)
        return True

    async def _answered(self, message: Message) -> bool:
        """Look at a message of the server; whether it goes on to the client."""
        if self.doom is None:
            return not (message.kind == "A" and self.proxy.is_deaf)
        if message.kind == "Z" and self.doom.when is When.DONE:
            await self._fall(self.doom)
        return False

    async def _passed(self, message: Message, way: Way) -> None:
        last = way is Way.TO_SERVER and message.kind in ("Q", "S")
        if last and self.doom is not None and self.doom.when is When.SENT:
            await self._fall(self.doom)

    async def _fall(self, cut: Cut) -> None:
        self.end()
        cut.falls()
        await asyncio.Event().wait()  # nothing passes any more; ended with the connection


class Proxy:
    """Stands before the server of an address. Made for one test; nothing of it is left after `close`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = 0
        self.made = 0
        self.is_deaf = False
        self.roads: dict[Way, Road] = {}
        self._cuts: list[Cut] = []
        self._connections: dict[asyncio.Task[None], Connection | None] = {}
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._on_loop(self._open)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def through(self, url: str) -> str:
        """An address of the same server that leads through the proxy."""
        parts = urlsplit(url)
        name = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{name}@127.0.0.1:{self.port}" if name else f"127.0.0.1:{self.port}"))

    def delay(self, seconds: float, *ways: Way) -> None:
        """Let each message take so much longer, from now on."""
        self._each(ways, lambda road: setattr(road, "delay_s", seconds))

    def hold(self, *ways: Way) -> None:
        """Let nothing through, and everything once it heals: a partition that TCP outlives."""
        self._each(ways, lambda road: road.clear.clear())

    def swallow(self, *ways: Way) -> None:
        """Half-open: what is sent vanishes, without an end or a reset. A connection that lost bytes never heals."""
        self._each(ways, lambda road: setattr(road, "swallows", True))

    def deafen(self) -> None:
        """Lose every notification."""
        self.is_deaf = True

    def refuse(self) -> None:
        """Refuse new connections; those that stand go on."""
        self._on_loop(self._stop_listening)

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        return int(self._on_loop(self._cut_all))

    def cut_at(self, text: str, when: When = When.DONE, *, skip: int = 0) -> Cut:
        """Cut the connection that next executes a statement with this text in it, after `skip` such ones."""
        cut = Cut(text, when, skip)
        self._cuts.append(cut)
        return cut

    def heal(self) -> None:
        """No more delays, holds, losses and refusals. Cuts that wait for their statement still do."""
        self._on_loop(self._heal)

    def close(self) -> None:
        """End every connection, the listener and the thread."""
        if self._loop.is_closed():
            return
        self._on_loop(self._stop_listening)
        self._on_loop(self._cut_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def cut_for(self, text: str) -> Cut | None:
        """The waiting cut that this statement is for; asked on the proxy's loop."""
        for cut in self._cuts:
            if cut.takes(text):
                self._cuts.remove(cut)
                return cut
        return None

    # --- on the proxy's own loop ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _on_loop(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def called() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(PATIENCE_S)

    def _each(self, ways: tuple[Way, ...], change: Callable[[Road], Any]) -> None:
        async def work() -> None:
            for way in ways or BOTH:
                change(self.roads[way])

        self._on_loop(work)

    async def _open(self) -> None:
        self.roads = {way: Road() for way in Way}
        await self._listen()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        self.made += 1
        parts = urlsplit(self.url)
        try:
            from_server, server = await asyncio.open_connection(parts.hostname, parts.port or 5432)
            self._connections[task] = connection = Connection(self, client, server)
            await connection.carry(from_client, from_server)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            client.transport.abort()
            del self._connections[task]

    async def _cut_all(self) -> int:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    async def _heal(self) -> None:
        self.is_deaf = False
        for road in self.roads.values():
            road.delay_s, road.swallows = 0.0, False
            road.clear.set()
        await self._listen()
