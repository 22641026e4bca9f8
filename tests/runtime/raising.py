"""Forty things that a task may raise, and tasks that raise them on the loop, in a thread, in a process (F78)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import perdure
from perdure import Retry, task, workflow
from perdure.errors import Blocked, Dropped

KINDS: dict[str, Callable[[], BaseException]] = {}


def kind(fn: Callable[[], BaseException]) -> Callable[[], BaseException]:
    KINDS[fn.__name__] = fn
    return fn


for _one in (ValueError("plain"), ValueError(), OSError(2, "no such file", "a\nb"), AssertionError("x"), MemoryError("x"),
             TimeoutError("x"), StopIteration(5), StopAsyncIteration(5), GeneratorExit("x"), KeyboardInterrupt("x"),
             SystemExit(3), SystemExit(None), SystemExit("text"), asyncio.CancelledError("mine"), UserWarning("w"),
             RuntimeError("x" * 10_000_000), ValueError(*range(100_000)), BaseException("bare"), Dropped("d"),
             Blocked("b"), perdure.NotDone("n"), UnicodeDecodeError("utf-8", b"\xff" * 1000, 0, 1, "bad"),
             SyntaxError("bad", ("f.py", 1, 2, "text" * 1000)), ValueError("\ud800 half \x00\x1b[2J a character")):  # fmt: skip
    KINDS[f"{type(_one).__name__} {str(_one.args)[:20]}"] = lambda one=_one: one  # type: ignore[misc]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(9)


class Numeric(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


class Awkward(Exception):
    """Its attributes defend themselves."""

    def __getattribute__(self, name: str) -> Any:
        if name in {"retry_after", "args", "__notes__", "__dict__"}:
            raise ValueError(name)
        return super().__getattribute__(name)


class Closed(Exception):
    """Gives nothing away."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class _Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in {"__qualname__", "__name__"}:
            raise ValueError(name)
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=_Nameless):
    """Its class will not say what it is called."""


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


class Demanding(Exception):
    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(why)


class Unnamed(Exception):
    pass


Unnamed.__module__ = "x" * 5_000
Unnamed.__qualname__ = "é" * 50_000


def made(name: str) -> BaseException:
    return KINDS[name]()


class Hinting(Exception):
    @property
    def retry_after(self) -> float:
        raise SystemExit(9)


class Unbuildable(Exception):
    """Takes the program down when it is built again."""

    built = False

    def __init__(self, code: int) -> None:
        if Unbuildable.built:
            raise SystemExit(9)
        super().__init__(code)
        Unbuildable.built, self.code = True, code


@kind
def hinting() -> BaseException:
    return Hinting("x")


@kind
def unbuildable() -> BaseException:
    Unbuildable.built = False
    return Unbuildable(5)


@kind
def mute() -> BaseException:
    return Mute()


@kind
def leaving() -> BaseException:
    return Leaving()


@kind
def numeric() -> BaseException:
    return Numeric()


@kind
def awkward() -> BaseException:
    return Awkward("x")


@kind
def closed() -> BaseException:
    return Closed("x")


@kind
def nameless() -> BaseException:
    return Nameless("x")


@kind
def unpicklable() -> BaseException:
    return Unpicklable()


@kind
def demanding() -> BaseException:
    return Demanding(5, why="it was so")


@kind
def unnamed() -> BaseException:
    return Unnamed("x")


@kind
def local_class() -> BaseException:
    class Local(Exception):
        pass

    return Local("x")


@kind
def its_own_cause() -> BaseException:
    error = ValueError("around")
    error.__cause__ = error
    return error


@kind
def long_chain_of_causes() -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(20_000):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    return error


@kind
def group_of_many() -> BaseException:
    return ExceptionGroup("many", [ValueError(number) for number in range(20_000)])


@kind
def deep_group() -> BaseException:
    error: Exception = ValueError("inmost")
    for _ in range(500):
        error = ExceptionGroup("deeper", [error])
    return error


@kind
def many_notes() -> BaseException:
    error = ValueError("noted")
    for _ in range(10_000):
        error.add_note("n" * 1_000)
    return error


@kind
def recursion() -> BaseException:
    def down(n: int) -> int:
        return down(n + 1)

    try:
        down(0)
    except RecursionError as error:
        return error
    raise AssertionError


# --- tasks ----------------------------------------------------------------------------------------


@task
async def on_loop(name: str) -> None:
    raise made(name)


@task
def in_thread(name: str) -> None:
    raise made(name)


@task(pool="process")
def in_process(name: str) -> None:
    raise made(name)


@task(raises=(Exception,))
async def declared(name: str) -> None:
    raise made(name)


class _Unasked(type):
    def __subclasscheck__(cls, kind: type) -> bool:
        raise SystemExit(9)

    __instancecheck__ = __subclasscheck__


class Unasked(Exception, metaclass=_Unasked):
    """Which exceptions are of this class is not to be asked."""


ODD = Retry(attempts=2, on=(Unasked,), first="1ms")


@task(retry=ODD)
async def odd_on_loop() -> None:
    raise ValueError("plain")


@task(retry=ODD)
def odd_in_thread() -> None:
    raise ValueError("plain")


@task
def good_in_thread() -> int:
    return 1


@workflow
async def goes_on_in_thread() -> int:
    return await good_in_thread()


TASKS = {
    "odd on the loop": odd_on_loop,
    "odd in a thread": odd_in_thread,
    "loop": on_loop,
    "thread": in_thread,
    "process": in_process,
    "declared": declared,
}


@workflow
async def raises(where: str, name: str) -> None:
    await TASKS[where](name)


@workflow
async def fails_oddly(where: str) -> None:
    await TASKS[where]()


@workflow
async def raises_itself(name: str) -> None:
    raise made(name)


@task
async def good() -> int:
    return 1


@workflow
async def goes_on() -> int:
    return await good()


CTRL_C: set[str] = set()


@workflow
async def interrupted() -> int:
    found = await good()
    if CTRL_C:
        raise KeyboardInterrupt
    return found
