"""Workflows that are called by others."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure import RunFailed, continue_as_new, detach, variables, wait_signal, workflow
from tests.flows.tasks import break_down, double, echo


@workflow
async def leaf(value: int) -> int:
    return await double(value)


@workflow
async def bough(value: int) -> int:
    return await leaf(value)


@workflow
async def sleeper(seconds: int) -> str:
    try:
        await asyncio.sleep(seconds)  # durable
    finally:
        await echo("child tidied up")
    return "slept"


@workflow
async def failing(text: str) -> None:
    await break_down(text)


@workflow
async def catching(text: str) -> list[Any]:
    try:
        await failing(text)
    except RunFailed as error:
        return [error.failure.type, error.failure.message, error.failure.step]
    return []


@workflow
async def calls_two(value: int) -> list[int]:
    return list(await asyncio.gather(leaf(value), bough(value + 1)))


@workflow
async def calls_sleeper(seconds: int) -> str:
    return await sleeper(seconds)


@workflow
async def frees(seconds: int) -> str:
    detach(sleeper(seconds))
    return "freed"


@workflow
async def gives_up(seconds: int) -> str:
    try:
        return await asyncio.wait_for(sleeper(seconds), 60)
    except TimeoutError:
        return "too slow"


@workflow
async def called_and_left(value: int) -> str:
    child = leaf(value)
    del child
    return "returned"


@workflow
async def called_failing_and_left(text: str) -> str:
    child = failing(text)
    del child
    return "returned"


@workflow
async def deeper(level: int) -> int:
    """Recursion without an end."""
    return await deeper(level + 1)


@workflow
async def deeper_by_generations(level: int, again: bool = True) -> int:
    """Recursion that continues as new at every level."""
    if again:
        continue_as_new(level, False)
    return await deeper_by_generations(level + 1)


@workflow
async def waiting_child(name: str) -> int:
    return await wait_signal(name, int)  # type: ignore[no-any-return]


@workflow
async def counts_generations(left: int, seen: list[str]) -> list[str]:
    variables["left"] = left
    await double(left)
    if left:
        continue_as_new(left - 1, [*seen, str(left)])
    unread = [await wait_signal("note", str) for _ in range(3)]
    return [*seen, *unread, str(variables["kept"]) if "kept" in variables else ""]
