"""Flows that would go on for ever, block, or wait for nobody."""

from __future__ import annotations

import asyncio

from perdure import continue_as_new, graph, task, workflow
from tests.flows.tasks import double, thrice


@workflow
async def spins() -> None:
    while True:  # noqa: ASYNC110 - without an end
        await asyncio.sleep(0)


@workflow
async def spins_in_tasks() -> None:
    async def nothing() -> None:
        return

    while True:
        await asyncio.create_task(nothing())


@workflow
async def calls_itself_back() -> None:
    loop = asyncio.get_running_loop()

    def again() -> None:
        loop.call_soon(again)

    again()
    await double(1)


@workflow
async def continues_for_ever(number: int) -> None:
    continue_as_new(number + 1)


@workflow
async def fans_out_for_ever() -> None:
    steps = []
    while True:
        steps.append(double(len(steps)))


@workflow
async def computes() -> int:
    number = 0
    while True:
        number += 1


@workflow
async def computes_stubbornly() -> int:
    number = 0
    try:
        while True:
            number += 1
    except BaseException:  # noqa: BLE001 - a flow that swallows its interruption
        return number


@task
async def blocks() -> int:
    number = 0
    while True:
        number += 1


@workflow
async def calls_a_blocker() -> int:
    return await blocks()


def _for_ever(double: int) -> bool:
    while True:
        double += 1


@graph
def judges_for_ever(number: int) -> None:
    first = double(number)
    thrice(first).when(_for_ever)  # type: ignore[attr-defined]


@workflow
async def waits_for_nobody() -> None:
    await asyncio.get_running_loop().create_future()


@workflow
async def locks_itself() -> None:
    lock = asyncio.Lock()
    async with lock, lock:
        await double(1)


@workflow
async def waits_behind_a_step() -> None:
    await double(1)
    await asyncio.Event().wait()
