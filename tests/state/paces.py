"""A disk that is taken for slow from its first COMMIT on, so that all others are made in a thread (S30)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from perdure.state.sqlite import SqliteStore
from perdure.state.sqlite_pace import Pace


def beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[SqliteStore], object] = lambda store: None
) -> Counter[str]:
    """Move COMMIT to a thread; the names of the threads that made one. Shape: `before` is called there first."""
    threads: Counter[str] = Counter()
    sync = SqliteStore._sync

    def noted(store: SqliteStore) -> None:
        threads[threading.current_thread().name] += 1
        before(store)
        sync(store)

    def took(pace: Pace, seconds: float, rows: int) -> None:
        pace.slow = True

    monkeypatch.setattr(SqliteStore, "_sync", noted)
    monkeypatch.setattr(Pace, "took", took)
    return threads
