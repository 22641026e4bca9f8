"""An engine on a store of its own, and what a measurement needs around it."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import perdure
from bench import workflows

T = TypeVar("T")


def opened(folder: str, *more: Any, **settings: Any) -> Any:
    """An engine, with the measured workflows and these, on the store in this folder."""
    return perdure.open(f"sqlite:///{folder}/bench.db", workflows=[workflows, *more], **settings)


def fresh(work: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Do the work in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        gc.collect()
        return asyncio.run(work(folder))


def peak_begins() -> float:
    """Forget the peak of this process's memory; what it holds now, in MB."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> float:
    """The most memory that this process held since `peak_begins`, in MB."""
    return _status("VmHWM")


def _status(name: str) -> float:
    for text in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if text.startswith(name):
            return int(text.split()[1]) / 1024
    raise RuntimeError(f"no {name} in /proc/self/status")
