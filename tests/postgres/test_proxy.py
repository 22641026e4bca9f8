"""The proxy of the fault tests: each of its faults is seen by a real driver, and is the fault that it says it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.crash.harness import until_async
from tests.postgres.proxy import Proxy, Way, When
from tests.postgres.server import Server
from tests.postgres.wire import Framing

CUT_OFF = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)


@pytest.fixture
async def link(postgres: Server, proxy: Proxy) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(proxy.through(postgres.url))
    await made.execute("DROP TABLE IF EXISTS cut_row; CREATE TABLE cut_row (n int)")
    yield made
    made.terminate()


def rows(postgres: Server) -> list[int]:
    return [n for (n,) in postgres.execute("SELECT n FROM cut_row ORDER BY n")]


async def test_it_passes_everything(link: asyncpg.Connection, proxy: Proxy) -> None:
    """Goal: a proxy that does nothing is not felt, also by rows much larger than one read."""
    large = "x" * 3_000_000
    assert await link.fetchval("SELECT $1::text", large) == large
    assert proxy.connections == proxy.made == 1


@pytest.mark.parametrize("when, left", [(When.BEFORE, []), (When.DONE, [1])])
async def test_a_cut_around_a_statement(
    link: asyncpg.Connection, proxy: Proxy, postgres: Server, when: When, left: list[int]
) -> None:
    """Goal: the same error at the client, though the server did nothing before the cut and everything after it."""
    cut = proxy.cut_at("insert into cut_row", when)
    with pytest.raises(CUT_OFF):
        await link.execute("INSERT INTO cut_row VALUES ($1)", 1)
    assert cut.fell
    assert rows(postgres) == left
    await until_async(lambda: proxy.connections == 0, "the proxy let go of it")


async def test_a_cut_at_a_commit_that_was_sent(link: asyncpg.Connection, proxy: Proxy, postgres: Server) -> None:
    """Goal: with the COMMIT's bytes on their way the client learns nothing, and the server does commit."""
    cut = proxy.cut_at("commit", When.SENT)
    with pytest.raises(CUT_OFF):
        async with link.transaction():
            await link.execute("INSERT INTO cut_row VALUES ($1)", 1)
    assert cut.fell
    await until_async(lambda: rows(postgres) == [1], "the server has committed")


async def test_a_cut_waits_for_its_statement(link: asyncpg.Connection, proxy: Proxy, postgres: Server) -> None:
    """Goal: prepared statements are known by their text, other ones pass, and `skip` counts."""
    cut = proxy.cut_at("insert into cut_row", skip=2)
    insert = await link.prepare("INSERT INTO cut_row VALUES ($1)")
    await insert.fetch(1)
    await link.fetch("SELECT 1")
    await insert.fetch(2)
    assert not cut.fell
    with pytest.raises(CUT_OFF):
        await insert.fetch(3)
    assert cut.fell
    assert rows(postgres) == [1, 2, 3]


async def test_a_delay_is_a_long_way_and_not_a_narrow_one(
    link: asyncpg.Connection, proxy: Proxy, postgres: Server
) -> None:
    """Goal: a reply comes that much later, and a hundred at once are as late as one."""
    clock, delay_s = asyncio.get_running_loop().time, 0.2
    proxy.delay(delay_s, Way.TO_CLIENT)
    began = clock()
    await link.fetch("SELECT n FROM generate_series(1, 100) n")
    took = clock() - began
    assert delay_s <= took < 50 * delay_s
    proxy.heal()
    began = clock()
    await link.fetch("SELECT n FROM generate_series(1, 100) n")
    assert clock() - began < took


async def test_what_is_held_comes_when_it_heals(link: asyncpg.Connection, proxy: Proxy, postgres: Server) -> None:
    """Goal: a partition without an end of the connection: the request waits, then is done once."""
    proxy.hold(Way.TO_SERVER)
    asked = asyncio.create_task(link.execute("INSERT INTO cut_row VALUES (1)"))
    done, _ = await asyncio.wait({asked}, timeout=0.1)
    assert not done
    assert rows(postgres) == []
    proxy.heal()
    await asked
    assert rows(postgres) == [1]


async def test_a_one_way_hold_lets_the_server_act(link: asyncpg.Connection, proxy: Proxy, postgres: Server) -> None:
    """Goal: with only the replies held, the server has committed and the client does not know."""
    proxy.hold(Way.TO_CLIENT)
    asked = asyncio.create_task(link.execute("INSERT INTO cut_row VALUES (1)"))
    await until_async(lambda: rows(postgres) == [1], "the server has done it")
    assert not asked.done()
    proxy.heal()
    await asked


async def test_a_half_open_connection_never_heals(link: asyncpg.Connection, proxy: Proxy, postgres: Server) -> None:
    """Goal: bytes vanish without a reset, and what lost bytes stays dead; a new connection works."""
    proxy.swallow()
    with pytest.raises(TimeoutError):
        await link.fetch("SELECT 1", timeout=0.1)
    assert proxy.connections >= 1
    proxy.heal()
    other = await asyncpg.connect(proxy.through(postgres.url))
    assert await other.fetchval("SELECT 2") == 2
    await other.close()
    with pytest.raises((TimeoutError, *CUT_OFF)):
        await link.fetch("SELECT 1", timeout=0.1)


async def test_cut_and_refuse(link: asyncpg.Connection, proxy: Proxy, postgres: Server) -> None:
    """Goal: a server that is gone resets what stands and refuses what comes, until it heals."""
    proxy.refuse()
    assert await link.fetchval("SELECT 1") == 1
    assert proxy.cut() == 1
    with pytest.raises(CUT_OFF):
        await link.fetchval("SELECT 1")
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(proxy.through(postgres.url))
    proxy.heal()
    again = await asyncpg.connect(proxy.through(postgres.url))
    await again.close()


async def test_a_deaf_proxy_loses_notifications_only(link: asyncpg.Connection, proxy: Proxy, postgres: Server) -> None:
    """Goal: every NOTIFY is lost while all else works, and none once it heals."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    await link.add_listener("bell", lambda *told: heard.put_nowait(str(told[-1])))
    proxy.deafen()
    postgres.execute("SELECT pg_notify('bell', 'lost')")
    assert await link.fetchval("SELECT 1") == 1
    assert heard.empty()
    proxy.heal()
    postgres.execute("SELECT pg_notify('bell', 'kept')")
    assert await asyncio.wait_for(heard.get(), 30) == "kept"


def test_messages_are_found_in_any_cutting() -> None:
    """Goal: the framing gives the same messages when the bytes come one by one."""
    stream = (
        (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + (8).to_bytes(4, "big") + b"\0\3\0\0" + b"S\0\0\0\4"
    )
    whole, single = Framing(first=True), Framing(first=True)
    at_once = whole.feed(stream)
    one_by_one = [message for byte in stream for message in single.feed(bytes([byte]))]
    assert at_once == one_by_one
    assert [message.kind for message in at_once] == ["", "", "S"]
    assert [message.asks_encryption for message in at_once] == [True, False, False]
