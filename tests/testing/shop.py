"""Workflows that the kit's own tests run, sound ones and some that are not durable."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from perdure import Retry, graph, run_id, task, variables, wait_signal, workflow
from perdure.runtime.attempt import attempt
from perdure.testing import World

# What survives a simulated crash and would not survive a real one: the planted bugs rest on it.
MEMORY: list[int] = []


@task
async def refund(cents: int, payment: str) -> None: ...


@task(compensate=refund)
async def charge(cents: int) -> str:
    return f"paid {cents}"


@task(retry=Retry(attempts=3, first="1s", jitter=False))
async def reserve(cents: int) -> str:
    if attempt() < 2:
        raise RuntimeError("out of stock")
    return f"reserved {cents}"


@task
def label(text: str) -> str:
    return text.upper()


@workflow
async def pack(text: str) -> str:
    return await label(text)


@workflow
async def order(cents: int) -> str:
    """Everything that a run may wait for: steps, a retry, a child, a signal, a timer."""
    payment, stock = await asyncio.gather(charge(cents), reserve(cents))
    variables["stage"] = "paid"
    said: str = await wait_signal("approval", str, timeout=timedelta(days=3))
    if said != "yes":
        raise RuntimeError(f"refused: {said}")
    await asyncio.sleep(86_400)  # durable
    return f"{payment}, {stock}, {await pack('box')}"


def approve(world: World, run: str) -> None:
    world.signal_at("2h", run, "approval", "yes")


def refuse(world: World, run: str) -> None:
    world.signal_at("2h", run, "approval", "no")


@task
async def double(n: int) -> int:
    return 2 * n


@task
def listed(n: int) -> list[int]:
    return list(range(n))


@task(retry=Retry(attempts=2, first="1s", jitter=False))
async def summed(values: list[int], more: int) -> int:
    if attempt() < 2:
        raise RuntimeError("not yet")
    return sum(values) + more


@graph
def tally(n: int) -> Any:
    return summed(double.map(listed(n)), double(n))


@workflow
async def two_steps(n: int) -> int:
    return await double(n) + await double(n + 1)


@workflow
async def remind(name: str) -> str:
    await asyncio.sleep(3 * 86_400)  # durable
    return f"reminded {name}"


# --- not durable -------------------------------------------------------------------------------------


@workflow
async def counts_in_memory(n: int) -> int:
    """Its result depends on what the process remembers, so that a replay gives another."""
    MEMORY.append(n)
    await double(n)
    return len(MEMORY)


@workflow
async def asks_by_memory(n: int) -> int:
    """What it asks for depends on what the process remembers."""
    MEMORY.append(n)
    return await double(n + len(MEMORY))


@task
async def withdraw(n: int) -> int:
    """Is made again after a crash, and does not say so to anybody: its effect is doubled."""
    MEMORY.append(n)
    return len(MEMORY)


@workflow
async def withdraws(n: int) -> int:
    return await withdraw(n)


@workflow
async def named() -> str:
    return run_id()
