"""Programs whose runs were recorded by earlier versions. They are never changed: a recorded history is of this text."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import Any

import perdure
from perdure import Retry, continue_as_new, detach, graph, patched, signal_run, task, variables, wait_signal, workflow


class Declined(Exception):
    """A declared exception."""

    def __init__(self, order: str) -> None:
        super().__init__(order)
        self.order = order


@dataclass
class Order:
    id: str
    cents: int
    placed: dt.date


@task
async def refund(order: Order, receipt: str) -> str:
    return f"refunded {order.id}, {receipt}"


@task(compensate=refund, raises=(Declined,), retry=Retry(attempts=3, first="1s"))
async def charge(order: Order) -> str:
    if order.id == "declined":
        raise Declined(order.id)
    if perdure.attempt() == 1:
        raise OSError("the line is busy")
    return f"charged {order.cents}"


@task(at_most_once=True)
async def ship(order: Order) -> dict[str, Any]:
    return {"order": order, "boxes": [1, 2.5, None, "ß"]}


@task
async def note(text: str) -> str:
    return text


@workflow
async def invoice(order: Order) -> str:
    return await note("x" * 40_000)  # a blob


@workflow(version="3")
async def fulfil(order: Order) -> dict[str, Any]:
    """Steps side by side, retries, a child, a detached run, timers, variables, a patch, random values."""
    variables["stage"] = "charging"
    try:
        paid = await charge(order)
    except Declined as error:
        return {"declined": error.order}
    await asyncio.sleep(3600)  # durable
    both = await asyncio.gather(note(f"a{perdure.uuid()}"), note(f"b{perdure.random():.3f}"))
    bill = await invoice(order)
    if patched("thank-you"):
        detach(thank(order.id))
    sent = await ship(order)
    return {"paid": paid, "notes": len(both), "bill": len(bill), "boxes": sent["boxes"]}


@workflow
async def thank(order: str) -> str:
    return await note(f"thank you for {order}")


@workflow
async def approve(order: Order) -> str:
    """Waits for a person; what was charged is refunded when it is cancelled."""
    await charge(order)
    try:
        async with asyncio.timeout(86_400 if order.cents < 2_000 else None):
            said = await wait_signal("approval", str)
    except TimeoutError:
        return "nobody said anything"
    return await note(said)


@workflow
async def count_down(left: int) -> str:
    """Goes through generations, and tells another run."""
    await note(str(left))
    if left:
        continue_as_new(left - 1)
    signal_run("waits", "approval", "from the countdown")
    return "over"


@task
def read(day: str) -> list[int]:
    return [len(day), 4]


@task
def double(number: int) -> int:
    return number * 2


@task
def total(numbers: list[int], extra: int) -> int:
    return sum(numbers) + extra


@graph
def figures(day: str) -> Any:
    """A step, one mapped over its result, a condition, a step after another."""
    found = read(day)
    doubled = double.map(found)
    double(100).when(lambda day: day == "never")
    return total(doubled, double(5).after(found))


SERVED = (fulfil, invoice, thank, approve, count_down, figures)
