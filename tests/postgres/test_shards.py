"""Two engines share the runs of one store: what is for a run of the other goes there, and comes back (D4)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import perdure
from perdure import task, wait_signal, workflow
from perdure.model.shard import SHARDS, shard_of
from perdure.runtime.engine import Engine
from tests.crash.harness import audited
from tests.postgres.server import Server

HALVES = (range(SHARDS // 2), range(SHARDS // 2, SHARDS))


@task
async def double(number: int) -> int:
    return 2 * number


@workflow
async def leaf(number: int) -> int:
    return await double(number) + await wait_signal("go", int)


@workflow
async def root(count: int) -> int:
    return sum(await asyncio.gather(*(leaf(number) for number in range(count))))


async def two(stack: AsyncExitStack, address: str) -> list[Engine]:
    """Two engines, each with half of the shards."""
    engines = [await stack.enter_async_context(perdure.open(address, [root, leaf])) for _ in HALVES]
    for engine, shards in zip(engines, HALVES, strict=True):
        engine.node.territory.shards = frozenset(shards)
        engine.borders.gained(shards)
    return engines


async def test_children_signals_and_results_cross_between_nodes(postgres: Server) -> None:
    """Goal: a run's children live on both nodes, are signalled through either, and tell the parent where it is."""
    address = postgres.address()
    async with AsyncExitStack() as stack:
        left, right = await two(stack, address)
        run = await left.start(root, 12)
        assert shard_of(run.id) in HALVES[0]
        async with perdure.connect(address, [root, leaf]) as client:
            while len(children := [row.id async for row in client.runs(workflow="leaf", limit=None)]) < 12:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # durable: until all have begun
        assert {shard_of(child) < SHARDS // 2 for child in children} == {True, False}
        await asyncio.gather(
            *(engine.signal(child, "go", 1) for child, engine in zip(children, [left, right] * 6, strict=True))
        )
        assert await right.get(run.id).result("60s") == sum(2 * number + 1 for number in range(12))
        assert await left.get(run.id).result("60s") == sum(2 * number + 1 for number in range(12))
        rows = [row async for row in left.runs(limit=None)]
        assert {row.epoch for row in rows} == {left.epoch, right.epoch}
    await audited(address, root, leaf)


async def test_shards_that_are_handed_over_take_their_runs_along(postgres: Server) -> None:
    """Goal: a node lets half of its runs go while they wait; the other goes on with them, and no crash is recorded."""
    address = postgres.address()
    async with AsyncExitStack() as stack:
        left, right = await two(stack, address)
        runs = [await left.start(leaf, number, id=f"run-{number}") for number in range(20)]
        waiting = [asyncio.create_task(run.result("60s")) for run in runs]
        going = frozenset(range(16))
        await left.borders.leave(going, 5)
        assert not any(shard_of(run_id) in going for run_id in left.node.advance.runs)
        right.borders.gained(going, {(shard, left.epoch) for shard in going})
        await asyncio.gather(*(left.signal(run.id, "go", 1) for run in runs))
        assert await asyncio.gather(*waiting) == [2 * number + 1 for number in range(20)]
        moved = [row async for row in right.runs(limit=None) if shard_of(row.id) in going]
        assert moved
        assert {row.epoch for row in moved} == {right.epoch}
    histories = await audited(address, root, leaf)
    assert not any(type(fact).__name__ == "RunRecovered" for history in histories.values() for fact in history)
