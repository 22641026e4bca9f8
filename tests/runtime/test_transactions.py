"""Tasks that commit with the user's own data: once with their outcome, or not at all."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure import Retry, RunFailed, StepFailed, task, workflow
from perdure.state.sqlite_outcomes import SqliteTransaction

STORE, ORDERS = "sqlite:///store.db", "sqlite:///orders.db"
LEDGER = "create table if not exists ledger (step text, amount integer)"
calls: list[str] = []
free = threading.Event()


def book(amount: int) -> int:
    calls.append(perdure.idempotency_key())
    connection = perdure.transaction()
    connection.execute(LEDGER)
    connection.execute("insert into ledger values (?, ?)", (perdure.idempotency_key(), amount))
    return amount + 1


@task(transaction=ORDERS)
def in_thread(amount: int) -> int:
    return book(amount)


@task(transaction=ORDERS)
async def on_loop(amount: int) -> int:
    await asyncio.sleep(0)
    return book(amount)


@task(transaction=True)
def in_own_file(amount: int) -> int:
    return book(amount)


@task(transaction=True)
async def in_own_file_on_loop(amount: int) -> int:
    done = book(amount)
    await asyncio.sleep(0)
    return done


TASKS = {one.name: one for one in (in_thread, on_loop, in_own_file, in_own_file_on_loop)}


@workflow
async def booked(name: str, count: int) -> list[int]:
    return await asyncio.gather(*(TASKS[name](n) for n in range(count)))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls.clear()
    free.clear()


def rows(path: str, table: str = "ledger") -> list[tuple[Any, ...]]:
    if not Path(path).exists():
        return []
    connection = apsw.Connection(path)
    try:
        if not connection.table_exists(None, table):
            return []
        return list(connection.execute(f"select * from {table}"))
    finally:
        connection.close()


def file_of(name: str) -> str:
    return "store.db" if "own" in name else "orders.db"


async def begun(count: int) -> None:
    """Wait until so many attempts have written."""
    while len(calls) < count:  # noqa: ASYNC110 - a thread tells nobody
        await asyncio.sleep(0)


async def audited(engine: perdure.Engine, run_id: str) -> None:
    report = await engine.verify(run_id)
    assert report.ok, "\n".join(report.lines())


@pytest.mark.parametrize("name", TASKS)
async def test_rows_and_outcomes_are_there_together(name: str) -> None:
    """Goal: each step's rows once, its outcome beside them, in a file of the user's and in the store's own."""
    async with perdure.open(STORE, workflows=[booked]) as engine:
        handle = await engine.start(booked, name, 20)
        assert await handle.result(timeout="30s") == list(range(1, 21))
        await audited(engine, handle.id)
        assert not await engine.store.check()
    assert sorted(amount for _, amount in rows(file_of(name))) == list(range(20))
    outcomes = rows(file_of(name), "perdure_outcomes")
    assert len(outcomes) == 20
    assert {(run, generation, attempt) for run, _, generation, _, attempt, _, _ in outcomes} == {(handle.id, 1, 1)}
    async with perdure.open(STORE, workflows=[booked]) as engine:  # the user's tables do it no harm
        assert await engine.get(handle.id).result() == list(range(1, 21))


@pytest.mark.parametrize("name", TASKS)
async def test_an_outcome_that_is_there_is_returned_and_nothing_is_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: an engine that is gone before it recorded what a step committed finds its outcome, and runs nothing again."""
    heard = asyncio.Event()
    async with perdure.open(STORE, workflows=[booked], stop_grace_s=0) as engine:
        monkeypatch.setattr(engine.node.pools, "finish", lambda _: heard.set())
        handle = await engine.start(booked, name, 1)
        await asyncio.wait_for(heard.wait(), 30)
    assert len(rows(file_of(name))) == len(calls) == 1
    async with perdure.open(STORE, workflows=[booked]) as engine:
        assert await engine.get(handle.id).result(timeout="30s") == [1]
        await audited(engine, handle.id)
    assert len(rows(file_of(name))) == len(calls) == 1


async def test_another_run_of_the_same_id_has_its_own_outcomes() -> None:
    """Goal: a store that was begun anew beside an old database does not take the old run's outcomes for its own."""
    for store in ("sqlite:///one.db", "sqlite:///two.db"):
        async with perdure.open(store, workflows=[booked]) as engine:
            await (await engine.start(booked, "in_thread", 1, id="same")).result(timeout="30s")
    assert len(calls) == len(rows("orders.db")) == 2


