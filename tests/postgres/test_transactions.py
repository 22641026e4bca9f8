"""Async tasks that commit with the user's own data in PostgreSQL: once with their outcome, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import perdure
from perdure import Retry, RunFailed, StepFailed, task, workflow
from perdure.authoring.task import Task
from perdure.state.postgres_outcomes import PostgresTransaction
from tests.crash.harness import audited, outcomes_of
from tests.postgres.server import PrivateServer, Server

STORE = "sqlite:///store.db"
calls: list[str] = []
kept_waiting = asyncio.Event


async def book(amount: int) -> int:
    calls.append(perdure.idempotency_key())
    await perdure.transaction().execute("INSERT INTO ledger VALUES ($1, $2)", perdure.idempotency_key(), amount)
    return amount + 1


async def fails_once(amount: int) -> int:
    await book(amount)
    if perdure.attempt() == 1:
        raise ConnectionError("of its own")
    return amount


async def commits_itself(said: str) -> int:
    await book(1)
    await perdure.transaction().execute(said)
    return 1


async def swallows_an_error(_: int) -> int:
    await book(1)
    try:
        await perdure.transaction().execute("no such statement")
    except asyncpg.PostgresError:
        return 1
    return 0


async def too_long(amount: int) -> int:
    await book(amount)
    await perdure.transaction().execute("SELECT pg_sleep(30)")
    return 0


async def takes_no_notice(amount: int) -> int:
    await book(amount)
    try:
        await perdure.transaction().execute("SELECT pg_sleep(30)")
    except BaseException:  # noqa: BLE001 - of its cancellation too
        return await book(amount)
    return 0


@workflow
async def calling(name: str, *args: Any) -> Any:
    return await TASKS[name](*args)


@workflow
async def booked(count: int) -> list[int]:
    return list(await asyncio.gather(*(TASKS["book"](number) for number in range(count))))


@workflow
async def late(name: str) -> int:
    with pytest.raises(StepFailed) as failed:
        await TASKS[name](1)
    assert failed.value.failure.kind == "timeout"
    return int(await TASKS["book"](5))


TASKS: dict[str, Task[Any, Any]] = {}
FLOWS = [calling, booked, late]


def tasks_of(address: str | bool) -> None:
    for fn in (book, commits_itself, swallows_an_error):
        TASKS[fn.__name__] = task(transaction=address)(fn)
    TASKS["fails_once"] = task(transaction=address, retry=Retry(attempts=2, first="1ms"))(fails_once)
    for fn in (too_long, takes_no_notice):
        TASKS[fn.__name__] = task(transaction=address, timeout="300ms")(fn)


class Ledger:
    """A database of the user's with one table."""

    def __init__(self, server: Server) -> None:
        self.server, self.url = server, server.database()
        server.execute("CREATE TABLE ledger (step text, amount int)", url=self.url)
        tasks_of(self.url)

    def amounts(self) -> list[int]:
        return [n for (n,) in self.server.execute("SELECT amount FROM ledger ORDER BY amount", url=self.url)]

    def outcomes(self) -> int:
        ((there,),) = self.server.execute("SELECT to_regclass('perdure_outcomes') IS NOT NULL", url=self.url)
        return self.server.execute("SELECT count(*) FROM perdure_outcomes", url=self.url)[0][0] if there else 0


@pytest.fixture
def ledger(postgres: Server, tmp_path: Path) -> Iterator[Ledger]:
    calls.clear()
    yield Ledger(postgres)
    TASKS.clear()


async def test_rows_and_outcomes_are_there_together(ledger: Ledger) -> None:
    """Goal: many steps at once, each with its row and its outcome, over more steps than connections."""
    async with perdure.open(STORE, workflows=FLOWS) as engine:
        assert await (await engine.start(booked, 40)).result("60s") == list(range(1, 41))
    await audited(STORE, *FLOWS)
    assert ledger.amounts() == list(range(40))
    assert ledger.outcomes() == 40


async def test_the_stores_own_database(postgres: Server) -> None:
    """Goal: `transaction=True` on a store in PostgreSQL: the table stands beside the store's, the rows in the user's."""
    ledger = Ledger(postgres)
    tasks_of(True)
    address = f"{ledger.url}?schema=elsewhere"
    async with perdure.open(address, workflows=FLOWS) as engine:
        assert await (await engine.start(booked, 5)).result("60s") == [1, 2, 3, 4, 5]
    await audited(address, *FLOWS)
    assert ledger.amounts() == list(range(5))
    assert postgres.execute("SELECT count(*) FROM elsewhere.perdure_outcomes", url=ledger.url) == [(5,)]


