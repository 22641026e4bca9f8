"""Where COMMIT runs (S30)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

import perdure
from perdure.errors import StoreError, StoreLost
from perdure.runtime.live import LiveRun
from perdure.runtime.work import Item
from perdure.state.sqlite import SqliteStore
from perdure.state.sqlite_pace import BESIDE_MAX, LOOK_EVERY, Pace
from tests.crash.harness import audited, until_async
from tests.state import programs
from tests.state.paces import beside_the_loop

ADDRESS = "sqlite:///pace.db"


def test_a_slow_disk_moves_commit_to_a_thread() -> None:
    """Goal: a loop is not held up by a disk that takes long to sync."""
    pace = Pace(0.005)
    for _ in range(LOOK_EVERY):
        pace.took(0.006, 1)
    assert pace.slow


def test_a_quick_disk_leaves_it_on_the_loop_however_large_the_batches_are() -> None:
    """Goal: what a large batch takes to be written is not taken for the slowness of the disk."""
    pace = Pace(0.005)
    for _ in range(10 * LOOK_EVERY):
        pace.took(0.011, 4_000)
    assert not pace.slow


def test_it_comes_back_when_the_disk_is_quick_again_and_goes_when_it_is_not() -> None:
    """Goal: one bad minute of the disk does not keep COMMIT beside the loop for good."""
    pace = Pace(0.005)
    for _ in range(LOOK_EVERY):
        pace.took(0.006, 1)
    for _ in range(BESIDE_MAX):
        assert pace.slow
        pace.beside()
    for _ in range(2 * LOOK_EVERY):
        assert not pace.slow
        pace.took(0.001, 1)
    for _ in range(3 * LOOK_EVERY):
        pace.took(0.006, 1)
    assert pace.slow


def in_threads(threads: Counter[str]) -> int:
    return sum(count for name, count in threads.items() if name.startswith("perdure-commit"))


async def test_s30_runs_end_alike_whose_commits_are_made_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: steps, timers, signals, children and blobs, and a stop in the middle, beside the thread that commits."""
    threads = beside_the_loop(monkeypatch)
    programs.fresh()
    async with perdure.open(ADDRESS, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        runs = [await engine.start(programs.waits, number, id=f"w{number}") for number in range(20)]
        one = await engine.start(programs.mixed, 3, id="one")
        await asyncio.gather(*(run.signal("go", 1) for run in runs), one.signal("go", 7))
        assert await one.result("60s") == programs.RESULT
    async with perdure.open(ADDRESS, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        ended = [await engine.get(run.id).result("60s") for run in runs]
    assert ended == [2 * (2 * number + 1) for number in range(20)]
    assert in_threads(threads) > 10
    await audited(ADDRESS, programs.mixed, programs.waits, programs.inner)


async def test_s30_nobody_is_told_of_what_is_written_while_commit_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: the loop is free during a COMMIT in a thread; what it writes is acknowledged after it, and seen by none before."""
    held, gate = threading.Event(), threading.Event()
    gate.set()

    def hold(store: SqliteStore) -> None:
        if threading.current_thread().name.startswith("perdure-commit"):
            held.set()
            assert gate.wait(60)

    beside_the_loop(monkeypatch, hold)
    async with perdure.open(ADDRESS, [programs.waits], **programs.SETTINGS) as engine:
        await engine.start(programs.waits, 1, id="a")
        await until_async(lambda: engine.node.flying is None, "all is committed")
        held.clear(), gate.clear()
        first = asyncio.create_task(engine.start(programs.waits, 2, id="b"))
        await until_async(held.is_set, "a COMMIT is under way")
        second = asyncio.create_task(engine.start(programs.waits, 3, id="c"))
        await until_async(lambda: engine.node.queue or "c" in engine.node.advance.runs, "it is asked for")
        assert {run.id async for run in engine.runs()} == {"a"}
        assert not first.done()
        assert not second.done()
        gate.set()
        assert [(await first).id, (await second).id] == ["b", "c"]
        assert {run.id async for run in engine.runs()} == {"a", "b", "c"}
    await audited(ADDRESS, programs.waits)


async def test_s30_a_commit_that_fails_in_a_thread_loses_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: as on the loop (S27): who waits for it is told StoreLost, and nothing is acknowledged any more."""
    fails = threading.Event()

    def fail(store: SqliteStore) -> None:
        if fails.is_set() and threading.current_thread().name.startswith("perdure-commit"):
            store._roll_back()
            store._lost = StoreLost("a sync failed")
            raise store._lost

    beside_the_loop(monkeypatch, fail)
    async with perdure.open(ADDRESS, [programs.waits], **programs.SETTINGS) as engine:
        run = await engine.start(programs.waits, 1, id="a")
        waiting = asyncio.create_task(run.result())
        await until_async(lambda: engine.node.flying is None, "all is committed")
        fails.set()
        with pytest.raises(StoreLost):
            await engine.start(programs.waits, 2, id="b")
        with pytest.raises(StoreLost):
            await waiting
        with pytest.raises(StoreError):
            await engine.start(programs.waits, 3, id="c")
    fails.clear()
    async with perdure.open(ADDRESS, [programs.waits], **programs.SETTINGS) as engine:
        assert {one.id async for one in engine.runs()} == {"a"}
    await audited(ADDRESS, programs.waits)


async def test_s30_folding_goes_on_beside_a_commit_and_is_told_when_it_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: during a COMMIT in a thread a run ends; that is seen after the next COMMIT, by callers and waiters alike."""
    free, begun, let = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)
    free.set()

    def hold(store: SqliteStore) -> None:
        if threading.current_thread().name.startswith("perdure-commit") and not free.is_set():
            begun.release()
            assert let.acquire(timeout=60)

    beside_the_loop(monkeypatch, hold)
    programs.fresh()
    async with perdure.open(ADDRESS, [programs.hears], **programs.SETTINGS) as engine:
        run = await engine.start(programs.hears, 2, id="a")
        await until_async(lambda: engine.node.flying is None, "all is committed")
        free.clear()
        first = asyncio.create_task(run.signal("go", 1))
        await until_async(lambda: begun.acquire(blocking=False), "the first COMMIT is under way")
        second, result = asyncio.create_task(run.signal("go", 2)), asyncio.create_task(run.result("60s"))
        await until_async(lambda: programs.heard == [1, 2], "its code has gone on to its end")
        assert not first.done()
        let.release()
        await first
        await until_async(lambda: begun.acquire(blocking=False), "the second COMMIT is under way")
        assert not second.done()
        assert not result.done()
        assert await run.status() != "completed"
        free.set(), let.release()
        await second
        assert await result == [1, 2]
    await audited(ADDRESS, programs.hears)


async def test_s30_what_cannot_be_folded_beside_a_commit_is_set_aside_when_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: an unforeseen error while folding ahead costs its own run, and nothing of the commit in flight."""
    free, begun = threading.Event(), threading.Event()
    free.set()

    def hold(store: SqliteStore) -> None:
        if threading.current_thread().name.startswith("perdure-commit") and not free.is_set():
            begun.set()
            assert free.wait(60)

    beside_the_loop(monkeypatch, hold)
    programs.fresh()
    async with perdure.open(ADDRESS, [programs.hears], **programs.SETTINGS) as engine:
        good, bad = [await engine.start(programs.hears, 2, id=id) for id in ("good", "bad")]
        await until_async(lambda: engine.node.flying is None, "all is committed")
        fold, broken = engine.node.fold_into, []

        def fold_into(run: LiveRun, item: Item) -> None:
            if run.id == "bad":
                broken.append(engine.node.flying is not None)
                raise RuntimeError("cannot be folded")
            fold(run, item)

        monkeypatch.setattr(engine.node, "fold_into", fold_into)
        free.clear()
        first = asyncio.create_task(good.signal("go", 1))
        await until_async(begun.is_set, "a COMMIT is under way")
        wrong, second = asyncio.create_task(bad.signal("go", 1)), asyncio.create_task(good.signal("go", 2))
        await until_async(lambda: broken == [True], "it broke beside the COMMIT")
        free.set()
        await asyncio.gather(first, second)
        assert await good.result("60s") == [1, 2]
        await wrong
        assert (await bad.status(), broken) == ("attention", [True])
    await audited(ADDRESS, programs.hears)
