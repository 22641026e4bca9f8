"""Large graphs, and how the time for something grows with their size."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import process_time
from typing import Any

from perdure import graph, task
from perdure.authoring.definition import Graph

# Four times the size: linear work takes 4 times as long, quadratic work 16 times.
TIMES = 4
GROWTH_MAX = 9.0


@task
async def start() -> int:
    return 0


@task
async def one(n: int = 0) -> int:
    return n + 1


@task
async def count(numbers: list[int | None]) -> int:
    return len(numbers)


@task
async def upto(n: int) -> list[int]:
    return list(range(n))


TASKS = {"start": start, "one": one, "count": count, "upto": upto}


def chain(size: int) -> Graph[..., Any]:
    """Each step after the one before it."""

    @graph(name="chain")
    def made() -> Any:
        last = start()
        for _ in range(size - 1):
            last = one(last)
        return last

    return made


def wide(size: int) -> Graph[..., Any]:
    """So many steps beside each other, and one that takes them all."""

    @graph(name="wide")
    def made() -> Any:
        return count([one(i) for i in range(size)])

    return made


def mapped(size: int) -> Graph[..., Any]:
    """A fan-out over so many items."""

    @graph(name="mapped")
    def made() -> Any:
        return count(one.map(upto(size)))

    return made


def layers(depth: int, width: int = 100) -> Graph[..., Any]:
    """Layers of which each step takes all of the layer before."""

    @graph(name="layers")
    def made() -> Any:
        last = [one(i) for i in range(width)]
        for _ in range(depth - 1):
            last = [count(last) for _ in range(width)]
        return count(last)

    return made


def ordered(depth: int, width: int = 100) -> Graph[..., Any]:
    """The same layers, by order alone."""

    @graph(name="ordered")
    def made() -> Any:
        last: list[Any] = []
        for _ in range(depth):
            last = [start().after(*last) for _ in range(width)]

    return made


def joined(size: int) -> Graph[..., Any]:
    """A step of each join rule over so many steps."""

    @graph(name="joined")
    def made() -> Any:
        steps = [one(i) for i in range(size)]
        return [count(steps).named(f"join_{join}").after(join=join) for join in ("done", "any", size)]

    return made


SHAPES: dict[str, tuple[Callable[[int], Graph[..., Any]], int]] = {
    "chain": (chain, 10_000),
    "wide": (wide, 10_000),
    "mapped": (mapped, 10_000),
    "layers": (layers, 100),
    "ordered": (ordered, 100),
    "joined": (joined, 10_000),
}


def seconds(work: Callable[[], Any]) -> float:
    """The processor time of one call, without the collector's. Units: seconds."""
    gc.collect()
    gc.disable()
    try:
        begun = process_time()
        work()
        return process_time() - begun
    finally:
        gc.enable()


def steady(work: Callable[[Any], Callable[[], Any]], small: Any, large: Any) -> bool:
    """Whether the work grows with the size, and not with its square; looked at again, since others use the machine."""
    return any(seconds(work(large)) < GROWTH_MAX * seconds(work(small)) for _ in range(3))
