"""Power is cut at any moment: every acknowledged commit is there, what is there is whole and sound (F11)."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.settings import Settings
from perdure.state.sqlite import SqliteStore
from tests.crash.harness import ROOT, audited, strace
from tests.state import programs
from tests.state.power import Event, State, record, states

pytestmark = pytest.mark.crash
ADDRESS = "sqlite:///s.db"
TABLES = ("runs", "facts", "inbox", "requests", "blobs", "blob_refs", "progress", "epochs", "tombstones", "pulse")


def recorded(folder: Path, **env: str) -> list[Event]:
    """What the program of `tests.state.recorded` does to its disk."""
    tracer = strace()
    if tracer is None:
        pytest.skip("strace cannot run here, so that no writes can be recorded")
    folder.mkdir()
    events = record(
        tracer, folder, "tests.state.recorded", ADDRESS, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **env}
    )
    kinds = Counter((event.kind, event.name) for event in events)
    assert kinds["write", "s.db-wal"] > 200
    assert kinds["sync", "s.db"] >= 3, "the log was emptied now and then"
    assert kinds["ack", "acks"] > 20
    return events


class Found:
    """What the states of one recording hold. Shape: `contents` by the number of commits that a state holds."""

    def __init__(self) -> None:
        self.contents: dict[int, dict[str, Any]] = {}
        self.samples: dict[int, State] = {}
        self.looked = self.lost = 0

    async def look(self, state: State, folder: Path) -> None:
        """Start on this disk as an engine does."""
        lay(state, folder)
        store = await SqliteStore.open_engine(str(folder / "s.db"), Settings(lock_wait_s=0))
        try:
            assert await store.check() == [], f"after {state.at} events"
            commits = store._read.rows("pulse")[0][0]
            content = {name: list(store._db.execute(f"SELECT * FROM {name}")) for name in TABLES}
        finally:
            await store.close()
        self.looked += 1
        self.lost += commits < state.acknowledged
        # What is there is what the first so many commits wrote, all of it and nothing else.
        assert self.contents.setdefault(commits, content) == content, f"after {state.at} events, {commits} commits"
        self.samples.setdefault(commits, state)


def lay(state: State, folder: Path) -> None:
    """Make the folder look so."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in state.files.items():
        if name != "acks":
            (folder / name).write_bytes(data)


async def resumes(state: State, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine goes on from this disk; what it holds verifies, and ends as it would have ended."""
    lay(state, folder)
    monkeypatch.chdir(folder)
    programs.fresh()
    async with perdure.open(ADDRESS, [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        await engine.start(programs.mixed, 3, id="one", request_id="start")
        if not (await engine.row("one")).life.ended:
            await engine.get("one").signal("go", 7, request_id="go")
        assert await engine.get("one").result("60s") == programs.RESULT
    assert "one" in await audited(ADDRESS, programs.mixed, programs.inner, programs.waits)


async def explored(events: list[Event], folder: Path, **how: int) -> Found:
    """Look at all these states."""
    found = Found()
    for state in states(events, 11, **how):
        await found.look(state, folder)
    assert len(found.contents) > 12
    return found


async def test_f11_nothing_acknowledged_is_lost_in_a_sample_of_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: writes that were not synced may be lost, torn and reordered; what was acknowledged is there, and no half of more."""
    found = await explored(recorded(tmp_path / "made"), tmp_path / "found", every=4, chances=2)
    assert found.looked > 300
    assert found.lost == 0
    assert sorted(found.contents) == list(range(len(found.contents))), "each number of commits was found"
    for commits in list(found.samples)[::4]:
        await resumes(found.samples[commits], tmp_path / "goes-on", monkeypatch)


async def test_f11_without_syncs_the_last_commits_may_be_lost_but_nothing_is_half_there(tmp_path: Path) -> None:
    """Goal: the explorer finds what is lost where losing is allowed; so it would find it where it is not."""
    events = recorded(tmp_path / "made", PERDURE_DURABILITY="relaxed")
    found = await explored(events, tmp_path / "found", every=16, chances=1)
    assert found.lost > 10


@pytest.mark.torture
@pytest.mark.timeout(1800)
async def test_f11_nothing_acknowledged_is_lost_in_many_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: as above, after each event, with many samples of what was not synced; each number of commits goes on."""
    found = await explored(recorded(tmp_path / "made"), tmp_path / "found", every=1, chances=12)
    assert found.looked > 5_000
    assert found.lost == 0
    assert sorted(found.contents) == list(range(len(found.contents))), "each number of commits was found"
    for state in found.samples.values():
        await resumes(state, tmp_path / "goes-on", monkeypatch)