class Refused(Exception):
    pass


@task(transaction=ORDERS, retry=Retry(attempts=2, first="1ms"))
def fails_once(amount: int) -> int:
    book(amount)
    if perdure.attempt() == 1:
        raise Refused
    return amount


@task(transaction=ORDERS)
async def gives_what_cannot_be_kept() -> Any:
    return [object(), book(1)]


@task(transaction=ORDERS)
def commits_itself(said: str) -> int:
    book(1)
    with suppress(apsw.ConstraintError):
        perdure.transaction().execute(said)
    book(2)
    return 1


@workflow
async def calling(name: str, *args: Any) -> Any:
    return await OTHERS[name](*args)


async def test_a_failed_attempt_leaves_nothing() -> None:
    """Goal: what an attempt wrote before it raised is gone, and the next one's is there."""
    async with perdure.open(STORE, workflows=[calling]) as engine:
        assert await (await engine.start(calling, "fails_once", 7)).result(timeout="30s") == 7
    assert len(calls) == 2
    assert [amount for _, amount in rows("orders.db")] == [7]
    assert [attempt for _, _, _, _, attempt, _, _ in rows("orders.db", "perdure_outcomes")] == [2]


async def test_a_result_that_cannot_be_kept_takes_the_rows_with_it() -> None:
    """Goal: limits and encodings are checked before the commit."""
    async with perdure.open(STORE, workflows=[calling], payload_max=1024) as engine:
        for name, args in (("gives_what_cannot_be_kept", ()), ("gives_too_much", ())):
            with pytest.raises(RunFailed):
                await (await engine.start(calling, name, *args)).result(timeout="30s")
    assert rows("orders.db") == rows("orders.db", "perdure_outcomes") == []


@task(transaction=ORDERS)
def gives_too_much() -> str:
    book(1)
    return "x" * 2_000


@pytest.mark.parametrize("said", ["COMMIT", "ROLLBACK"])
async def test_a_task_cannot_end_its_transaction_itself(said: str) -> None:
    """Goal: nothing is committed without the outcome, whatever the task says."""
    async with perdure.open(STORE, workflows=[calling]) as engine:
        with pytest.raises(RunFailed, match=r"ended its transaction|constraint|no such table"):
            await (await engine.start(calling, "commits_itself", said)).result(timeout="30s")
    assert rows("orders.db") == rows("orders.db", "perdure_outcomes") == []


# --- time ---------------------------------------------------------------------------------------------------------


@task(transaction=ORDERS, timeout="150ms")
def goes_on_in_its_thread() -> int:
    book(1)
    free.wait(30)
    return book(2)


@task(transaction=ORDERS, timeout="150ms")
def computes_in_sql() -> int:
    book(1)
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
    return perdure.transaction().execute(endless).fetchone()[0]


@task(transaction=ORDERS, timeout="150ms")
async def takes_no_notice() -> int:
    book(1)
    while not free.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)  # work
    return book(2)


@workflow
async def late(name: str) -> int:
    """A step that times out, then one that writes to the same file while the first goes on."""
    with pytest.raises(StepFailed) as failed:
        await OTHERS[name]()
    return await in_thread(5) if failed.value.failure.kind == "timeout" else 0


@pytest.mark.parametrize("name", ["goes_on_in_its_thread", "computes_in_sql", "takes_no_notice"])
async def test_what_timed_out_is_rolled_back_and_never_commits(name: str) -> None:
    """Goal: the file is free again at once, though the code goes on; what that does later is lost."""
    async with perdure.open(STORE, workflows=[late], stop_grace_s=0.2) as engine:
        handle = await engine.start(late, name)
        assert await handle.result(timeout="30s") == 6
        free.set()
        await audited(engine, handle.id)
    assert [amount for _, amount in rows("orders.db")] == [5]
    assert len(rows("orders.db", "perdure_outcomes")) == 1


