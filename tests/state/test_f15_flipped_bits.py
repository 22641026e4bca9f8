"""A bit flips in the file or its log: that is found, or it is harmless; nothing is replayed in silence (F15)."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.errors import NotAStore, PerdureError, StoreBehind, StoreDamaged, StoreNewer
from perdure.settings import Settings
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Loaded
from tests.state import flips

pytestmark = pytest.mark.slow
REFUSALS = (NotAStore, StoreBehind, StoreDamaged, StoreNewer)
LOADS = ("loaded", "children", "whole", "snapped")


class Verdict:
    """What became of the flips. Shape: `silent` names those that nothing tells of."""

    def __init__(self, good: dict[str, Any]) -> None:
        self.good = good
        self.count: Counter[str] = Counter()
        self.silent: list[str] = []

    def refused(self, where: str, error: PerdureError) -> None:
        self.count["refused"] += 1
        if not isinstance(error, REFUSALS):
            self.silent.append(f"{where}: {error!r}")

    def read(self, where: str, found: dict[str, Any], told: list[str]) -> None:
        """Compare all that was read with what was written."""
        wrong = {
            name: value for name, value in found.items() if isinstance(value, PerdureError) or value != self.good[name]
        }
        self.count["told" if told or wrong else "harmless"] += 1
        for name, value in wrong.items():
            if isinstance(value, PerdureError):
                known = isinstance(value, StoreDamaged)
            elif name in LOADS and len(value) == len(self.good[name]):
                known = all(self._known(one, name, place, told) for place, one in enumerate(value))
            else:
                known = bool(told)
            if not known:
                self.silent.append(f"{where}: {name} is {value}")

    def _known(self, one: Loaded, name: str, place: int, told: list[str]) -> bool:
        """A run that is loaded is what it was, or is known to be damaged by whoever loads it."""
        good = self.good[name][place]
        if one.snapshot is None and good.snapshot is not None:  # dropped: all facts are there in its place
            good = self.good["loaded"][place]
        if one.progress != good.progress:  # dropped: a step begins without it
            good = msgspec.structs.replace(good, progress={})
            return bool(one.damage) or (bool(told) and one == good)
        return one == good or bool(one.damage)


async def look(verdict: Verdict | None, where: str) -> dict[str, Any]:
    """Open the store as an engine does, read all of it, and check it."""
    try:
        store = await SqliteStore.open_engine(flips.FILE, Settings(lock_wait_s=0))
    except PerdureError as error:
        assert verdict is not None
        verdict.refused(where, error)
        return {}
    try:
        found = await flips.read(store)
        try:
            told = await store.check()
        except PerdureError as error:
            told = [str(error)]
    finally:
        await store.close()
    if verdict is not None:
        verdict.read(where, found, told)
    else:
        assert not told
    return found


async def flip_many(name: str, count: int, seed: int) -> Counter[str]:
    """Flip bits in one of the files of a store, one at a time; what became of them."""
    files = await flips.make(closed=not name.endswith("-wal"))
    flips.lay(files)
    verdict = Verdict(await look(None, "as it was"))
    for at, data in flips.flipped(files[name], seed, count):
        flips.lay({**files, name: data})
        await look(verdict, f"byte {at} of {name}")
    assert not verdict.silent, "\n".join(verdict.silent[:3])
    assert verdict.count.total() == count
    return verdict.count


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Each altered row is told of in the log."""
    caplog.set_level(logging.CRITICAL)


async def test_f15_a_thousand_bits_of_the_file() -> None:
    """Goal: whatever bit of the file flips, what would be acted upon is as it was, or is known to be damaged."""
    count = await flip_many(flips.FILE, 1_000, 15)
    assert count["told"] > 150
    assert count["refused"] > 50


async def test_f15_bits_of_the_log() -> None:
    """Goal: a flipped bit in the log never becomes a state without what was acknowledged: the mark tells."""
    count = await flip_many(f"{flips.FILE}-wal", 400, 16)
    assert count["refused"] > 100, "what comes after the flip is lost, and the mark knows"
    assert count["told"] == 0


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
async def test_f15_ten_thousand_bits(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the same, many more."""
    for number, (name, count) in enumerate([(flips.FILE, 2_000), (f"{flips.FILE}-wal", 500)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert (await flip_many(name, count, 100 + seed)).total() == count
