"""The limits of this machine: R rows a second in batches, L seconds for one commit through a thread."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import apsw

RUNS = 2_000
BATCH = 1_000


def _connect(folder: str) -> apsw.Connection:
    connection = apsw.Connection(str(Path(folder) / "limit.db"))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE facts(run INTEGER, seq INTEGER, body BLOB)")
    connection.execute("CREATE UNIQUE INDEX facts_run_seq ON facts(run, seq)")
    return connection


def rows_a_second(batches: int = 100) -> float:
    """R: 200-byte rows of 2,000 runs in rotation, appended by rowid with a unique index on (run, seq)."""
    with tempfile.TemporaryDirectory() as folder:
        connection, body = _connect(folder), b"x" * 200
        count, taken = 0, 0.0
        for _ in range(batches):
            rows = [((count + i) % RUNS, (count + i) // RUNS, body) for i in range(BATCH)]
            count += BATCH
            begun = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO facts VALUES(?,?,?)", rows)
            connection.execute("COMMIT")
            taken += time.perf_counter() - begun
        connection.close()
        return count / taken


def commit_seconds(times: int = 300) -> float:
    """L: the median time of one single-row commit handed to a writer thread and back to the loop."""
    with tempfile.TemporaryDirectory() as folder:
        connection = _connect(folder)
        try:
            return asyncio.run(_hops(connection, times))
        finally:
            connection.close()


async def _hops(connection: apsw.Connection, times: int) -> float:
    loop, jobs = asyncio.get_running_loop(), SimpleQueue[Any]()

    def write() -> None:
        while (job := jobs.get()) is not None:
            number, done = job
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO facts VALUES(?,?,?)", (1, number, b"x" * 200))
            connection.execute("COMMIT")
            loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    taken = []
    for number in range(times):
        done = loop.create_future()
        begun = time.perf_counter()
        jobs.put((number, done))
        await done
        taken.append(time.perf_counter() - begun)
    jobs.put(None)
    thread.join()
    return statistics.median(taken)


class Beside:
    """Work in turns with a limit, so that both see the same machine.

    Shape: `ratios` of what the work gave to the mean of the limits measured right before and right behind it.
    """

    def __init__(self, limit: Callable[[], float]) -> None:
        self.limit = limit
        self.limits = [limit()]
        self.values: list[float] = []
        self.ratios: list[float] = []

    def take(self, work: Callable[[], float]) -> float:
        """Do the work once; what it gave."""
        value = work()
        before, after = self.limits[-1], self.limit()
        self.limits.append(after)
        self.values.append(value)
        self.ratios.append(value / ((before + after) / 2))
        return value

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)
