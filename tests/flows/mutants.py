"""A good workflow as text, and what may be done to it under its running runs (F71, F72)."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Mapping
from typing import Any

from perdure import workflow
from tests.flows import tasks

GOOD = """
async def part(value: int) -> int:
    return await thrice(value)

async def good(order: int) -> list[int]:
    a = await double(order)
    b = await thrice(a + 1)
    variables["stage"] = "two"
    c, d = await asyncio.gather(double(b), thrice(b))
    async with asyncio.timeout(3600):
        e = await double(c)
    await asyncio.sleep(86400)
    for n in range(3):
        e += await double(n)
    x = await leaf(e)
    f = await asyncio.create_task(part(d))
    await swallow(f"{random()} {uuid()}")
    if a == 4:
        await echo("even")
    try:
        go = await wait_signal("go", int, timeout="3d")
    except TimeoutError:
        go = 0
    last = await double(go)
    return [a, b, c, d, e, x, f, last]
"""

# What is done to the text: each asks for something else than what is recorded, or than what is in flight.
MUTANTS: Mapping[str, tuple[str, str]] = {
    "a step removed": ("    b = await thrice(a + 1)\n", "    b = 3 * (a + 1)\n"),
    "a step added": ('    variables["stage"]', '    await double(9)\n    variables["stage"]'),
    "a step added at the front": ("    a = await double(order)", "    await echo('new')\n    a = await double(order)"),
    "the first step's task renamed": ("a = await double(order)", "a = await thrice(order)"),
    "an argument changed": ("thrice(a + 1)", "thrice(a + 2)"),
    "the first argument changed": ("double(order)", "double(order + 1)"),
    "two steps exchanged": (
        "    a = await double(order)\n    b = await thrice(a + 1)\n",
        "    b = await thrice(5)\n    a = await double(order)\n",
    ),
    "in turn instead of in parallel": (
        "c, d = await asyncio.gather(double(b), thrice(b))",
        "c, d = await double(b), await thrice(b)",
    ),
    "one more in parallel": ("gather(double(b), thrice(b))", "gather(double(b), thrice(b), echo('more'))[:2]"),
    "a sleep removed": ("    await asyncio.sleep(86400)\n", ""),
    "a sleep added": ("    for n in", "    await asyncio.sleep(5)\n    for n in"),
    "a longer sleep": ("sleep(86400)", "sleep(90000)"),
    "a shorter sleep": ("sleep(86400)", "sleep(80000)"),
    "a timeout removed": ("    async with asyncio.timeout(3600):\n        e =", "    if True:\n        e ="),
    "another timeout": ("timeout(3600)", "timeout(7200)"),
    "fewer rounds": ("range(3)", "range(2)"),
    "more rounds": ("range(3)", "range(4)"),
    "rounds in another order": ("range(3)", "(2, 1, 0)"),
    "a child removed": ("x = await leaf(e)", "x = e"),
    "a child with another argument": ("leaf(e)", "leaf(e + 1)"),
    "another child": ("leaf(e)", "bough(e)"),
    "a task's scope removed": ("asyncio.create_task(part(d))", "part(d)"),
    "a task inside a task": ("asyncio.create_task(part(d))", "asyncio.create_task(asyncio.wait_for(part(d), 5))"),
    "one more draw": ("{random()} {uuid()}", "{random()} {random()} {uuid()}"),
    "draws exchanged": ("{random()} {uuid()}", "{uuid()} {random()}"),
    "a condition turned": ("if a == 4", "if a != 4"),
    "a condition dropped": ('    if a == 4:\n        await echo("even")\n', ""),
    "another branch's argument": ('echo("even")', 'echo("odd")'),
    "another signal in flight": ('"go", int', '"went", int'),
    "another signal timeout in flight": ('timeout="3d"', 'timeout="4d"'),
    "a signal timeout in flight removed": (', timeout="3d"', ""),
    "a signal asked for sooner": ("    x = await leaf(e)", '    await wait_signal("go")\n    x = await leaf(e)'),
    "an early return": ("    for n in range(3)", "    return []\n    for n in range(3)"),
    "an early failure": ("    for n in range(3)", "    raise ValueError(e)\n    for n in range(3)"),
    "an endless wait": ("    for n in range(3)", "    await asyncio.Event().wait()\n    for n in range(3)"),
}

# What differs from one execution to the next with the same code, out of sight of the refusals.
OUTSIDE: Mapping[str, str] = {
    "the wall clock": "__import__('time').time_ns()",
    "chance": "__import__('random').random()",
    "a drawn id": "__import__('uuid').uuid4()",
    "the environment": "__import__('os').environ.get('FLOW_TEST')",
    "the number of threads": "__import__('threading').active_count()",
    "a global counter": "next(COUNTER)",
    "an answer that changes": "ANSWER['value']",
    "where an object lies": "[OBJECTS.append(object()), id(OBJECTS[-1])][1]",
}

_numbers = itertools.count(1)


def made(text: str, name: str = "good", **more: Any) -> Any:
    """The workflow that this text defines, with its source where it can be read."""
    number = next(_numbers)
    file = f"<mutant {number}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__name__": f"mutant_{number}", **_names(), **more}
    exec(compile(text, file, "exec"), space)
    return workflow(space[name])


def _names() -> dict[str, Any]:
    import asyncio

    import perdure
    from tests.flows import children

    return {
        "asyncio": asyncio,
        **{name: getattr(tasks, name) for name in ("double", "thrice", "echo", "swallow")},
        **{name: getattr(children, name) for name in ("leaf", "bough")},
        **{name: getattr(perdure, name) for name in ("variables", "wait_signal", "random", "uuid", "patched", "now")},
    }


def mutated(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)
