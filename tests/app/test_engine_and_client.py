"""The section "Engine and client" of the contract, as an engine, as a client in async code, and blocking as in Flask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import (
    IdInUse,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    WorkflowState,
    graph,
    task,
    variables,
    wait_signal,
    workflow,
)
from perdure.errors import LoopRunning, UnknownRun, WrongState
from perdure.model.run import RunRow
from perdure.runtime.live import Ended
from perdure.state.sqlite_health import newest_epochs
from tests.crash.harness import until_async

ADDRESS = "sqlite:///orders.db"


@dataclass
class Order:
    id: str
    cents: int


@dataclass
class Approval:
    by: str
    ok: bool


declined: set[str] = set()


@task
async def charge(order: Order) -> str:
    if order.id in declined:
        raise RuntimeError("declined")
    return f"paid {order.cents}"


@workflow(version="2")
async def fulfil(order: Order) -> dict[str, str]:
    paid = await charge(order)
    variables["stage"] = "paid"
    if order.cents > 100_000:
        approval = await wait_signal("approval", Approval)
        if not approval.ok:
            raise RuntimeError(f"refused by {approval.by}")
    return {"payment": paid}


@task
async def double(number: int) -> int:
    return number * 2


@graph
def etl(number: int) -> Any:
    return double(double(number))


def small() -> Order:
    return Order("a2", 100)


async def everything(asker: Any) -> None:
    """The calls of the contract, in its order, on an engine or on a client beside one."""
    handle = await asker.start(fulfil, Order("a1", 250_000), id="order-a1", tags={"region": "eu"})
    assert (await asker.start(fulfil, Order("a1", 250_000), id="order-a1")).id == handle.id == "order-a1"
    with pytest.raises(IdInUse, match="order-a1"):
        await asker.start(fulfil, Order("a1", 1), id="order-a1")
    handle = asker.get("order-a1")
    with pytest.raises(ResultTimeout, match="goes on"):
        await handle.result(timeout="1ms")
    await until_async(lambda: waits(handle), "the flow waits for its approval")
    state = await handle.state()
    assert isinstance(state, WorkflowState)
    assert (state.variables, state.status, state.metadata.tags) == ({"stage": "paid"}, "waiting", {"region": "eu"})
    assert [entry.kind for entry in state.history] == ["run_started", "step_completed"]
    for _ in range(2):
        await handle.signal("approval", Approval("ann", True), request_id="webhook-77")
    assert await handle.result(timeout="10s") == {"payment": "paid 250000"}
    with pytest.raises(WrongState):
        await handle.cancel(reason="too late")
    refused = await asker.start(fulfil, Order("a3", 250_000), id="order-a3", tags={"region": "eu"})
    await refused.signal("approval", Approval("bob", False))
    with pytest.raises(RunFailed, match="refused by bob"):
        await refused.result("10s")
    found = [run async for run in asker.runs(status="failed", workflow="fulfil", tags={"region": "eu"}, limit=50)]
    assert [type(run) for run in found] == [RunRow]
    assert found[0].id == "order-a3"
    declined.add("a4")
    again = await asker.start(fulfil, Order("a4", 250_000), id="order-a4")
    with pytest.raises(RunFailed, match="declined"):
        await again.result("10s")
    declined.clear()
    for _ in range(2):
        again = await asker.retry("order-a4", request_id="again-1")
    await until_async(lambda: waits(again), "the next generation waits")
    await again.cancel(reason="enough")
    with pytest.raises(RunCancelled, match="enough"):
        await again.result("10s")
    for run in ("order-a1", "order-a3", "order-a4"):
        report = await asker.verify(run)
        assert report.ok, report.violations
    await forked(asker)
    assert await (await asker.start(etl, 10)).result("10s") == 40
    with pytest.raises(UnknownRun, match="nobody"):
        await asker.get("nobody").state()


async def waits(handle: Any) -> bool:
    return await handle.status() == "waiting"


async def forked(asker: Any) -> None:
    fork = await asker.fork("order-a1", at=2, request_id="fork-1")
    assert (await asker.fork("order-a1", at=2, request_id="fork-1")).id == fork.id != "order-a1"
    await until_async(lambda: there(asker, fork.id), "the fork is made")
    await fork.signal("approval", Approval("eve", True))
    assert await fork.result("10s") == {"payment": "paid 250000"}
    assert (await asker.fork("order-a1", at=2, request_id="fork-1")).id == fork.id
    assert len([run async for run in asker.runs(workflow="fulfil")]) == 4
    assert (await asker.verify(fork.id)).ok


async def there(asker: Any, run: str) -> bool:
    return any([row.id == run async for row in asker.runs()])


@pytest.mark.parametrize("address", [ADDRESS, "memory:"])
async def test_everything_that_the_contract_shows_of_an_engine(address: str) -> None:
    """Goal: the printed calls do what is printed beside them."""
    async with perdure.open(address, workflows=[fulfil, etl]) as engine:
        await everything(engine)


async def test_everything_that_the_contract_shows_of_a_client() -> None:
    """Goal: the same names and results without the running, beside an engine."""
    served = [fulfil, etl]
    async with perdure.open(ADDRESS, workflows=served), perdure.connect(ADDRESS, workflows=served) as client:
        await everything(client)


@asynccontextmanager
async def lifespan(app: dict[str, Any]) -> AsyncIterator[None]:
    """An engine for as long as a web application is up, as its framework enters and leaves it."""
    async with perdure.open(ADDRESS, workflows=[fulfil]) as engine:
        app["engine"] = engine
        yield


async def test_an_engine_inside_a_web_applications_lifespan_and_sync_views_as_its_clients() -> None:
    """Goal: handlers of one loop share the engine; blocking views in threads, as Flask has them, are clients of it."""
    app: dict[str, Any] = {}
    seen: list[Any] = []

    def view() -> None:
        with perdure.connect(ADDRESS, workflows=[fulfil]) as client:
            handle = client.start(fulfil, small(), id="from-a-view")
            seen.append(handle.result(timeout="30s"))
            seen.append([row.id for row in client.runs(status="completed")])
            seen.append(client.get("from-a-view").state().status)
            seen.append(client.verify("from-a-view").ok)
            seen.append(handle.status())

    async with lifespan(app):
        first, second = await asyncio.gather(*(app["engine"].start(fulfil, small(), id=f"h{n}") for n in range(2)))
        assert [await first.result(), await second.result()] == [{"payment": "paid 100"}] * 2
        await asyncio.to_thread(view)
    assert seen[0] == {"payment": "paid 100"}
    assert seen[1] == ["from-a-view", "h1", "h0"]
    assert seen[2:] == ["completed", True, "completed"]
    assert not [thread for thread in threading.enumerate() if thread.name == "perdure-client"]


async def test_a_blocking_client_raises_the_same_errors() -> None:
    """Goal: the sync face is the async one, errors too, and its thread ends with it."""

    def view() -> None:
        with perdure.connect(ADDRESS, workflows=[fulfil]) as client:
            client.start(fulfil, small(), id="x")
            with pytest.raises(IdInUse):
                client.start(fulfil, Order("other", 1), id="x")
            with pytest.raises(UnknownRun):
                client.get("nobody").result()
            with pytest.raises(ResultTimeout):
                client.get("x").result(timeout="10ms")

    await asyncio.to_thread(view)


async def test_run_where_a_loop_runs_names_its_twin() -> None:
    """Goal: a notebook's user is told what to write instead; and that works there."""
    with pytest.raises(LoopRunning, match=r"await perdure\.arun\(\.\.\.\)"):
        perdure.run(fulfil, small())
    assert await perdure.arun(fulfil, small()) == {"payment": "paid 100"}


