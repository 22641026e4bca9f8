"""Flows that are signalled, cancelled, or race with what happens to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from perdure import Retry, continue_as_new, signal_run, task, variables, wait_signal, workflow
from tests.flows.children import sleeper, waiting_child
from tests.flows.tasks import double, echo


@dataclass
class Approval:
    by: str
    ok: bool


@workflow
async def collects(count: int) -> list[Any]:
    return [await wait_signal("note") for _ in range(count)]


@workflow
async def approves() -> str:
    approval = await wait_signal("approval", Approval)
    return f"{type(approval).__name__} {approval.by} {approval.ok}"


@workflow
async def checks_then_waits(steps: int) -> list[Any]:
    """The signal may come before, between or behind any of the steps."""
    for number in range(steps):
        await asyncio.sleep(10)  # durable
        await double(number)
    return [await wait_signal("go", int, timeout="1h"), steps]


@workflow
async def two_waiters() -> list[list[int]]:
    async def takes(name: str) -> list[int]:
        return [await wait_signal(name, int), await wait_signal(name, int)]

    return list(await asyncio.gather(takes("a"), takes("b"), takes("a")))


@workflow
async def asks_often(times: int) -> int:
    """Waits that time out must not swallow what comes for the next one."""
    missed = 0
    for _ in range(times):
        try:
            return missed * 1000 + await wait_signal("late", int, timeout=10)
        except TimeoutError:
            missed += 1
    return -1


@workflow
async def sends(run: str) -> str:
    signal_run(run, "go", 7)
    await signal_run(run, "go", 8)
    return await echo("sent")


@workflow
async def receives() -> list[int]:
    return [await wait_signal("go", int), await wait_signal("go", int)]


@workflow
async def carries(left: int, seen: list[str]) -> list[str]:
    variables["left"] = left
    variables.setdefault("first", left)
    await asyncio.sleep(100)  # durable
    if left:
        seen = [*seen, await wait_signal("note", str)]
        continue_as_new(left - 1, seen)
    return [*seen, str(variables["first"])]


@task
async def undo_reserve(item: str, got: str) -> None:
    await _note(f"released {item}")


async def _note(text: str) -> None:
    from tests.flows.tasks import DONE

    DONE.append(text)


@task(compensate=undo_reserve)
async def reserve(item: str) -> str:
    await _note(f"reserved {item}")
    return item.upper()


@task
async def slow(seconds: int) -> str:
    try:
        await asyncio.sleep(seconds)  # work
    except asyncio.CancelledError:
        await _note("slow was told")
        raise
    return "slow"


@task
async def stubborn(seconds: int) -> str:
    for _ in range(100):
        try:
            await asyncio.sleep(seconds)  # work
            return "stubborn"
        except asyncio.CancelledError:
            await _note("stubborn goes on")
    return "never"


@task(retry=Retry(attempts=5, first=30, jitter=False))
async def flaky(value: int) -> int:
    raise ConnectionError(str(value))


@workflow
async def waits_for_a_step() -> str:
    await reserve("one")
    return await slow(1000)


@workflow
async def waits_for_a_stubborn_step() -> str:
    await reserve("one")
    return await stubborn(1000)


@workflow
async def waits_for_a_retry() -> int:
    await reserve("one")
    return await flaky(1)


@workflow
async def waits_for_a_timer() -> str:
    await reserve("one")
    await asyncio.sleep(60)  # durable
    return "timer"


@workflow
async def waits_for_a_child() -> str:
    await reserve("one")
    return await sleeper(60)


@workflow
async def waits_for_a_signal() -> int:
    await reserve("one")
    return await wait_signal("never", int)  # type: ignore[no-any-return]


@workflow
async def tidies_up() -> str:
    try:
        await asyncio.sleep(86_400)  # durable
        return "slept"
    finally:
        await echo("tidied")
        await asyncio.shield(asyncio.create_task(_both()))


@workflow
async def tidies_for_long() -> None:
    try:
        await asyncio.sleep(86_400)  # durable
    finally:
        await asyncio.sleep(100)  # durable
        await echo("tidied")


async def _both() -> list[str]:
    return list(await asyncio.gather(echo("left"), echo("right")))


@workflow
async def goes_on_when_cancelled() -> str:
    try:
        await asyncio.sleep(86_400)  # durable
    except asyncio.CancelledError:
        return await echo("went on")
    return "slept"


@workflow
async def continues_while_a_timer_waits(left: int) -> int:
    """The old generation's timer is due in the very moment in which the new one begins, or later."""

    async def alarm() -> None:
        await asyncio.sleep(60)  # durable
        await echo(f"alarm {left}")

    timer = asyncio.create_task(alarm())
    await asyncio.sleep(60 if left % 2 else 59.999999)  # durable
    if left:
        continue_as_new(left - 1)
    await timer
    return left


@workflow
async def hands_on(name: str) -> int:
    child = waiting_child(name)
    return await child
