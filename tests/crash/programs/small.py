"""A small run of every kind of step, with what its client was told: python -m tests.crash.programs.small STORE."""

from __future__ import annotations

import asyncio
import sys

import perdure
from perdure import Retry, task, wait_signal, workflow
from tests.crash.witness import first, note


@task
async def look(number: int) -> int:
    note("steps", perdure.run_id(), "look", number, "start")
    note("steps", perdure.run_id(), "look", number, "end")
    return number * 2


@task(retry=Retry(attempts=3, first="1ms", jitter=False))
def add(left: int, right: int) -> int:
    note("steps", perdure.run_id(), "add", f"{left}+{right}", "start")
    if first("failed-once"):
        raise RuntimeError("the first try of all fails")
    note("steps", perdure.run_id(), "add", f"{left}+{right}", "end")
    return left + right


@workflow
async def inner(number: int) -> str:
    return "x" * 5_000 if await look(number) else ""


@workflow
async def small(count: int) -> dict[str, int]:
    one, two = await asyncio.gather(look(count), look(count + 1))
    await asyncio.sleep(0.001)  # durable
    go = await wait_signal("go", int)
    text = await inner(5)
    return {"sum": await add(one, two), "go": go, "length": len(text)}


# A small bound, so that the child's result is a blob in few pages.
SETTINGS = {"blob_min": 2_000}
RESULT = {"sum": 14, "go": 7, "length": 5_000}


async def drive(engine: perdure.Engine, said: set[str]) -> dict[str, int]:
    """What a client of the run does; what was acknowledged before is not asked for again."""
    if "start" not in said:
        await engine.start(small, 3, id="small", request_id="start-1")
        note("acks", "start")
    if "go" not in said:
        await engine.get("small").signal("go", 7, request_id="go-1")
        note("acks", "go")
    found = await engine.get("small").result(timeout="60s")
    note("acks", "result")
    return found


async def main(address: str) -> None:
    async with perdure.open(address, workflows=[small], **SETTINGS) as engine:
        print(await drive(engine, set()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
