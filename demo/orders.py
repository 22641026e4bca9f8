"""Part 2: the order flow. A payment that fails first, an approval from another process, and what is undone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from perdure import Retry, attempt, idempotency_key, task, variables, wait_signal, workflow

DAY_S = 0.5  # a day of the demo, in seconds: 86_400 outside of it


@dataclass
class Order:
    id: str
    cents: int


@dataclass
class Approval:
    by: str
    ok: bool


@task
def refund(order: Order, payment_id: str) -> None:
    print(f"    refunded {order.cents} cents: {payment_id}", flush=True)


@task
def release(order: Order, place: str) -> None:
    print(f"    released {place} of order {order.id}", flush=True)


@task(retry=Retry(attempts=5, first="200ms", factor=2, max="1m"), timeout="30s", compensate=refund)
async def charge(order: Order) -> str:
    if attempt() == 1:
        raise ConnectionError("the payment service did not answer")
    return f"{order.cents} cents, payment {idempotency_key()}"


@task(compensate=release)
def reserve(order: Order) -> str:
    return f"shelf {len(order.id)}"


@workflow(version="2")
async def fulfil(order: Order) -> dict[str, str]:
    payment, stock = await asyncio.gather(charge(order), reserve(order))  # in parallel, durable
    variables["stage"] = "paid"  # visible from outside
    if order.cents > 100_000:
        approval = await wait_signal("approval", Approval, timeout=timedelta(days=3))
        if not approval.ok:
            raise RuntimeError(f"refused by {approval.by}")  # the run fails; charge and reserve are undone
    await asyncio.sleep(2 * DAY_S)  # two durable days
    return {"payment": payment, "stock": stock}
