"""Engines and clients over PostgreSQL, as over any other store."""

from __future__ import annotations

import asyncio

import pytest

import perdure
from tests.crash.harness import audited, requests_of, until_async
from tests.postgres.server import PrivateServer, Server
from tests.state import programs


async def test_runs_of_every_kind_end_as_on_any_store(postgres: Server) -> None:
    """Goal: steps, timers, signals, children, blobs and threads; a stop in the middle; the audit after it."""
    address = postgres.address()
    programs.fresh()
    async with perdure.open(address, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        runs = [await engine.start(programs.waits, number, id=f"w{number}") for number in range(20)]
        one = await engine.start(programs.mixed, 3, id="one")
        await asyncio.gather(*(run.signal("go", 1) for run in runs), one.signal("go", 7))
        assert await one.result("60s") == programs.RESULT
    async with perdure.open(address, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        ended = [await engine.get(run.id).result("60s") for run in runs]
        assert ended == [2 * (2 * number + 1) for number in range(20)]
    await audited(address, programs.mixed, programs.waits, programs.inner)


async def test_a_signal_from_a_client_is_heard_without_an_engine_looking_for_it(postgres: Server) -> None:
    """Goal: a client of another connection starts, signals and cancels; what it says is taken up by the engine."""
    address = postgres.address()
    programs.fresh()
    async with (
        perdure.open(address, [programs.waits], **programs.SETTINGS),
        perdure.connect(address, [programs.waits]) as client,
    ):
        run = await client.start(programs.waits, 4, id="w", request_id="once")
        assert (await client.start(programs.waits, 4, id="w", request_id="once")).id == run.id
        await run.signal("go", 1, request_id="go-once")
        await run.signal("go", 1, request_id="go-once")
        assert await run.result("60s") == 18
        other = await client.start(programs.waits, 5, id="c")
        await other.cancel("enough")
        with pytest.raises(perdure.RunCancelled):
            await other.result("60s")
    histories = await audited(address, programs.waits)
    assert max(requests_of(histories["w"]).values()) == 1


async def test_f54_the_server_crashes_while_runs_go_on(private_postgres: PrivateServer) -> None:
    """Goal: `stop -m immediate` between runs' steps: nothing acknowledged is lost, and all runs end by themselves."""
    address = private_postgres.address()
    programs.fresh()
    async with perdure.open(address, [programs.waits], **programs.SETTINGS) as engine:
        runs = [await engine.start(programs.waits, number, id=f"w{number}") for number in range(10)]
        await asyncio.to_thread(private_postgres.stop_immediately)
        signals = [asyncio.create_task(run.signal("go", 1, request_id=f"go-{run.id}")) for run in runs]
        await until_async(lambda: engine.node.failed or engine.loader.wanted, "the engine has met the crash")
        await asyncio.to_thread(private_postgres.start)
        await asyncio.gather(*signals, return_exceptions=True)  # those that met it wait, later ones are told at once
        await until_async(lambda: engine.node.failed is None, "the store is back")
        for run in runs:
            await run.signal("go", 1, request_id=f"go-{run.id}")
        assert [await run.result("60s") for run in runs] == [2 * (2 * number + 1) for number in range(10)]
    histories = await audited(address, programs.waits)
    assert all(max(requests_of(history).values()) == 1 for history in histories.values())
