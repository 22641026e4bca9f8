"""The signals of a run: those that came and were not consumed yet, and who waits for one (each is consumed once)."""

from __future__ import annotations

from collections import deque

import msgspec

from perdure.kernel.futures import FlowFuture


class Signals:
    """Shape: by name, in the order of arrival; those who wait are served in the order in which they asked."""

    __slots__ = ("_unread", "_waiters")

    def __init__(self) -> None:
        self._unread: dict[str, deque[msgspec.Raw]] = {}
        self._waiters: dict[str, dict[FlowFuture, None]] = {}

    def keep(self, name: str, value: msgspec.Raw) -> None:
        """Keep one until somebody waits for it."""
        self._unread.setdefault(name, deque()).append(value)

    def arrive(self, name: str, value: msgspec.Raw) -> bool:
        """Give one to who waits longest; false when it is kept."""
        for waiter in self._waiters.get(name, ()):
            if not waiter.done():
                waiter.set_result(value)
                return True
        self.keep(name, value)
        return False

    def take(self, name: str) -> msgspec.Raw | None:
        """The oldest that nobody has consumed."""
        unread = self._unread.get(name)
        if unread is None:
            return None
        value = unread.popleft()
        if not unread:
            del self._unread[name]
        return value

    def await_next(self, name: str, waiter: FlowFuture) -> None:
        self._waiters.setdefault(name, {})[waiter] = None

    def leave(self, name: str, waiter: FlowFuture) -> None:
        """Wait no more."""
        waiters = self._waiters.get(name)
        if waiters is not None:
            waiters.pop(waiter, None)
            if not waiters:
                del self._waiters[name]

    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiters)

    def wanted(self) -> tuple[str, ...]:
        """The names that are waited for."""
        return tuple(name for name, waiters in self._waiters.items() if any(not waiter.done() for waiter in waiters))

    def unread(self) -> list[tuple[str, msgspec.Raw]]:
        """All that nobody has consumed, for the next generation."""
        return [(name, value) for name, values in self._unread.items() for value in values]
