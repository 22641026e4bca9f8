"""Small flows, one for each of asyncio's primitives that work inside a flow, with what they return."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import perdure
from perdure import StepFailed, now, uuid, wait_signal, workflow
from tests.flows.tasks import Declined, break_down, decline, double, echo, swallow, thrice

CASES: dict[str, tuple[Any, Any]] = {}


def case(expected: Any) -> Any:
    """Make a flow of the function, and note what it returns."""

    def made(fn: Any) -> Any:
        flow = workflow(fn)
        CASES[fn.__name__] = (flow, expected)
        return flow

    return made


@case([2, 3])
async def gathers() -> list[int]:
    return list(await asyncio.gather(double(1), thrice(1)))


@case([2, "ValueError", 6])
async def gathers_with_exceptions() -> list[Any]:
    found = await asyncio.gather(double(1), break_down("it"), double(3), return_exceptions=True)
    return [one.failure.type if isinstance(one, StepFailed) else one for one in found]


async def _two(value: int) -> int:
    return await thrice(await double(value))


@case([6, 12, 18])
async def gathers_coroutines() -> list[int]:
    return list(await asyncio.gather(*(_two(value) for value in (1, 2, 3))))


@case([[2], 1])
async def waits_for_the_first() -> list[Any]:
    slow = asyncio.create_task(_later(3600, 7))
    done, pending = await asyncio.wait({double(1), slow}, return_when=asyncio.FIRST_COMPLETED)
    for one in pending:
        one.cancel()
    return [[one.result() for one in done], len(pending)]


async def _later(seconds: float, value: int) -> int:
    await asyncio.sleep(seconds)  # durable
    return await double(value)


@case([True, 1, [14]])
async def waits_with_a_timeout() -> list[Any]:
    began = now()
    work = {asyncio.create_task(_later(60, 7)), asyncio.create_task(_later(7200, 8))}
    done, pending = await asyncio.wait(work, timeout=3600)
    for one in pending:
        one.cancel()
    return [(now() - began).total_seconds() == 3600, len(pending), [one.result() for one in done]]


@case(["late", 4])
async def waits_for_too_long() -> list[Any]:
    found: list[Any] = []
    try:
        await asyncio.wait_for(_later(3600, 1), 60)
    except TimeoutError:
        found.append("late")
    found.append(await asyncio.wait_for(_later(60, 2), 3600))
    return found


@case("late")
async def wait_for_gives_up_a_step() -> str:
    try:
        await asyncio.wait_for(wait_signal("never"), 300)
    except TimeoutError:
        return "late"
    return "early"


@case(["timeout", True, "inner", "outer"])
async def times_out() -> list[Any]:
    found: list[Any] = []
    try:
        async with asyncio.timeout(60) as limit:
            await asyncio.sleep(3600)  # durable
    except TimeoutError:
        found += ["timeout", limit.expired()]
    try:
        async with asyncio.timeout(120):
            try:
                async with asyncio.timeout(60):
                    await asyncio.sleep(90)  # durable
            except TimeoutError:
                found.append("inner")
            await asyncio.sleep(90)  # durable
    except TimeoutError:
        found.append("outer")
    return found


@case([False, 2])
async def times_out_later_than_planned() -> list[Any]:
    async with asyncio.timeout(60) as limit:
        limit.reschedule(limit.when() + 3600)  # type: ignore[operator]
        await asyncio.sleep(120)  # durable
        value = await double(1)
    return [limit.expired(), value]


@case([2, 4, 12])
async def groups() -> list[int]:
    async with asyncio.TaskGroup() as group:
        step = group.create_task(double(1))
        task = group.create_task(_later(10, 2))
        async with asyncio.TaskGroup() as inner:
            deep = inner.create_task(_two(2))
    return [step.result(), task.result(), deep.result()]


@case(["StepFailed", ["cleaned 2", "cleaned 3"]])
async def group_aborts() -> list[Any]:
    cleaned: list[str] = []

    async def careful(number: int) -> None:
        try:
            await asyncio.sleep(86_400)  # durable
        finally:
            cleaned.append(await echo(f"cleaned {number}"))

    kinds = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(break_down("one"))
            group.create_task(careful(2))
            group.create_task(careful(3))
    except* StepFailed as errors:
        kinds = [type(one).__name__ for one in errors.exceptions]
    return [kinds[0], sorted(cleaned)]


@case(["a", "b", "c"])
async def as_they_are_completed() -> list[str]:
    async def after(seconds: int, text: str) -> str:
        await asyncio.sleep(seconds)  # durable
        return text

    work = [asyncio.create_task(after(s, t)) for s, t in ((30, "c"), (10, "a"), (20, "b"))]
    return [await one for one in asyncio.as_completed(work)]


@case([2, 4])
async def steps_as_they_are_completed() -> list[int]:
    return sorted([await one for one in asyncio.as_completed([double(1), double(2)])])


@case([20, 40, 60])
async def passes_through_a_queue() -> list[int]:
    todo: asyncio.Queue[int | None] = asyncio.Queue(maxsize=1)
    found: list[int] = []

    async def consume() -> None:
        while (item := await todo.get()) is not None:
            found.append(await double(item))
            todo.task_done()

    worker = asyncio.create_task(consume())
    for item in (10, 20, 30):
        await todo.put(item)
    await todo.put(None)
    await worker
    return found


@case(["set", 2])
async def waits_for_an_event() -> list[Any]:
    event, seen = asyncio.Event(), []

    async def waiter() -> None:
        await event.wait()
        seen.append("set")

    one = asyncio.create_task(waiter())
    value = await double(1)
    event.set()
    await one
    return [*seen, value]


@case(["in 1", "out 1", "in 2", "out 2", "in 3", "out 3"])
async def holds_a_lock() -> list[str]:
    lock, said = asyncio.Lock(), []

    async def one(number: int) -> None:
        async with lock:
            said.append(f"in {number}")
            await echo(str(number))
            said.append(f"out {number}")

    await asyncio.gather(*(one(number) for number in (1, 2, 3)))
    return said


@case(2)
async def counts_with_a_semaphore() -> int:
    gate, inside, most = asyncio.Semaphore(2), 0, 0

    async def one(number: int) -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            await double(number)
            inside -= 1

    await asyncio.gather(*(one(number) for number in range(6)))
    return most


@case(["ready", "ready"])
async def notifies_a_condition() -> list[str]:
    condition, ready, said = asyncio.Condition(), False, []

    async def one() -> None:
        async with condition:
            await condition.wait_for(lambda: ready)
            said.append("ready")

    waiting = [asyncio.create_task(one()) for _ in range(2)]
    await double(1)
    async with condition:
        ready = True
        condition.notify_all()
    await asyncio.gather(*waiting)
    return said


@case([172_800.0, 0.0])
async def sleeps_for_days() -> list[float]:
    began = now()
    await asyncio.sleep(2 * 86_400)  # durable
    two_days = now() - began
    before = now()
    await asyncio.sleep(0)
    return [two_days.total_seconds(), (now() - before).total_seconds()]


@case(["cancelled", 8])
async def shields_a_step() -> list[Any]:
    step = double(4)

    async def waits() -> Any:
        return await asyncio.shield(step)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return ["cancelled", await step]
    return ["finished"]


@case(["cancelled", 6])
async def cancels_a_task() -> list[Any]:
    async def long() -> None:
        await asyncio.sleep(86_400)  # durable

    task = asyncio.create_task(long())
    value = await thrice(2)
    task.cancel("enough")
    try:
        await task
    except asyncio.CancelledError:
        return ["cancelled", value]
    return []


@case("went on")
async def takes_a_cancel_back() -> str:
    me = asyncio.current_task()
    assert me is not None
    me.cancel()
    try:
        await double(1)
    except asyncio.CancelledError:
        assert me.cancelling() == 1
        me.uncancel()
    async with asyncio.timeout(60):
        await double(2)
    return "went on"


@case(["cancelled", 4])
async def cancels_a_step() -> list[Any]:
    step = echo("nobody waits for this")
    step.cancel()  # type: ignore[attr-defined]
    try:
        await step
    except asyncio.CancelledError:
        return ["cancelled", await double(2)]
    return []


async def _numbers(bound: int) -> AsyncIterator[int]:
    try:
        for number in range(bound):
            yield await double(number)
    finally:
        await echo("closed")


@case([[0, 2, 4], [0, 2]])
async def iterates_over_a_generator() -> list[list[int]]:
    whole = [number async for number in _numbers(3)]
    part: list[int] = []
    numbers = _numbers(10)
    async for number in numbers:
        part.append(number)
        if len(part) == 2:
            break
    await numbers.aclose()  # type: ignore[attr-defined]
    return [whole, part]


@case([0, 2])
async def leaves_a_generator_open() -> list[int]:
    part: list[int] = []
    async for number in _numbers(10):
        part.append(number)
        if len(part) == 2:
            break
    await double(5)
    return part


_place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="outside")


@case(["outside", "flow", "task", "flow"])
async def keeps_context_variables() -> list[str]:
    said = [_place.get()]
    _place.set("flow")

    async def other() -> str:
        await double(1)
        said.append(_place.get())
        _place.set("task")
        await double(1)
        return _place.get()

    said.append(await asyncio.create_task(other()))
    said.append(_place.get())
    return said


@case([["no funds", 51], "Declined", "ValueError"])
async def catches_what_steps_raise() -> list[Any]:
    found: list[Any] = []
    try:
        await decline(51)
    except Declined as error:
        found += [[error.why, error.code], type(error).__name__]
    try:
        await break_down("it")
    except StepFailed as error:
        found.append(error.failure.type)
    return found


@case([True, True, True, True])
async def draws_by_chance() -> list[bool]:
    numbers = [perdure.random() for _ in range(100)]
    ids = [uuid() for _ in range(10)]

    async def other() -> float:
        return perdure.random()

    elsewhere = await asyncio.create_task(other())
    await swallow(f"{numbers[0]} {ids[0]} {elsewhere}")
    spread = 0.3 < sum(numbers) / 100 < 0.7
    return [spread, len(set(ids)) == 10, ids[0].version == 4, elsewhere not in numbers]


@case([0, 2, 4, 6])
async def maps_a_task() -> list[int]:
    return list(await asyncio.gather(*double.map(range(4))))


@case(["called", 2])
async def calls_back_later() -> list[Any]:
    loop, said = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    loop.call_later(60, said.set_result, "called")
    loop.call_soon(lambda: None)
    return [await said, await double(1)]


@case(["joined", 1])
async def ends_before_its_tasks() -> list[Any]:
    async def behind() -> None:
        try:
            await asyncio.sleep(86_400)  # durable
        finally:
            await echo("tidied up")

    left = [asyncio.create_task(behind())]
    await asyncio.sleep(0)
    return ["joined", len(left)]


@case([4, 2])
async def races_over_sets() -> list[int]:
    """Sets of tasks are waited for and cancelled in the order of their hashes."""
    order: list[int] = []

    async def one(number: int) -> None:
        try:
            await asyncio.sleep(3600 + number)  # durable
        except asyncio.CancelledError:
            order.append(number)
            raise

    tasks = {asyncio.create_task(one(number)) for number in range(20)}
    done, pending = await asyncio.wait(tasks, timeout=3604.5)
    left = len(done)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await echo(",".join(map(str, order)))
    return [left - 1, len({0, *order}) - 14]
