"""An engine whose pool process has a child of its own: python -m tests.crash.programs.pool STORE HOW.

HOW says what stands in the way of its end: `nothing`, `unasked` (no signal at its node's death), or `deaf` (nor can its
watching thread run, since C code holds the interpreter's lock).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import threading

import perdure
from perdure import Retry, task, workflow
from tests.crash.harness import alive
from tests.crash.witness import first, note, notes

PR_SET_PDEATHSIG = 1


def hold(how: str) -> None:
    if how != "nothing":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
    child = subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    note("pids", os.getpid(), child.pid)
    if how == "deaf":
        ctypes.PyDLL(None).system(b'echo >"$WITNESS/deaf"; exec sleep 30')  # it says so once the lock is held
    threading.Event().wait()


@task(pool="process", timeout="120s")
def held(how: str) -> str:
    lingering = [pid for pids in notes("pids") for pid in pids if alive(int(pid))]
    note("begun", perdure.attempt(), "beside", *lingering)
    if first("held"):
        hold(how)
    return how


@task(pool="process", timeout="300ms", retry=Retry(attempts=2, first="1ms"))
def hasty(how: str) -> str:
    if first("held"):
        hold(how)
    return how


@workflow
async def pooled(how: str) -> str:
    return await (hasty(how) if how == "hasty" else held(how))


async def main(address: str, how: str) -> None:
    async with perdure.open(address, workflows=[pooled], stop_grace_s=0.1) as engine:
        run = await engine.start(pooled, how, id="pooled")
        print(await run.result(), flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    except KeyboardInterrupt:
        print("stopped")
