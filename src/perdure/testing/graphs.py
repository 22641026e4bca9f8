"""Graphs drawn at random: joins, maps, conditions, failing steps, nested graphs.

Every step gives a number or a list of numbers that follows from the graph's input alone, and where a join may fire
before all of its steps have ended it carries no data, so that a run ends alike whatever order things happened in.
"""

from __future__ import annotations

import inspect
from random import Random
from typing import Any

from perdure.authoring.definition import Graph, GraphBuilder
from perdure.authoring.task import task
from perdure.model.graph import StepRef
from perdure.model.policy import Retry
from perdure.runtime.attempt import attempt


class Refused(Exception):
    """A step's failure that a graph asked for."""


@task
async def total(values: list[Any], n: int) -> int:
    """The sum of all numbers, however deep; what is missing counts nothing."""
    return n + _sum(values)


@task
def spread(values: list[Any], n: int) -> list[int]:
    return [_sum(values) + i for i in range(n)]


@task
async def double(value: int) -> int:
    return 2 * value


@task(retry=Retry(attempts=3, first="1s", jitter=False))
async def second_try(values: list[Any], n: int) -> int:
    if attempt() < 2:
        raise Refused(f"attempt {attempt()}")
    return n + _sum(values)


@task
async def refused(values: list[Any], n: int) -> int:
    raise Refused(f"no {n} of {values}")


def _sum(value: Any) -> int:
    if isinstance(value, list):
        return sum(_sum(item) for item in value)
    if isinstance(value, dict):
        return sum(_sum(item) for item in value.values())
    return int(value or 0)


class _Even:
    """A condition over one step: its result is even, or missing."""

    __module__ = __name__

    def __init__(self, step: str) -> None:
        self.__signature__ = inspect.Signature([inspect.Parameter(step, inspect.Parameter.POSITIONAL_OR_KEYWORD)])

    def __call__(self, **values: Any) -> bool:
        return all(_sum(value) % 2 == 0 for value in values.values())


def draw_graph(
    random: Random, size: int = 8, *, fails: bool = True, name: str = "drawn", depth: int = 1
) -> Graph[..., Any]:
    """A graph of about so many steps over the input `n`; the same random state draws the same graph.

    Shape: `fails`: some steps may fail; `depth` graphs may be nested in it.
    """
    build = GraphBuilder(name, parameters=["n"])
    steps: list[StepRef] = []
    for number in range(random.randint(2, max(2, size))):
        if depth and random.random() > 0.92:
            steps.append(_child(build, random, steps, f"s{number}", depth - 1))
        else:
            steps.append(_step(build, random, steps, f"s{number}", fails=fails))
    return build.build()


def _step(build: GraphBuilder, random: Random, steps: list[StepRef], name: str, *, fails: bool) -> StepRef:
    needs = random.sample(steps, min(len(steps), random.choice((0, 1, 1, 2, 3))))
    values, after, join = _needs(random, needs)
    given: dict[str, Any] = {"name": name, "after": after, "join": join}
    if needs and random.random() > 0.75:
        given["when"] = _Even(random.choice(needs).step)
    if values and random.random() > 0.85:
        listed = build.add(spread, name=f"{name}_list", args={"values": values, "n": random.randint(0, 3)})
        return build.add(double, name=name, args={"value": listed}, map="value")
    kinds: list[Any] = [total, total, total, second_try, *([refused] if fails else [])]
    return build.add(
        random.choice(kinds), args={"values": [*values, build.input("n")], "n": random.randint(0, 9)}, **given
    )


def _needs(random: Random, needs: list[StepRef]) -> tuple[list[StepRef], list[StepRef], Any]:
    """How a step depends on others: by data, by order, by which join."""
    join: Any = random.choice(("succeeded", "succeeded", "done", "any", 1)) if needs else "succeeded"
    if join in {"succeeded", "done"}:
        cut = random.randint(0, len(needs))
        return needs[:cut], needs[cut:], join
    return [], needs, join


def _child(build: GraphBuilder, random: Random, steps: list[StepRef], name: str, depth: int) -> StepRef:
    inner = draw_graph(random, 3, fails=False, name=f"{build.name}_{name}", depth=depth)
    return build.add(inner, name=name, args={"n": random.randint(0, 9)}, after=steps[-1:], join="done")
