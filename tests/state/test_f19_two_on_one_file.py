"""Several on one file: a second engine is refused, clients write beside the one that there is (F19)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure.errors import StoreLocked, StoreUnavailable
from tests.crash.harness import Program, audited, requests_of, until, until_async
from tests.crash.programs import waits
from tests.crash.witness import notes
from tests.state import programs

ADDRESS = "sqlite:///many.db"
CLIENTS, EACH = 4, 12


@pytest.fixture(autouse=True)
def _witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", str(tmp_path))


async def opened(**settings: Any) -> None:
    async with perdure.open(ADDRESS, [waits], **settings):
        pass


@pytest.mark.crash
async def test_f19_of_engines_that_start_at_once_one_holds_the_store_until_it_dies() -> None:
    """Goal: never two engines on a file; who is refused is told by whom; a dead one holds nothing."""
    rivals = [Program("server", ADDRESS, "lock_wait_s=0") for _ in range(3)]
    try:
        until(lambda: sum(rival.process.poll() is not None for rival in rivals) == 2, "two are refused")
        (holder,) = [rival for rival in rivals if rival.process.poll() is None]
        holder.hears("ready")
        for rival in rivals:
            if rival is not holder:
                assert rival.ends() == 1
                assert f"another engine holds this store (pid {holder.pid})" in rival.errors[-1]
                assert "StoreLocked" in rival.errors[-1]
        with pytest.raises(StoreLocked, match=f"pid {holder.pid}"):
            await opened(lock_wait_s=0.05)
        holder.kill()
        await opened(lock_wait_s=0)
    finally:
        for rival in rivals:
            rival.close()
    assert len(notes("served")) == 1


def insists(name: str) -> None:
    """A client that asks for runs and signals them, each thing twice."""
    with perdure.connect(ADDRESS, workflows=[waits]) as client:
        for number in range(EACH):
            request = f"{name}-{number}"
            for _ in range(2):
                run = client.start(waits.counts, 2, id=request, request_id=f"{request}-start")
            for value in (1, 2):
                for _ in range(2):
                    client.signal(run.id, "go", value, request_id=f"{request}-{value}")


@pytest.mark.crash
async def test_f19_clients_write_at_once_beside_an_engine() -> None:
    """Goal: a storm of writers on one file loses nothing, doubles nothing, and is never told of a lock."""
    failed: list[BaseException] = []

    def guarded(name: str) -> None:
        try:
            insists(name)
        except BaseException as error:  # noqa: BLE001 - told of below
            failed.append(error)

    with Program("server", ADDRESS) as server:
        server.hears("ready")
        clients = [threading.Thread(target=guarded, args=(f"client{number}",)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
        assert not failed, failed
        async with perdure.connect(ADDRESS, workflows=[waits]) as client:
            for number in range(CLIENTS):
                for place in range(EACH):
                    assert await client.get(f"client{number}-{place}").result("60s") == [1, 2]
        server.kill()
    histories = await audited(ADDRESS, waits.counts)
    assert len(histories) == CLIENTS * EACH
    for run, history in histories.items():
        assert requests_of(history) == {f"{run}-start": 1, f"{run}-1": 1, f"{run}-2": 1}


@contextmanager
def write_lock() -> Iterator[None]:
    """Somebody else has begun to write, and does not end."""
    database = apsw.Connection("many.db")  # another SQLite in this process would not see the locks
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
    finally:
        database.close()


async def test_f19_a_writer_that_does_not_let_go_is_an_outage_like_any_other() -> None:
    """Goal: behind a lock a client is told after its wait, an engine refuses new work, reads, and goes on by itself."""
    programs.fresh()
    async with perdure.open(ADDRESS, [programs.waits], busy_wait_s=0.02, **programs.SETTINGS) as engine:
        await engine.start(programs.waits, 1, id="one")
        async with perdure.connect(ADDRESS, busy_wait_s=0.02) as client:
            with write_lock():
                with pytest.raises(StoreUnavailable, match="database is locked"):
                    await client.signal("one", "go", 5, request_id="go")
                asked = asyncio.create_task(engine.get("one").signal("go", 5, request_id="go"))
                await until_async(lambda: engine.node.failed is not None, "the engine meets the lock")
                with pytest.raises(StoreUnavailable, match=r"takes no writes now.*database is locked"):
                    await engine.start(programs.waits, 2, id="two")
                assert [run.id async for run in engine.runs()] == ["one"]
            await asked
        assert await engine.get("one").result("60s") == 14
    assert set(await audited(ADDRESS, programs.waits)) == {"one"}
    assert set(programs.made.values()) == {1}
