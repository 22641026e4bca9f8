"""Runs whose writes are recorded: python -m tests.state.recorded STORE. Each commit is noted once it is acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys

import perdure
from perdure.state import sqlite_keep
from tests.state import programs

# Small, so that the log is emptied, and written anew from its beginning, a few times.
sqlite_keep.LOG_PAGES = 60


async def main(address: str) -> None:
    acks = os.open("acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with perdure.open(address, workflows=[programs.mixed, programs.waits], **programs.SETTINGS) as engine:

        def note(_: object = None) -> None:
            os.write(acks, b"%d\n" % engine.store._writer.commits)

        note()
        engine.node.on_commit.append(note)
        await engine.start(programs.mixed, 3, id="one", request_id="start")
        async with perdure.connect(address) as client:
            for number in range(6):
                run = await engine.start(programs.waits, number, id=f"wait-{number}")
                await client.signal(run.id, "go", number, request_id=f"go-{number}")
                await run.result("60s")
        await engine.get("one").signal("go", 7, request_id="go")
        assert await engine.get("one").result("60s") == programs.RESULT
    os.close(acks)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
