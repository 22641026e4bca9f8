"""A task: the definition of an activity, and what is promised about its attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from perdure.model.payload import Shape, Signature
from perdure.model.policy import ONCE, Retry

Pool = Literal["async", "thread", "process"]
Priority = Literal["low", "normal", "high"] | int


class TaskSpec(msgspec.Struct, kw_only=True, dict=False, eq=False):
    """What the engine knows of a task.

    Shape: `raises` are exception types that come back as themselves; `needs` are resource amounts by name;
           `transaction` is the address of the database that it commits with, True for the store's own.
    Units: `*_us` microseconds; None: unbounded.
    """

    name: str
    fn: Callable[..., Any]
    signature: Signature
    result: Shape
    pool: Pool
    retry: Retry = ONCE
    timeout_us: int | None = None
    deadline_us: int | None = None
    heartbeat_us: int | None = None
    compensate: TaskSpec | None = None
    raises: tuple[type[BaseException], ...] = ()
    at_most_once: bool = False
    probe: Callable[..., Any] | None = None
    concurrency: int | None = None
    priority: Priority = "normal"
    needs: Mapping[str, float] = {}
    queue: str = ""
    transaction: str | bool = False