async def test_arun_by_id_gives_the_recorded_result_and_refuses_other_input() -> None:
    """Goal: `id=` names the run: its result is recorded once, whatever asks again."""
    assert await perdure.arun(fulfil, small(), id="order-42") == {"payment": "paid 100"}
    assert await perdure.arun(fulfil, small(), id="order-42") == {"payment": "paid 100"}
    with pytest.raises(IdInUse, match="order-42"):
        await perdure.arun(fulfil, Order("a9", 1), id="order-42")
    async with perdure.connect() as client:
        assert len([run async for run in client.runs()]) == 1
    await perdure.arun(fulfil, small(), fresh=True)
    async with perdure.connect() as client:
        assert len([run async for run in client.runs()]) == 2


def test_a_client_in_a_with_of_its_own_loop_is_told() -> None:
    """Goal: plain `with` works in plain code, before there is any store to open."""
    with perdure.connect("sqlite:///new.db", workflows=[fulfil]) as client:
        assert list(client.runs()) == []
        handle = client.start(fulfil, small())
        assert handle.status() == "queued"


@pytest.mark.parametrize("beside", ["engine", "client", "no engine"])
async def test_s26_starts_of_one_request_at_once_are_one_run(beside: str) -> None:
    """Goal: a request that is sent again before it is answered makes no second run, from wherever it comes."""
    async with (
        perdure.open(ADDRESS, workflows=[fulfil]) as engine,
        perdure.connect(ADDRESS, workflows=[fulfil]) as client,
    ):
        if beside == "no engine":
            await engine.stop()
        asker = engine if beside == "engine" else client
        other = engine if beside == "client" else asker
        asked = [one.start(fulfil, small(), request_id="hook-1") for one in (asker, other) for _ in range(10)]
        handles = await asyncio.wait_for(asyncio.gather(*asked), 30)
        assert len({handle.id for handle in handles}) == 1
        if beside != "no engine":
            assert await handles[-1].result("30s") == {"payment": "paid 100"}
        assert len([run async for run in client.runs()]) == 1


