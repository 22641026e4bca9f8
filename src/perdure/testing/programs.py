"""Flows as data: one workflow that performs a program, and programs drawn at random.

A program is a list of operations, each a list with its kind first, so that it is a JSON value and an input like any
other. Its result is the sum of what its operations give, so that it does not depend on which of two branches came
first: a program that `confluent` draws ends alike whatever crashes, faults and delays there were.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import perdure
from perdure.authoring.inflow import continue_as_new, detach, patched, signal_run, uuid, variables, wait_signal
from perdure.authoring.task import task
from perdure.authoring.workflow import workflow
from perdure.errors import NotDone, StepFailed
from perdure.model.policy import Retry
from perdure.runtime.attempt import attempt, idempotency_key, run_id

Program = list[Any]
# The value of every signal, so that it does not matter who takes which.
SIGNAL = 5
SIGNALS = ("go", "stop")
RETRY = Retry(attempts=5, first="1s", factor=2, max="10s")

# What tasks did, outside of any engine: (kind, idempotency key), as often as it was done. A test clears it.
effects: Counter[tuple[str, str]] = Counter()


class Wanted(Exception):
    """A failure that a program asked for."""


def _done(kind: str) -> None:
    effects[kind, idempotency_key()] += 1


# --- tasks -----------------------------------------------------------------------------------------


@task
async def add(n: int) -> int:
    _done("add")
    return n


@task
def add_sync(n: int) -> int:
    _done("add_sync")
    return n


@task(retry=RETRY)
async def flaky(n: int, fails: int) -> int:
    """Fails so often, then gives `n`."""
    _done("flaky")
    if attempt() <= fails:
        raise Wanted(f"attempt {attempt()}")
    return n


@task(raises=(Wanted,))
async def refuse(n: int) -> int:
    _done("refuse")
    raise Wanted(f"no {n}")


@task
async def cancel_booking(n: int, booked: int) -> None:  # noqa: ARG001 - a compensation is given both
    _done("cancel_booking")


@task(compensate=cancel_booking)
async def book(n: int) -> int:
    _done("book")
    return n


@task
async def endless() -> None:
    """Goes on until it is cancelled."""
    _done("endless")
    await asyncio.get_running_loop().create_future()


def not_done(n: int) -> int:
    """A probe that says the attempt before had no effect."""
    _done("probe")
    raise NotDone(f"{n} was not sent")


@task(at_most_once=True, probe=not_done)
async def send_once(n: int) -> int:
    _done("send_once")
    return n


def unsure(n: int, fails: int) -> int:  # noqa: ARG001 - a probe is given what the task is
    """A probe that says the attempt before had no effect."""
    return not_done(n)


@task(at_most_once=True, probe=unsure, retry=RETRY)
async def send_unsure(n: int, fails: int) -> int:
    """Leaves its outcome unknown so often, then gives `n`."""
    _done("send_unsure")
    if attempt() <= fails:
        raise Wanted(f"attempt {attempt()}")
    return n


# --- the workflow ------------------------------------------------------------------------------------


@workflow
async def perform(program: Program, total: int = 0) -> int:
    """Perform a program, and give the sum of its operations."""
    for operation in program:
        if operation[0] == "again":
            continue_as_new(operation[1], total)
        total += await _perform(operation)
    return total


async def _perform(operation: Program) -> int:
    return await OPERATIONS[operation[0]](*operation[1:])


async def _all(program: Program) -> int:
    total = 0
    for operation in program:
        total += await _perform(operation)
    return total


async def _step(n: int) -> int:
    return await add(n)


async def _sync(n: int) -> int:
    return await add_sync(n)


async def _sleep(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return 1


async def _gather(*branches: Program) -> int:
    return sum(await asyncio.gather(*(_all(branch) for branch in branches)))


async def _group(*branches: Program) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_all(branch)) for branch in branches]
    return sum(one.result() for one in tasks)


async def _signal(name: str) -> int:
    return int(await wait_signal(name, int))


async def _child(program: Program) -> int:
    return await perform(program)


async def _detach(program: Program) -> int:
    detach(perform(program))
    return 1


async def _flaky(n: int, fails: int) -> int:
    return await flaky(n, fails)


async def _caught(n: int) -> int:
    try:
        return await refuse(n)
    except Wanted:
        return n


async def _book(n: int) -> int:
    return await book(n)


async def _attempted(program: Program) -> int:
    try:
        return await _all(program)
    except (Wanted, StepFailed, ExceptionGroup):
        return 3


async def _fail(n: int) -> int:
    raise Wanted(f"the program fails: {n}")


async def _within(limit: float, seconds: float) -> int:
    try:
        await asyncio.wait_for(asyncio.sleep(seconds), limit)
    except TimeoutError:
        return 2
    return 1


async def _stop(seconds: float) -> int:
    step: Any = endless()
    await asyncio.sleep(seconds)
    step.cancel()
    await asyncio.wait([step])
    return 1 if step.cancelled() else 0


async def _tell(n: int) -> int:
    signal_run(run_id(), "own", n)
    return int(await wait_signal("own", int))


async def _set(n: int) -> int:
    variables["stage"] = n
    return n


async def _chance() -> int:
    """Chance and time reach the arguments of a step, and not the result."""
    drawn = await add(int(perdure.random() * 1000) + uuid().int % 1000 + perdure.now().second)
    return 1 if drawn >= 0 else 0


async def _patch(id: str) -> int:
    return 1 if patched(id) else 0


async def _once(n: int) -> int:
    return await send_once(n)


async def _unsure(n: int, fails: int) -> int:
    return await send_unsure(n, fails)


OPERATIONS: dict[str, Callable[..., Awaitable[int]]] = {
    "step": _step, "sync": _sync, "sleep": _sleep, "gather": _gather, "group": _group, "signal": _signal,
    "child": _child, "detach": _detach, "flaky": _flaky, "caught": _caught, "book": _book, "attempted": _attempted,
    "fail": _fail, "within": _within, "stop": _stop, "tell": _tell, "set": _set, "chance": _chance, "patch": _patch,
    "once": _once,
    "unsure": _unsure,
}  # fmt: skip
# "again" (continue as new with another program) is performed by the workflow itself, and stands last in a program.
KINDS: tuple[str, ...] = (*OPERATIONS, "again")


# --- drawing -----------------------------------------------------------------------------------------


def draw_program(random: Random, size: int = 6, *, fails: bool = True) -> Program:
    """A program of about so many operations; the same random state draws the same program.

    Shape: `fails`: it may end in failure. What is small in the state draws what is simple, so that examples shrink.
    """
    program = [_drawn(random, 2, root=True) for _ in range(random.randint(1, size))]
    if fails and random.random() > 0.8:
        program.append(["fail", random.randint(1, 9)])
    elif size > 1 and random.random() > 0.7:
        program.append(["again", draw_program(random, size // 2, fails=False)])
    return program


def _drawn(random: Random, depth: int, *, root: bool = False) -> Program:
    n, seconds = random.randint(1, 9), random.choice((0.5, 1, 7, 60, 3600, 86_400))
    simple: list[Program] = [
        ["step", n], ["sync", n], ["sleep", seconds], ["flaky", n, random.randint(1, 3)], ["caught", n], ["book", n],
        ["within", seconds, seconds * random.choice((0.5, 2))], ["stop", seconds], ["tell", n], ["set", n],
        ["chance"], ["once", n], ["unsure", n, random.randint(1, 3)],
    ]  # fmt: skip
    if root:
        simple += [["signal", random.choice(SIGNALS)]] * 2
        simple.append(["patch", f"p{n}"])
    if depth and random.random() > 0.6:
        return _nested(random, depth - 1, root=root)
    return random.choice(simple)


def _nested(random: Random, depth: int, *, root: bool) -> Program:
    kind = random.choice(("gather", "group", "child", "attempted", "detach", "gather"))
    if kind in {"gather", "group"}:
        branches = [
            [_drawn(random, depth, root=root) for _ in range(random.randint(1, 2))] for _ in range(random.randint(2, 3))
        ]
        return [kind, *branches]
    own = root and kind == "attempted"
    inside = [_drawn(random, depth, root=own) for _ in range(random.randint(1, 2))]
    if kind == "attempted" and random.random() > 0.4:
        inside.append(["fail", 1])
    return [kind, inside]


def signals_of(program: Program) -> Iterator[str]:
    """The signals that the run of this program takes, by name, as often as it takes them; not those of its children."""
    for operation in program:
        kind = operation[0]
        if kind == "signal":
            yield operation[1]
        elif kind in {"gather", "group"}:
            for branch in operation[1:]:
                yield from signals_of(branch)
        elif kind in {"attempted", "again"}:
            yield from signals_of(operation[1])


def kinds_of(program: Program) -> Iterator[str]:
    """The kinds of all operations, with those inside."""
    for operation in program:
        yield operation[0]
        if operation[0] in {"gather", "group"}:
            for branch in operation[1:]:
                yield from kinds_of(branch)
        elif operation[0] in {"attempted", "again", "child", "detach"}:
            yield from kinds_of(operation[1])
