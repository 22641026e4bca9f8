"""A flow that leaves memory is gone at once: no ring of references keeps it until the collector comes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

import perdure
from perdure.authoring.registry import Registry
from perdure.kernel.flow import Flow
from perdure.model import fact as f


@perdure.task
async def step(number: int) -> int:
    return number


@perdure.workflow
async def sleeps() -> None:
    await asyncio.sleep(60)  # durable


@perdure.workflow
async def listens() -> None:
    await perdure.wait_signal("go", int)


@perdure.workflow
async def listens_for_a_while() -> None:
    await perdure.wait_signal("go", int, timeout=60)


@perdure.workflow
async def gathers() -> None:
    await asyncio.gather(*[step(i) for i in range(3)])


@perdure.workflow
async def groups() -> None:
    async def part(number: int) -> None:
        try:
            await step(number)
        finally:
            await step(-number)

    async with asyncio.TaskGroup() as group:
        for i in range(3):
            group.create_task(part(i))


@perdure.workflow
async def calls_a_child() -> None:
    perdure.variables["called"] = True
    await sleeps()


@perdure.workflow
async def returns() -> int:
    return 1


@perdure.workflow
async def fails() -> None:
    raise ValueError("it fails")


FLOWS = [sleeps, listens, listens_for_a_while, gathers, groups, calls_a_child, returns, fails]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("workflow", FLOWS, ids=[flow.name for flow in FLOWS])
def test_a_dropped_flow_is_freed_without_the_collector(workflow: perdure.Flow) -> None:
    """Goal: 100,000 sleeping runs cost what their index entries cost, however seldom the collector comes round."""
    flow = Flow("run-1", workflow, Registry(FLOWS))
    input_ = workflow.signature.pack((), {}, 1_000)[0]
    flow.on(f.RunStarted(1, 0, 0, workflow.name, "1", "", f.Raw(input_), 7, "3.11", "0"), 1)
    assert flow.trouble is None
    flow.drop()
    kept = weakref.ref(flow)
    del flow
    assert kept() is None