begun: list[str] = []


@task
async def lasts() -> str:
    begun.append(perdure.run_id())
    await asyncio.get_running_loop().create_future()  # until it is cancelled
    return "never"


@task
async def ends() -> str:
    begun.append(perdure.run_id())
    return "in time"


@workflow
async def left_early(last: bool) -> str:
    return await (lasts() if last else ends())


@pytest.mark.parametrize("hit", [{"grace"}, {"commit"}, {"sweep"}, {"grace", "commit", "sweep"}])
async def test_s25_a_stop_that_is_cancelled_lets_the_store_go(hit: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: whatever the stop waits for when it is cancelled, and again, the next engine opens the store and goes on."""
    begun.clear()
    waits: asyncio.Queue[str] = asyncio.Queue()

    async def endless(*_: object, **__: object) -> None:
        waits.put_nowait("for ever")
        await asyncio.get_running_loop().create_future()

    async def stopped(patch: pytest.MonkeyPatch) -> None:
        async with perdure.open(ADDRESS, workflows=[left_early], stop_grace_s=3_600) as engine:
            await engine.start(left_early, "grace" in hit, id="r")
            await until_async(lambda: begun, "it was begun")
            if "grace" in hit:
                waits.put_nowait("for the attempt")  # which is cancelled once the stop waits for it
            if "commit" in hit:
                patch.setattr(engine.node, "settled", endless)
            if "sweep" in hit:
                patch.setattr(asyncio, "gather", endless)

    with monkeypatch.context() as patch:
        stopping = asyncio.create_task(stopped(patch))
        for _ in hit:
            await waits.get()
            stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
    assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("perdure-") and not one.cancelling()]
    begun.clear()
    async with perdure.open(ADDRESS, workflows=[left_early], lock_wait_s=0, stop_grace_s=0) as engine:
        assert [row.clean for row in await newest_epochs(engine.store)] == [False, True]
        if "grace" in hit:
            await until_async(lambda: begun, "it is made again")
        else:
            assert await engine.get("r").result("30s") == "in time"


async def test_whoever_is_cancelled_while_a_run_ends_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a task that waits for a result ends when it is cancelled, though the result comes in the same turn."""
    async with perdure.open("memory:", workflows=[fulfil]) as engine:
        run = await engine.start(fulfil, Order("large", 200_000), id="large")
        waiting, tell = asyncio.create_task(run.result("60s")), engine.node.tell

        def tell_and_cancel(ended: Ended) -> None:
            tell(ended)
            assert waiting.cancel()

        await until_async(lambda: engine.node.waiters.get("large"), "it waits for the result")
        monkeypatch.setattr(engine.node, "tell", tell_and_cancel)
        await run.signal("approval", Approval("ann", True))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await run.result("60s") == {"payment": "paid 200000"}
