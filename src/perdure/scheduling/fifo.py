"""First in, first out, with a bound for each task that asks for one."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar


class Bounded(Protocol):
    """Something with a task's name, and the task's bound (None: none)."""

    name: str
    concurrency: int | None


T = TypeVar("T")


class Fifo(Generic[T]):
    """What is ready, oldest first. Items of a task at its bound stand aside until one of it is done.

    Shape: `used` counts the items taken and not yet done, for tasks with a bound.
    """

    __slots__ = ("_aside", "_ready", "_used")

    def __init__(self) -> None:
        self._ready: deque[tuple[T, Bounded]] = deque()
        self._aside: dict[str, deque[tuple[T, Bounded]]] = {}
        self._used: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, item: T, task: Bounded) -> None:
        self._ready.append((item, task))

    def take(self) -> T | None:
        """The next item that may begin; None: nothing may."""
        ready = self._ready
        while ready:
            item, task = ready.popleft()
            bound = task.concurrency
            if bound is None:
                return item
            used = self._used.get(task.name, 0)
            if used < bound:
                self._used[task.name] = used + 1
                return item
            self._aside.setdefault(task.name, deque()).append((item, task))
        return None

    def done(self, task: Bounded) -> bool:
        """One item of the task is done; true when another one may begin now."""
        if task.concurrency is None:
            return False
        self._used[task.name] -= 1
        aside = self._aside.get(task.name)
        if not aside:
            return False
        self._ready.appendleft(aside.popleft())
        return True

    def clear(self) -> list[T]:
        """Take out everything that has not begun."""
        left = [item for item, _ in self._ready]
        left.extend(item for aside in self._aside.values() for item, _ in aside)
        self._ready.clear()
        self._aside.clear()
        return left
