"""Flows that fail while something with a compensation is in flight, done, or in doubt (S17, S18)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NamedTuple

from perdure import UNKNOWN, task, workflow
from tests.flows.tasks import DONE, break_down


class Settles(NamedTuple):
    flow: Any
    undone: list[str]


@task
async def undo(name: str, seconds: float, result: Any) -> None:
    DONE.append(f"undo {name} {'unknown' if result is UNKNOWN else result}")


@task(compensate=undo)
async def charge(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)  # work
    return f"got {name}"


@task(compensate=undo, timeout="10s")
async def charge_in_time(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)  # work
    return f"got {name}"


@task(compensate=undo)
async def charge_badly(name: str, seconds: float) -> str:
    raise ValueError(name)


@workflow
async def fails_beside_a_charge() -> None:
    await asyncio.gather(charge("late", 1), break_down("reserve"))


@workflow
async def gives_up_a_charge() -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(charge("given up", 100), 10)
    await break_down("later")


@workflow
async def in_doubt() -> None:
    await charge("sure", 0)
    await charge_in_time("doubtful", 100)


@workflow
async def in_order() -> None:
    await asyncio.gather(charge("slow", 30), charge("quick", 10), charge("middle", 20))
    await break_down("after all")


@workflow
async def not_begun() -> None:
    step = charge("never begun", 0)
    step.cancel()  # type: ignore[attr-defined]
    await charge_badly("did nothing", 0)


@task
async def undo_child(name: str, result: Any) -> None:
    DONE.append(f"undo child {name} {result}")


@workflow(compensate=undo_child)
async def paying_child(name: str) -> str:
    return await charge(name, 1)


@workflow
async def after_a_child() -> None:
    await charge("first", 0)
    await paying_child("child")
    await break_down("after it")


CASES = [
    Settles(fails_beside_a_charge, ["undo late got late"]),
    Settles(gives_up_a_charge, ["undo given up got given up"]),
    Settles(in_doubt, ["undo doubtful unknown", "undo sure got sure"]),
    Settles(in_order, ["undo slow got slow", "undo middle got middle", "undo quick got quick"]),
    Settles(not_begun, []),
    Settles(after_a_child, ["undo child child got child", "undo first got first"]),
]
