"""A flow that asks for what cannot be kept, each in a word of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from perdure import patched, signal_run, task, variables, wait_signal, workflow


@task
async def leaf(n: int) -> int:
    return n


@workflow
async def leaf_alone(n: int) -> int:
    return await leaf(n)


def names_a_variable() -> None:
    variables["\ud800"] = 1


WORDS: dict[str, tuple[Callable[[], Any], str]] = {
    "a signal's name of another type": (lambda: wait_signal(5), "signal name '5'"),  # type: ignore[arg-type]
    "a signal's name of half a character": (lambda: wait_signal("a\ud800"), "signal name"),
    "a signal's name that is empty": (lambda: wait_signal(""), "1 to 200"),
    "a signal to no id": (lambda: signal_run("a b", "go"), "run id 'a b'"),
    "a signal sent without a name": (lambda: signal_run("a", 5), "signal name '5'"),  # type: ignore[arg-type]
    "a patch that is no text": (lambda: patched(5), "patched id '5'"),  # type: ignore[arg-type]
    "a variable of half a character": (names_a_variable, "variable's name"),
    "a step that was not awaited": (lambda: {"left": leaf(1)}, "Step that was not awaited .*write `await`"),
}


@workflow
async def says(what: str) -> Any:
    said = WORDS[what][0]()
    return await said if what.startswith("a signal") else said


TEXTS: dict[str, tuple[Callable[[], Any], str]] = {
    "an f-string": (lambda: f"{leaf(1)}", r"text of 1\.leaf#1, which.*use `await leaf\(\.\.\.\)`"),
    "an f-string with a width": (lambda: f"{leaf(1):>10}", r"use `await leaf\(\.\.\.\)`"),
    "str()": (lambda: str(leaf(1)), r"use `await leaf\(\.\.\.\)`"),
    "a child": (lambda: f"{leaf_alone(1)}", r"use `await leaf_alone\(\.\.\.\)`"),
}


@workflow
async def writes(what: str) -> str:
    return await asyncio.create_task(_made(TEXTS[what][0]))  # its key has a scope


async def _made(make: Callable[[], str]) -> str:
    return make()


@workflow
async def handles_steps() -> list[int]:
    one, two = leaf(3), leaf(4)
    assert repr(one).startswith("<Step")
    assert one != two
    assert {one, two}
    assert getattr(one, "nothing", None) is None
    return list(await asyncio.gather(one, two))


@workflow
async def takes_an_attribute() -> str:
    return leaf(1).upper()  # type: ignore[attr-defined,no-any-return]
