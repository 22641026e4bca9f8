"""What a start audits: after a failed sync everything, before any work; else what is open, beside the work (S27)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import perdure
from perdure import NeedsAttention
from perdure.errors import StoreLost
from perdure.runtime.auditor import SLICE, Auditor
from perdure.runtime.sweep import Sweep
from perdure.state.store import Query
from tests.crash.harness import until_async
from tests.crash.programs.waits import busy, counts, waits
from tests.crash.witness import notes

ADDRESS = "sqlite:///s.db"
FLIP = """UPDATE facts SET body = CAST(replace(body, '"mark', '"mask') AS BLOB)
WHERE seq = 2 AND run = (SELECT no FROM runs WHERE id = ?)"""


def lose() -> None:
    """Leave the note of a failed sync."""
    Path("s.db.lost").touch()


def is_lost() -> bool:
    return Path("s.db.lost").exists()


@pytest.fixture(autouse=True)
def _witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", str(tmp_path))


async def store_with(*damaged: str) -> None:
    """A store with three runs that wait, in some of which one fact has been changed by a hand or a bad disk."""
    async with perdure.open(ADDRESS, workflows=[waits]) as engine:
        for number in range(3):
            await engine.start(waits, number, id=f"w{number}")
        for number in range(3):
            await until_async(lambda n=number: waiting(engine, f"w{n}"), "a run that waits")
    database = sqlite3.connect("s.db")
    with database:
        for run in damaged:
            assert database.execute(FLIP, (run,)).rowcount == 1
    database.close()


async def waiting(engine: perdure.Engine, run: str) -> bool:
    return bool((await engine.row(run)).wait.signals)


async def test_s27_after_a_failed_sync_everything_is_audited_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: nothing moves before all was looked at; a damaged run needs attention, the others go on."""
    await store_with("w1")
    lose()
    seen: list[tuple[int, str]] = []

    class Watched(Sweep):
        async def run(self) -> None:
            seen.append((auditors[0].looked, (await self.node.store.find(Query(ids=("w1",))))[0].status))
            await super().run()

    auditors: list[Auditor] = []
    monkeypatch.setattr("perdure.runtime.engine.Sweep", Watched)
    monkeypatch.setattr("perdure.runtime.engine.Auditor", lambda *args: auditors.append(Auditor(*args)) or auditors[0])
    async with perdure.open(ADDRESS, workflows=[waits]) as engine:
        await until_async(lambda: bool(seen), "the sweep begins")
        assert seen == [(3, "attention")]
        await engine.get("w0").signal("go", 10)
        assert await engine.get("w0").result("30s") == 10
        with pytest.raises(NeedsAttention, match="fact 2"):
            await engine.get("w1").result("30s")
    assert not is_lost()
    assert [words for words in notes("marks") if words[:2] == ["w1", "after"]] == []


async def test_s27_a_full_audit_that_was_cut_short_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the need for it outlives a death in the middle of it."""
    await store_with("w1")
    lose()

    async def dies(self: Auditor) -> None:
        raise StoreLost("once more")

    with monkeypatch.context() as patched:
        patched.setattr(Auditor, "everything", dies)
        with pytest.raises(StoreLost):
            await perdure.open(ADDRESS, workflows=[waits]).__aenter__()
    assert is_lost()
    async with perdure.open(ADDRESS, workflows=[waits]) as engine:
        assert engine.auditor.damaged == ["w1"]


async def test_s27_other_starts_audit_what_is_open_beside_the_work() -> None:
    """Goal: damage that no load has met is found after any start, while new work is done at once."""
    await store_with("w0", "w2")
    async with perdure.open(ADDRESS, workflows=[waits, busy]) as engine:
        first = await engine.start(busy, 5)
        assert await first.result("30s") == 5
        await until_async(lambda: engine.auditor.looked >= 3, "the audit")
        assert engine.auditor.damaged == ["w0", "w2"]

        async def attention() -> bool:
            return [row.id async for row in engine.runs(status="attention")] == ["w2", "w0"]

        await until_async(attention, "both need attention")
        await engine.get("w1").signal("go", 1)
        assert await engine.get("w1").result("30s") == 2


async def test_s27_the_audit_beside_the_work_finds_nothing_in_sound_runs() -> None:
    """Goal: it cries no wolf over runs that move meanwhile, long ones among them, and it comes to an end."""
    long = 3 * SLICE
    async with perdure.open(ADDRESS, workflows=[waits, counts]) as engine:
        await engine.start(counts, long, id="long")
        for number in range(long - 1):
            await engine.get("long").signal("go", number)
        await engine.start(waits, 0, id="w0")
    async with perdure.open(ADDRESS, workflows=[waits, counts]) as engine:
        await engine.get("w0").signal("go", 4)
        assert await engine.get("w0").result("30s") == 4
        assert engine._auditing is not None
        await until_async(engine._auditing.done, "the audit ends")
        assert engine.auditor.damaged == []
        assert engine.auditor.looked >= 1
        await engine.get("long").signal("go", long - 1)
        assert await engine.get("long").result("30s") == list(range(long))
