"""What a node tells whoever watches it."""

from __future__ import annotations

import asyncio

import perdure
from perdure import Retry, task, workflow
from perdure.runtime.figures import NodeFigures


@task
async def hold(gate: str) -> None:
    perdure.heartbeat(gate)
    begun.set()
    await gates.wait()


@task(retry=Retry(attempts=3, first="1ms", max="1ms"))
async def flaky(fails: int) -> int:
    if perdure.attempt() <= fails:
        raise ValueError(fails)
    return fails


@workflow
async def child(n: int) -> int:
    return n


@workflow
async def busy() -> None:
    holding = hold("here")
    await asyncio.gather(flaky(0), flaky(2), child(1))
    await asyncio.gather(flaky(5), return_exceptions=True)
    await holding


begun: asyncio.Event
gates: asyncio.Event


async def test_figures_count_what_was_committed_and_name_what_runs() -> None:
    """Goal: done, failed and retried are those of the history; running steps are told with their progress."""
    global begun, gates
    begun, gates = asyncio.Event(), asyncio.Event()
    async with perdure.open("memory:", workflows=[busy]) as engine:
        figures = NodeFigures(engine.node)
        figures.begin()
        failed = asyncio.Event()
        engine.node.on_commit.append(lambda _: failed.set() if figures.failed else None)
        handle = await engine.start(busy)
        await begun.wait()
        await failed.wait()
        now = figures.look(10)
        assert [(step.key, step.attempt, step.progress) for step in now.steps] == [("hold#1", 1, b'"here"')]
        assert (now.running, now.queued) == (1, 0)
        assert figures.look(0).steps == []
        gates.set()
        await handle.result()
        assert (figures.done, figures.retried, figures.failed) == (4, 4, 1)
        figures.end()
        await (await engine.start(child, 1)).result()
        assert figures.done == 4
        assert figures._count not in engine.node.on_commit
