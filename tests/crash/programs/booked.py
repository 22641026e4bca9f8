"""Steps that commit with rows of their own: python -m tests.crash.programs.booked STORE KIND COUNT.

DIE names where the first of them dies: `begun` before its code, `ran` behind it, `kept` with its outcome written,
`committed` before anyone is told.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import perdure
from perdure import task, workflow
from perdure.state.sqlite_outcomes import SqliteTransaction
from tests.crash.witness import die, note

WINDOWS = ("begun", "ran", "kept", "committed")
FILE = "sqlite:///rows.db"


def write(number: int) -> int:
    connection = perdure.transaction()
    connection.execute("create table if not exists booked (number integer)")
    connection.execute("insert into booked values (?)", (number,))
    note("steps", number)
    return number


@task(transaction=FILE)
def thread(number: int) -> int:
    return write(number)


@task(transaction=FILE)
async def loop(number: int) -> int:
    done = write(number)
    await asyncio.sleep(0)
    return done


@task(transaction=True)
def own(number: int) -> int:
    return write(number)


@task(transaction=True)
async def ownloop(number: int) -> int:
    done = write(number)
    await asyncio.sleep(0)
    return done


KINDS = {one.name: one for one in (thread, loop, own, ownloop)}


@workflow
async def booked(kind: str, count: int) -> list[int]:
    return list(await asyncio.gather(*(KINDS[kind](number) for number in range(count))))


def dying(name: str, before: str, after: str) -> None:
    """Let a call of the transaction's be the last thing that the process does."""
    call: Callable[..., Any] = getattr(SqliteTransaction, name)

    def called(self: SqliteTransaction, *args: Any) -> Any:
        die(before)
        result = call(self, *args)
        die(after)
        return result

    setattr(SqliteTransaction, name, called)


async def main(address: str, kind: str, count: int) -> None:
    if os.environ.get("DIE"):
        dying("look", "", "begun")
        dying("keep", "ran", "kept")
        dying("commit", "", "committed")
    async with perdure.open(address, workflows=[booked]) as engine:
        handle = await engine.start(booked, kind, count, id="booked")
        note("acks", "start")
        print(len(await handle.result()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
