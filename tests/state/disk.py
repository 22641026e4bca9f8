"""A disk that fails as it is told to: SQLite's own reads and writes in this process, by the hooks it has for that.

Source: the `xSetSystemCall` methods of SQLite's unix file system, which its own tests fail system calls with.
"""

from __future__ import annotations

import ctypes
import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import apsw

_CALL = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, use_errno=True
)
# What a rule says of one call: 0 lets it pass, a positive number is the error it fails with, a negative one lets
# only so many bytes through (a short read or write).
Rule = Callable[[str, int], int]
WRITE, READ = "pwrite64", "pread64"


class Disk:
    """While it is entered, each positioned read and write that SQLite makes is counted and may fail.

    Shape: `rules` by the name of the call are asked with the name of the file and the call's number, counted from 1;
           `calls` counts all of them, `failed` those that were not let through whole.
    """

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._system = apsw.VFS("tests-disk", "unix")
        self._kept: list[Any] = []

    def __enter__(self) -> Self:
        for name in (WRITE, READ):
            made = self._instead(name, self._system.xGetSystemCall(name))
            self._kept.append(made)
            assert self._system.xSetSystemCall(name, ctypes.cast(made, ctypes.c_void_p).value)
        return self

    def __exit__(self, *_: object) -> None:
        for name in (WRITE, READ):
            assert self._system.xSetSystemCall(name, 0)  # 0: as it was
        self._system.unregister()

    def _instead(self, name: str, address: int | None) -> Any:
        assert address, f"this SQLite does not {name}"
        real = _CALL(address)

        def call(file: int, buffer: int, size: int, offset: int) -> int:
            self.calls[name] += 1
            rule = self.rules.get(name)
            said = rule(_name(file), self.calls[name]) if rule is not None else 0
            if said:
                self.failed[name] += 1
            if said > 0:
                ctypes.set_errno(said)
                return -1
            done: int = real(file, buffer, min(size, -said) if said else size, offset)
            return done

        return _CALL(call)

    # --- what may go wrong -----------------------------------------------------------------------------

    def full(self, first: int = 1) -> None:
        """From the write of this number on there is no space."""
        self.rules[WRITE] = lambda _, number: errno.ENOSPC if number >= first else 0

    def free(self) -> None:
        """There is space again."""
        self.rules.pop(WRITE, None)


def _name(file: int) -> str:
    return Path(f"/proc/self/fd/{file}").readlink().name
