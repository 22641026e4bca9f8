"""Flows and graphs whose histories grow."""

from __future__ import annotations

from perdure import continue_as_new, graph, task, wait_signal, workflow


@task
async def one(n: int) -> int:
    return n


@workflow
async def counts(upto: int) -> int:
    """One fact a turn, so that its history grows by as many."""
    total = 0
    for n in range(upto):
        total += await one(n)
    return total


@workflow
async def counts_in_parts(upto: int, each: int, total: int = 0) -> int:
    """The same, in generations of bounded length."""
    for n in range(upto, max(0, upto - each), -1):
        total += await one(n)
    if upto > each:
        continue_as_new(upto - each, each, total)
    return total


@workflow
async def hears(count: int) -> int:
    total = 0
    for _ in range(count):
        total += await wait_signal("n", int)
    return total


@task
def listed(n: int) -> list[int]:
    return list(range(n))


@graph
def spreads(n: int) -> list[int]:
    return one.map(listed(n))  # type: ignore[return-value]
