"""One step of each kind, and a death before, in or after its code: python -m tests.crash.programs.kinds STORE KIND.

DIE names where: `before` its code, `during`, `after` its last line, `reported` when its result is encoded only.
In a process pool it is the pool's process that dies, elsewhere the engine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from dataclasses import dataclass
from typing import Any

import perdure
from perdure import NotDone, Retry, task, workflow
from tests.crash.witness import die, note, notes

WINDOWS = ("before", "during", "after", "reported")


def in_pool() -> bool:
    return multiprocessing.parent_process() is not None


@dataclass
class Given:
    """An argument that is deadly to be made from what was stored, or from what came through a pipe."""

    number: int
    pooled: bool = False

    def __post_init__(self) -> None:
        if not self.pooled:
            die("before")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if in_pool():
            die("before")


@dataclass
class Made:
    """A result that is deadly to be let go of, which happens once it is encoded."""

    number: int

    def __del__(self) -> None:
        if os.environ.get("DIE") == "reported" and (in_pool() or not os.environ.get("POOLED")):
            die("reported")


def work(given: Given) -> Made:
    note("steps", "start", perdure.attempt())
    die("during")
    note("effects", perdure.idempotency_key())
    note("steps", "end", perdure.attempt())
    die("after")
    return Made(given.number * 2)


@task
async def on_loop(given: Given) -> Made:
    return work(given)


@task
def in_thread(given: Given) -> Made:
    return work(given)


@task(pool="process", retry=Retry(attempts=2, first="1ms"))
def in_process(given: Given) -> Made:
    return work(given)


@task(at_most_once=True)
async def once(given: Given) -> Made:
    return work(given)


async def probe(given: Given) -> Made:
    """The effect is there, or it never will be: the process that made it is dead."""
    if notes("effects"):
        return Made(given.number * 2)
    raise NotDone


@task(at_most_once=True, probe=probe)
async def once_probed(given: Given) -> Made:
    return work(given)


@workflow
async def below(given: Given) -> Made:
    return await on_loop(given)


KINDS = {
    "async": on_loop,
    "thread": in_thread,
    "process": in_process,
    "once": once,
    "probed": once_probed,
    "child": below,
}


@workflow
async def one(kind: str, number: int) -> int:
    made = await KINDS[kind](Given(number, kind == "process"))
    return made.number


async def main(address: str, kind: str) -> None:
    async with perdure.open(address, workflows=[one, below]) as engine:
        await engine.start(one, kind, 21, id="one", request_id="start-1")
        note("acks", "start")
        print(await engine.get("one").result())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