async def test_a_commit_that_is_under_way_when_the_time_is_over_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a step is never told to have timed out when its rows are there."""
    committed = SqliteTransaction.commit
    began = threading.Event()

    def slowly(self: SqliteTransaction) -> None:
        began.set()
        assert over.wait(30)
        committed(self)

    over = threading.Event()
    monkeypatch.setattr(SqliteTransaction, "commit", slowly)
    async with perdure.open(STORE, workflows=[calling]) as engine:
        judged = engine.node.pools._timed_out

        def looked(*args: Any) -> None:
            judged(*args)
            over.set()

        monkeypatch.setattr(engine.node.pools, "_timed_out", looked)
        assert await (await engine.start(calling, "quick")).result(timeout="30s") == 2
    assert began.is_set()
    assert len(rows("orders.db")) == 1


@task(transaction=ORDERS, timeout="100ms")
def quick() -> int:
    return book(1)


async def test_a_cancelled_run_leaves_nothing_in_the_file() -> None:
    """Goal: what a cancelled step wrote is gone, and its file is free for others."""
    async with perdure.open(STORE, workflows=[calling, booked], stop_grace_s=0.2) as engine:
        handle = await engine.start(calling, "waits")
        await begun(1)
        await handle.cancel()
        with pytest.raises(perdure.RunCancelled):
            await handle.result(timeout="30s")
        assert await (await engine.start(booked, "in_thread", 1)).result(timeout="30s") == [1]
        free.set()
    assert [amount for _, amount in rows("orders.db")] == [0]


@task(transaction=ORDERS)
def waits() -> int:
    book(1)
    free.wait(30)
    return 1


async def test_a_stop_leaves_nothing_and_the_next_start_does_it() -> None:
    """Goal: an engine that does not wait for a step's transaction takes it back; the step is made again."""
    async with perdure.open(STORE, workflows=[calling], stop_grace_s=0) as engine:
        handle = await engine.start(calling, "waits")
        await begun(1)
    assert rows("orders.db") == []
    free.set()
    async with perdure.open(STORE, workflows=[calling]) as engine:
        assert await engine.get(handle.id).result(timeout="30s") == 1
    assert len(rows("orders.db")) == 1


async def test_a_deadline_that_is_over_does_not_hide_what_was_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an engine that comes back after the step's deadline still finds what was committed before it."""
    heard = asyncio.Event()
    async with perdure.open(STORE, workflows=[calling], stop_grace_s=0) as engine:
        monkeypatch.setattr(engine.node.pools, "finish", lambda _: heard.set())
        handle = await engine.start(calling, "soon_over")
        await asyncio.wait_for(heard.wait(), 30)
        lost = await engine.start(calling, "soon_over_and_waiting")
        await begun(2)
    free.wait(0.3)
    free.set()
    async with perdure.open(STORE, workflows=[calling]) as engine:
        assert await engine.get(handle.id).result(timeout="30s") == 1
        with pytest.raises(RunFailed, match="deadline"):
            await engine.get(lost.id).result(timeout="30s")
    assert len(rows("orders.db")) == 1


@task(transaction=ORDERS, deadline="250ms")
def soon_over() -> int:
    return book(0)


@task(transaction=ORDERS, deadline="250ms")
def soon_over_and_waiting() -> int:
    book(0)
    free.wait(30)
    return 1


# --- the store's own file -------------------------------------------------------------------------------------------


@task(transaction=True)
def holds() -> int:
    book(1)
    free.wait(30)
    return book(2)


@task(transaction=True)
async def waits_for_the_engine() -> str:
    book(1)
    engine: perdure.Engine = ENGINES[-1]
    return await (await engine.start(booked, "in_thread", 1)).result()


ENGINES: list[perdure.Engine] = []


@pytest.mark.parametrize("name", ["holds", "waits_for_the_engine"])
async def test_no_step_holds_the_store_for_long(name: str) -> None:
    """Goal: an engine never waits on a lock: its loop turns, and a step that holds its file too long loses it."""
    async with perdure.open(STORE, workflows=[calling, booked], transaction_max_s=0.3, stop_grace_s=0.2) as engine:
        ENGINES.append(engine)
        handle = await engine.start(calling, name)
        await begun(1)
        other = asyncio.ensure_future(engine.start(booked, "in_own_file", 3))
        turns = 0
        while not other.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 100, "the loop stood still"
        with pytest.raises(RunFailed, match=r"held the store's own file for more than 0.3s"):
            await handle.result(timeout="30s")
        assert await other.result().result(timeout="30s") == [1, 2, 3]
        free.set()
        await audited(engine, handle.id)
    assert sorted(amount for _, amount in rows("store.db")) == [0, 1, 2]


