"""Tasks that the flows of these tests call; what they did is noted in `DONE`, which each test clears."""

from __future__ import annotations

from perdure import task
from perdure.runtime.attempt import attempt

DONE: list[str] = []


@task
async def double(value: int) -> int:
    return 2 * value


@task
def thrice(value: int) -> int:
    return 3 * value


@task
async def echo(text: str) -> str:
    DONE.append(text)
    return text


@task
async def swallow(text: str) -> None:
    """Takes what differs from seed to seed: a replay must ask for it with the same text."""


class Declined(Exception):
    """A failure that a task declares."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code, self.why = code, why


@task(raises=(Declined,))
async def decline(code: int) -> None:
    raise Declined(code, "no funds")


@task
async def break_down(text: str) -> None:
    raise ValueError(f"{text} in attempt {attempt()}")
