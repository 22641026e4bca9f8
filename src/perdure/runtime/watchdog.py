"""Names a flow or an async task that blocks the event loop, and interrupts it where it is Python code (F77)."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.errors import Blocked
from perdure.kernel.decider import Trouble

if TYPE_CHECKING:
    from perdure.kernel.decider import Decider
    from perdure.model import fact as f

log = logging.getLogger("perdure.watchdog")
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_BLOCKED = ctypes.py_object(Blocked)
# A piece of user code is interrupted in the third look that finds it there, and every fourth look after that.
LOOKS = 4


class Watchdog:
    """Looks on from a thread of its own. Made on the loop that it watches.

    Whoever runs a piece of user code on the loop counts `serial` up and sets `what` before it, and takes that back behind
    it. An interruption hits the piece that it is meant for, or nothing; so behind each piece, without a call of Python
    code in between: `what = None`; and where `fired` is this serial, `revoke()`, since it may still be on its way.

    Shape: `fired` is the serial of the piece that was interrupted last.
    """

    def __init__(self, limit_s: float) -> None:
        self.what: Any = None
        self.serial = self.fired = 0
        self._limit, self._thread_id = limit_s, ctypes.c_ulong(threading.get_ident())
        self.revoke = partial(_raise_in, self._thread_id, None)
        self._loop, self._hooks = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perdure-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def fold(self, decider: Decider, fact: f.AnyFact, seq: int, expected: tuple[f.Decision, ...] = ()) -> None:
        """One turn. One that was interrupted is in trouble, whatever its code made of the interruption."""
        self.serial = serial = self.serial + 1
        try:
            self.what = decider
            try:
                decider.on(fact, seq, expected)
            finally:
                self.what = None
                if self.fired == serial:
                    self.revoke()
        except Blocked:
            pass
        if self.fired == serial:
            # The turn may have been left in the very moment in which the flow's loop gave the place back to this one.
            asyncio._set_running_loop(self._loop)
            sys.set_asyncgen_hooks(*self._hooks)
            decider.trouble = Trouble("blocked", f"its code blocked the event loop for more than {self._limit:g}s")

    def _watch(self) -> None:
        period = self._limit / LOOKS
        seen, times = -1, 0
        while not self._stop.wait(period):
            serial = self.serial
            if self.what is None or serial != seen:
                seen, times = serial, 0
                continue
            times += 1
            if times % LOOKS == LOOKS - 1:
                self.interrupt(serial)

    def interrupt(self, serial: int) -> None:
        """Interrupt this piece of code, if it is still there."""
        what = self.what
        if what is None or self.serial != serial:
            return
        log.warning("%s blocks the event loop for more than %gs: it is interrupted", name_of(what), self._limit)
        # From this look to the raise there is no call of Python code: the loop's thread cannot go on in between.
        if self.what is not None and self.serial == serial:
            self.fired = serial
            _raise_in(self._thread_id, _BLOCKED)


def name_of(what: Any) -> str:
    """A flow or attempt for people."""
    if hasattr(what, "number"):
        return f"async task {what.spec.name} (step {what.key} of run {what.run_id})"
    return f"{what.shape} {what.spec.name} (run {what.run_id})"
