"""Tasks for a process pool: what they ask, raise, give back, and how they hold their process."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import perdure
from perdure import Retry, StepFailed, task, workflow


class Refused(Exception):
    """A failure that its task declares."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


@task(pool="process", retry=Retry(attempts=2, first="1ms"))
def asks(fails: bool) -> list[Any]:
    perdure.heartbeat({"attempt": perdure.attempt()})
    found = [perdure.run_id(), perdure.attempt(), perdure.idempotency_key(), perdure.progress()]
    if fails and perdure.attempt() == 1:
        raise ValueError("once more")
    return [*found, os.getpid() != os.getppid()]


@task(pool="process", raises=(Refused,))
def refuses(code: int) -> None:
    raise Refused(code)


@task(pool="process", retry=Retry(attempts=3, first="1ms"))
def gives(what: str) -> int:
    if what == "what does not fit":
        return "text"  # type: ignore[return-value]
    if what == "an exit":
        sys.exit(3)
    if what == "endless recursion":
        return gives.fn(what)
    return 1


@task(pool="process", concurrency=1)
def one_at_a_time(seconds: float) -> float:
    begun = time.monotonic()
    time.sleep(seconds)  # work
    return begun


@task(pool="process", deadline="200ms")
def in_time(path: str) -> None:
    Path(path).touch()


@workflow
async def waits_in_vain(path: str) -> str:
    """The only process is held for longer than the next step may wait for it."""
    held = one_at_a_time(0.5)
    said = await _kind(in_time(path))
    await held
    await one_at_a_time(0)
    return said


def nested() -> Any:
    @task(pool="process")
    def hidden() -> int:
        return 1

    return hidden


HIDDEN = nested()
# Not to be found at the top of the module.
holder = [HIDDEN]
del HIDDEN


@task(pool="process")
def takes(what: Any) -> str:
    return type(what).__name__


@workflow
async def asks_both() -> list[Any]:
    return list(await asyncio.gather(asks(False), asks(True)))


async def _kind(step: Any) -> str:
    try:
        return f"gave {await step}"
    except StepFailed as error:
        return f"{error.failure.kind} {error.failure.type} {error.failure.attempts}"


@workflow
async def goes_wrong() -> list[str]:
    try:
        await refuses(7)
    except Refused as error:
        said = [f"refused {error.code}"]
    said.append(await _kind(gives("what does not fit")))
    said.append(await _kind(gives("an exit")))
    said.append(await _kind(gives("endless recursion")))
    said.append(await _kind(holder[0]()))
    return [*said, await _kind(gives("well"))]


@task
def in_a_thread() -> None:
    return None


@task(pool="process", retry=Retry(attempts=3, first="1ms"))
def persistent() -> int:
    return 1


@task(pool="process")
def once() -> int:
    return 1


@workflow
async def beside_a_process() -> list[str]:
    """The first attempts of both are in one batch with one for a thread."""
    said = await asyncio.gather(_kind(once()), _kind(in_a_thread()))
    return [*said, await _kind(persistent())]


@workflow
async def in_turn() -> list[float]:
    return sorted(await asyncio.gather(*(one_at_a_time(0.2) for _ in range(3))))


# --- threads --------------------------------------------------------------------------------------

GATE = threading.Barrier(4, timeout=20)
NAMES: set[str] = set()


@task
def meets() -> None:
    """Four of these are in threads of their own at once, or none comes to its end."""
    NAMES.add(threading.current_thread().name)
    GATE.wait()


@workflow
async def meets_in_threads(count: int) -> int:
    await asyncio.gather(*(meets() for _ in range(count)))
    return count
