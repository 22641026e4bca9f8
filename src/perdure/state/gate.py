"""One at a time: steps that write to a file in transactions of their own, and the engine where the file is its store.

Who waits here waits for no lock of the database: threads and coroutines of one process stand in one line, the engine
goes first, and nobody holds up the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque


class Place:
    """A place in the line. Shape: `mine` is set once it is its owner's turn."""

    __slots__ = ("future", "loop", "mine")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.mine = threading.Event()
        self.loop = loop
        self.future: asyncio.Future[None] | None = None if loop is None else loop.create_future()

    def _wake(self) -> None:
        self.mine.set()
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Gate:
    """Shape: `holder` is the place whose turn it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holder: Place | None = None
        self._line: deque[Place] = deque()

    def ask(self, place: Place, *, first: bool = False) -> Place:
        """Stand in line. Shape: `first`: before all who wait."""
        with self._lock:
            if self.holder is None:
                self.holder = place
                place._wake()
            elif first:
                self._line.appendleft(place)
            else:
                self._line.append(place)
        return place

    def leave(self, place: Place) -> None:
        """Give up the turn, or the place in the line; done twice it changes nothing."""
        with self._lock:
            if self.holder is not place:
                if place in self._line:
                    self._line.remove(place)
                return
            self.holder = self._line.popleft() if self._line else None
            if self.holder is not None:
                self.holder._wake()

    def free(self) -> Place | None:
        """The turn, if it can be had at once."""
        with self._lock:
            if self.holder is not None:
                return None
            self.holder = place = Place()
        return place

    async def turn(self, *, first: bool = False) -> Place:
        """Wait for the turn, on the loop."""
        place = self.ask(Place(asyncio.get_running_loop()), first=first)
        assert place.future is not None
        try:
            await place.future
        except BaseException:
            self.leave(place)
            raise
        return place
