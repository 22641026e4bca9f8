"""Flows for the ways back: retry, resume, fork, force, and what is owed meanwhile."""

from __future__ import annotations

import asyncio
import sys

import perdure
from perdure import Retry, continue_as_new, detach, task, variables, wait_signal, workflow

LOG: list[str] = []
BROKEN: set[str] = set()


@task
async def undo_a(value: int, result: object) -> None:
    if "undo_a" in BROKEN:
        raise ValueError("cannot undo a")
    LOG.append(f"undo a {result}")


@task
async def undo_b(value: int, result: object) -> None:
    if "undo_b" in BROKEN:
        raise ValueError("cannot undo b")
    LOG.append(f"undo b {result}")


@task(compensate=undo_a)
async def do_a(value: int) -> int:
    LOG.append("a")
    return value


@task(compensate=undo_b, name="pay.do_b")
async def do_b(value: int) -> int:
    LOG.append("b")
    return value


@task
async def shaky(value: int) -> int:
    LOG.append(f"shaky {perdure.idempotency_key()}")
    if "shaky" in BROKEN:
        raise ValueError("shaky")
    return value


@workflow
async def saga(value: int) -> int:
    await do_a(value)
    await do_b(value)
    return await shaky(value)


@workflow
async def leaf(value: int) -> int:
    return await shaky(value)


@workflow
async def parent(value: int) -> int:
    return await leaf(value)


@workflow
async def over_generations(left: int) -> int:
    await do_a(left)
    if left:
        continue_as_new(left - 1)
    return await shaky(left)


@workflow
async def stubborn(value: int) -> int:
    await do_a(value)
    while True:
        try:
            await wait_signal("never")
        except asyncio.CancelledError:
            variables["cancelled"] = True


@workflow
async def books_and_waits(value: int) -> None:
    await do_b(value)
    await wait_signal("never")


@workflow
async def two_steps(value: int) -> int:
    first = await shaky(value)
    return await shaky(first + 1)


@workflow
async def keeps_objects(value: int) -> int:
    variables["list"] = []
    variables["list"].append(object())
    return await shaky(value)


@workflow
async def leaves(value: int) -> int:
    await shaky(value)
    sys.exit(3)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@workflow
async def mute(value: int) -> int:
    raise Mute


@workflow
async def awaits_detached(value: int) -> int:
    child = leaf(value)
    detach(child)
    return await child


@workflow
async def fans_out(count: int) -> int:
    steps = [shaky(n) for n in range(count)]
    return len(await asyncio.gather(*steps))


async def _probe(value: int) -> int:
    LOG.append("probe")
    raise perdure.NotDone


@task(at_most_once=True, probe=_probe, retry=Retry(attempts=2, first="1s", jitter=False))
async def once(value: int) -> int:
    LOG.append("once")
    if len(LOG) > 200:
        return -1
    raise ValueError("unclear")


@workflow
async def carefully(value: int) -> int:
    return await once(value)


@task(at_most_once=True)
async def once_blind(value: int) -> int:
    LOG.append("blind")
    raise ValueError("unclear")


@workflow
async def blindly(value: int) -> int:
    return await once_blind(value)
