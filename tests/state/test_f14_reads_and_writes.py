"""Reads fail, writes fail or are cut short, calls are interrupted: an error at most, never half a commit (F14)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.errors import StoreDamaged, StoreUnavailable
from tests.crash.harness import audited, until_async
from tests.state import programs
from tests.state.disk import READ, WRITE, Disk, Rule

ADDRESS = "sqlite:///s.db"


class Life:
    """A run from its start to its end, asked for until it is granted. An engine that gave up is started anew.

    Shape: `refused` is what callers were told; `starts` counts engines, `calls` the reads and writes until the end.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.refused: list[str] = []
        self.starts = 0
        self.calls: dict[str, int] = {}

    async def granted(self, ask: Callable[[], Awaitable[Any]]) -> list[Any]:
        try:
            return [await ask()]
        except (StoreUnavailable, StoreDamaged) as error:  # a read that fails looks like damage to SQLite
            self.refused.append(str(error))
            return []

    async def lived(self) -> None:
        programs.fresh()
        while not (await until_async(lambda: self.granted(self.one_engine), "it goes on"))[0]:
            pass
        async with perdure.open(ADDRESS, [programs.mixed]):
            pass
        assert len(await audited(ADDRESS, programs.mixed, programs.inner)) == 2
        # Only another engine makes again what the one before had made and could not record.
        assert max(programs.made.values()) <= self.starts, programs.made
        assert len(programs.made) == 5

    async def one_engine(self) -> bool:
        """Whether it came to the end of the run."""
        async with perdure.open(ADDRESS, [programs.mixed], **programs.SETTINGS) as engine:
            self.starts += 1
            handle = engine.get("one")
            try:
                for ask in (
                    lambda: engine.start(programs.mixed, 3, id="one", request_id="start"),
                    lambda: handle.signal("go", 7, request_id="go"),
                    lambda: handle.result("60s"),
                ):
                    while not (answer := await self.granted(ask)):
                        if engine.node.lost is not None:
                            return False
                        await asyncio.sleep(0)
                assert answer == [programs.RESULT]
            finally:
                self.disk.rules.clear()
                self.calls = dict(self.disk.calls)
        return True


def every_second(answer: int) -> Rule:
    return lambda _, number: answer if number % 2 else 0


@pytest.mark.parametrize(
    "write, read",
    [(every_second(-100), None), (every_second(errno.EINTR), every_second(errno.EINTR)), (lambda *_: -1_000, None)],
    ids=["short writes", "interrupted", "each write in pieces"],
)
async def test_f14_what_is_interrupted_or_cut_short_is_gone_on_with(write: Rule, read: Rule | None) -> None:
    """Goal: neither a call that a signal interrupts nor a write that takes only a part of its bytes is an error."""
    with Disk() as disk:
        disk.rules[WRITE] = write
        if read is not None:
            disk.rules[READ] = read
        life = Life(disk)
        await life.lived()
        assert disk.failed[WRITE] > 20
        assert (life.refused, life.starts) == ([], 1)


async def failing_once(name: str, numbers: Sequence[int], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run for each of these calls, in which that one fails with EIO."""
    told = fired = 0
    for number in numbers:
        where = folder / f"{name}-{number}"
        where.mkdir()
        monkeypatch.chdir(where)
        with Disk() as disk:
            disk.rules[name] = lambda _, at, number=number: errno.EIO if at == number else 0  # type: ignore[misc]
            life = Life(disk)
            await life.lived()
            fired += disk.failed[name]
            told += bool(life.refused)
    assert fired > len(numbers) * 0.6
    assert told > 2


@pytest.mark.parametrize("name", [READ, WRITE])
async def test_f14_a_read_or_write_that_fails_once_is_an_error_and_no_half_commit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: what failed is told or tried again; all that was acknowledged is there once, whole."""
    with Disk() as disk:
        life = Life(disk)
        await life.lived()
        calls = life.calls[name]
    assert calls >= 5
    await failing_once(name, range(1, calls + 1, max(1, calls // 10)), tmp_path, monkeypatch)


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [READ, WRITE])
async def test_f14_each_read_and_write_fails_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the same, at each of them."""
    await failing_once(name, range(1, 90), tmp_path, monkeypatch)