async def test_an_outcome_that_is_there_is_returned_and_nothing_is_run(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: an engine that is gone before it recorded what a step committed finds its outcome, and runs nothing again."""
    heard = asyncio.Event()
    async with perdure.open(STORE, workflows=FLOWS, stop_grace_s=0) as engine:
        monkeypatch.setattr(engine.node.pools, "finish", lambda _: heard.set())
        handle = await engine.start(booked, 1)
        await asyncio.wait_for(heard.wait(), 30)
    async with perdure.open(STORE, workflows=FLOWS) as engine:
        assert await engine.get(handle.id).result("60s") == [1]
    assert ledger.amounts() == [0]
    assert len(calls) == 1


async def test_a_failed_attempt_leaves_nothing(ledger: Ledger) -> None:
    """Goal: what raised, ended its transaction itself, or met an error of the server, has left no row."""
    async with perdure.open(STORE, workflows=FLOWS) as engine:
        assert await (await engine.start(calling, "fails_once", 7)).result("60s") == 7
        for name, argument, said in (("commits_itself", "ROLLBACK", "ended its"), ("swallows_an_error", 1, "aborted")):
            with pytest.raises(RunFailed, match=said):
                await (await engine.start(calling, name, argument)).result("60s")
    assert ledger.amounts() == [7]
    assert ledger.outcomes() == 1


@pytest.mark.parametrize("name", ["too_long", "takes_no_notice"])
async def test_what_timed_out_is_rolled_back_and_never_commits(ledger: Ledger, name: str) -> None:
    """Goal: a timeout ends the statement on the server too, and no row of it is ever seen."""
    async with perdure.open(STORE, workflows=FLOWS, stop_grace_s=0.2) as engine:
        assert await (await engine.start(late, name)).result("60s") == 6
    assert ledger.amounts() == [5]
    assert ledger.outcomes() == 1


async def test_an_older_attempt_of_the_step_loses_its_session(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a node that hangs in a step's transaction does not keep others from it, and can never commit it."""
    monkeypatch.setattr("perdure.state.postgres_outcomes.OTHER_S", 0.1)
    hanging = asyncio.Event()
    held: list[PostgresTransaction] = []
    keep = PostgresTransaction.keep

    async def hangs(self: PostgresTransaction, *args: Any) -> None:
        await keep(self, *args)
        if not held:
            held.append(self)
            hanging.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(PostgresTransaction, "keep", hangs)
    async with perdure.open(STORE, workflows=FLOWS, stop_grace_s=0) as engine:
        monkeypatch.setattr(engine.node.pools, "_leave", lambda: setattr(engine.node.pools, "stopping", True))
        monkeypatch.setattr(engine.node.pools.transactions, "close", _nothing)
        handle = await engine.start(booked, 1)
        await asyncio.wait_for(hanging.wait(), 30)
        zombies = set(engine.node.pools.workers)
    async with perdure.open(STORE, workflows=FLOWS) as engine:
        assert await engine.get(handle.id).result("60s") == [1]
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await held[0]._began.commit()
    for zombie in zombies:
        zombie.cancel()
    await asyncio.wait(zombies)
    await held[0].database.close()
    assert ledger.amounts() == [0]
    assert len(calls) == 2


async def _nothing() -> None:
    """A node that hangs closes nothing."""


async def test_a_commit_whose_answer_is_lost_is_looked_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a connection that breaks behind the commit fails no step: what became of it is asked on another one."""
    commit = PostgresTransaction.commit
    lost: list[str] = []

    async def breaks(self: PostgresTransaction) -> None:
        if len(lost) < 2:
            lost.append("behind" if not lost else "before")
            if lost[-1] == "behind":
                await self.connection.execute("COMMIT")
            self.connection.terminate()
        await commit(self)

    monkeypatch.setattr(PostgresTransaction, "commit", breaks)
    TASKS["book"] = task(transaction=ledger.url, retry=Retry(attempts=2, first="1ms"))(book)
    async with perdure.open(STORE, workflows=FLOWS) as engine:
        assert await (await engine.start(booked, 2)).result("60s") == [1, 2]
    assert sorted(lost) == ["before", "behind"]
    assert ledger.amounts() == [0, 1]
    assert ledger.outcomes() == 2
    assert len(calls) == 3


async def test_several_engines_make_the_table_at_once(ledger: Ledger) -> None:
    """Goal: the first step of each of several nodes finds the table or makes it, whoever is first."""
    engines = [perdure.open(f"sqlite:///{n}.db", workflows=FLOWS) for n in range(4)]
    async with engines[0] as a, engines[1] as b, engines[2] as c, engines[3] as d:
        handles = await asyncio.gather(*(engine.start(booked, 2) for engine in (a, b, c, d)))
        assert [await handle.result("60s") for handle in handles] == [[1, 2]] * 4
    assert ledger.outcomes() == 8


async def test_an_address_that_leads_nowhere_is_said(postgres: Server) -> None:
    """Goal: a database that is not there fails the step at once; a sync task is told to be async."""
    async with perdure.open(STORE, workflows=FLOWS) as engine:
        TASKS["book"] = task(transaction=postgres.url.rpartition("/")[0] + "/no_such_database")(book)
        with pytest.raises(RunFailed, match="no_such_database"):
            await (await engine.start(booked, 1)).result("60s")
    async with perdure.open(postgres.address(), workflows=FLOWS) as engine:
        TASKS["book"] = task(transaction=True)(len)
        with pytest.raises(RunFailed, match="write async def"):
            await (await engine.start(calling, "book", "text")).result("60s")


async def test_the_server_crashes_again_and_again_while_steps_commit(private_postgres: PrivateServer) -> None:
    """Goal: `stop -m immediate` among commits: one row a step, and each step ends well within its retries."""
    ledger = Ledger(private_postgres)
    TASKS["book"] = task(transaction=ledger.url, retry=Retry(attempts=50, first="5ms", max="50ms"))(book)
    calls.clear()
    crashes = 0
    async with perdure.open(STORE, workflows=FLOWS) as engine:
        handle = await engine.start(booked, 400)
        for _ in range(3):
            wanted = len(calls) + 40
            while len(calls) < wanted:  # noqa: ASYNC110 - the steps tell nobody
                await asyncio.sleep(0)
            await asyncio.to_thread(private_postgres.stop_immediately)
            await asyncio.to_thread(private_postgres.start)
            crashes += 1
        assert await handle.result("60s") == list(range(1, 401))
    (history,) = (await audited(STORE, *FLOWS)).values()
    assert set(outcomes_of(history).values()) == {1}
    assert len(calls) > 400, "no attempt met a crash"
    assert crashes == 3
    assert ledger.amounts() == list(range(400))
    assert ledger.outcomes() == 400
    TASKS.clear()
