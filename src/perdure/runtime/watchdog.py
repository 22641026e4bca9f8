"""Names a flow or an async task that blocks the event loop, and interrupts it where it is Python code (F77)."""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import Any

from perdure.errors import Blocked

log = logging.getLogger("perdure.watchdog")
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Watchdog:
    """The loop sets `what` before user code and None behind it, and counts `serial` up; a thread looks on.

    Should user code end in the very moment in which it is interrupted, the interruption reaches the engine's own
    loop, which then treats the batch as lost and loads its runs again.
    """

    def __init__(self, limit_s: float, thread_id: int) -> None:
        self.what: Any = None
        self.serial = 0
        self.fired = 0
        self._limit, self._thread_id = limit_s, thread_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perdure-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        period = self._limit / 4
        seen, times = -1, 0
        while not self._stop.wait(period):
            serial = self.serial
            if self.what is None or serial != seen:
                seen, times = serial, 0
                continue
            times += 1
            if times == 3:
                self._interrupt(serial)

    def _interrupt(self, serial: int) -> None:
        what = self.what
        if what is None or self.serial != serial:
            return
        log.warning("%s blocks the event loop for more than %gs: it is interrupted", name_of(what), self._limit)
        self.fired = serial
        _raise_in(ctypes.c_ulong(self._thread_id), ctypes.py_object(Blocked))


def name_of(what: Any) -> str:
    """A flow or attempt for people."""
    if hasattr(what, "number"):
        return f"async task {what.spec.name} (step {what.key} of run {what.run_id})"
    return f"flow {what.spec.name} (run {what.run_id})"