async def test_many_steps_in_the_stores_file_and_the_engine_take_turns() -> None:
    """Goal: neither starves the other, though steps of threads and of the loop want the file all the time."""
    async with perdure.open(STORE, workflows=[booked]) as engine:
        handles = [
            await engine.start(booked, name, 30) for name in ("in_own_file", "in_own_file_on_loop") for _ in "ab"
        ]
        for handle in handles:
            assert await handle.result(timeout="60s") == list(range(1, 31))
        assert not await engine.store.check()
    assert len(rows("store.db")) == len(calls) == 120


# --- others --------------------------------------------------------------------------------------------------------


async def test_another_process_that_writes_is_waited_for() -> None:
    """Goal: a busy file is no failure: the step begins when it is free."""
    other = apsw.Connection("orders.db")
    other.execute("begin immediate")
    async with perdure.open(STORE, workflows=[booked]) as engine:
        handles = [await engine.start(booked, name, 1) for name in ("in_thread", "on_loop")]
        for _ in range(50):
            await asyncio.sleep(0)
        assert not calls
        other.execute("commit")
        other.close()
        for handle in handles:
            assert await handle.result(timeout="30s") == [1]
    assert len(rows("orders.db")) == 2


@task(transaction=ORDERS)
def unbook(amount: int, result: Any) -> None:
    book(-amount)


@task(transaction=ORDERS, compensate=unbook)
def bookable(amount: int) -> int:
    return book(amount)


@workflow
async def undone() -> None:
    await bookable(3)
    raise Refused


async def test_a_compensation_commits_with_its_outcome_too() -> None:
    """Goal: what is undone is undone once, in a row of outcomes of its own."""
    async with perdure.open(STORE, workflows=[undone]) as engine:
        handle = await engine.start(undone)
        with pytest.raises(RunFailed):
            await handle.result(timeout="30s")
        await audited(engine, handle.id)
    assert [amount for _, amount in rows("orders.db")] == [3, -3]
    assert len(rows("orders.db", "perdure_outcomes")) == 2


async def test_a_store_without_a_file_says_that_there_is_none() -> None:
    """Goal: `transaction=True` in memory fails the step with the remedy, and nothing is run."""
    async with perdure.open("memory:", workflows=[booked]) as engine:
        with pytest.raises(RunFailed, match="give the address of one"):
            await (await engine.start(booked, "in_own_file", 1)).result(timeout="30s")
    assert not calls


async def test_a_file_that_is_none_fails_the_step(tmp_path: Path) -> None:
    """Goal: a folder that is not there, or a file that is no database, is said at once."""
    (tmp_path / "text.db").write_text("this is text, " * 1_000)
    async with perdure.open(STORE, workflows=[calling]) as engine:
        for name in ("nowhere", "text"):
            with pytest.raises(RunFailed, match="name a SQLite file"):
                await (await engine.start(calling, name)).result(timeout="30s")


@task(transaction="sqlite:///no/such/folder.db")
def nowhere() -> None:
    raise NotImplementedError


@task(transaction="sqlite:///text.db")
async def text() -> None:
    raise NotImplementedError


@task
def without() -> None:
    perdure.transaction()


async def test_a_task_without_one_is_told_so() -> None:
    """Goal: `perdure.transaction()` names the option where there is none."""
    with pytest.raises(perdure.NotInWorkflow):
        perdure.transaction()
    async with perdure.open(STORE, workflows=[calling]) as engine:
        with pytest.raises(RunFailed, match="transaction="):
            await (await engine.start(calling, "without")).result(timeout="30s")


OTHERS = {
    one.name: one
    for one in (
        fails_once, gives_what_cannot_be_kept, gives_too_much, commits_itself, goes_on_in_its_thread, computes_in_sql,
        takes_no_notice, quick, waits, soon_over, soon_over_and_waiting, holds, waits_for_the_engine, nowhere, text, without,
    )
}  # fmt: skip
