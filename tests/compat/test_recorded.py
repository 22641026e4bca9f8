"""Stores and histories that earlier versions wrote: they open, verify, and their runs go on (F72, rule 5 of CONTRIBUTING)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from perdure.errors import NeedsAttention
from perdure.model import fact as f
from perdure.testing import World
from tests.compat.record import programs, record

pytestmark = pytest.mark.compat
HERE = Path(__file__).parent
VERSIONS = sorted(HERE.glob("*.db"))
ENDED = {
    "plain": "completed", "declined": "completed", "waits": "completed", "cancelled": "cancelled", "late": "completed",
    "figures": "completed", "countdown": "completed",
}  # fmt: skip


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(HERE.parents[1])
    return programs()


@pytest.fixture(params=VERSIONS, ids=[path.stem for path in VERSIONS])
def world(request: pytest.FixtureRequest, orders: ModuleType, tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "old.db"
    shutil.copy(request.param, path)
    with World(f"sqlite:///{path}", serve=list(orders.SERVED)) as world:
        world.clock.advance("10d")
        yield world


def test_f72_recorded_histories_verify_and_are_answered(world: World) -> None:
    """Goal: each is replayed by the code of today, has every kind of fact that lasts, and its outcome is read as ever."""
    rows = {row.id: row for row in world.rows()}
    assert {run: rows[run].status for run in ENDED} == ENDED
    assert world.audit_all() == []
    assert world.result("plain") == {"paid": "charged 1250", "notes": 2, "bill": 40_000, "boxes": [1, 2.5, None, "ß"]}
    assert world.result("declined") == {"declined": "declined"}
    assert world.result("waits") == "from the countdown"
    assert world.result("figures") == 38
    kinds = {type(fact) for run in rows for fact in world.history(run)}
    missing = {kind.__name__ for kind in KINDS - kinds}
    assert not missing


KINDS = {
    f.RunStarted, f.RunContinued, f.RunCompleted, f.RunCancelled, f.StepCompleted, f.AttemptFailed, f.IntentRecorded,
    f.TimerFired, f.SignalReceived, f.ChildEnded, f.PatchTaken, f.CancelRequested,
}  # fmt: skip


def test_f72_runs_of_an_earlier_version_go_on(world: World) -> None:
    """Goal: a run that waited when it was recorded takes its signal, and its history is that of before with more behind."""
    before = [f.encode_fact(fact) for fact in world.history("open")]
    assert world.status("open") == "waiting"
    world.signal("open", "approval", "at last")
    assert world.result("open") == "at last"
    after = [f.encode_fact(fact) for fact in world.history("open")]
    assert after[: len(before)] == before
    assert world.audit_all() == []


def test_f72_other_code_is_told_from_what_was_recorded(orders: ModuleType, tmp_path: Path) -> None:
    """Goal: a step put before those that are recorded is found by name; the run needs attention, the others do not."""
    text = (HERE / "orders.py").read_text()
    changed = text.replace(
        "    await charge(order)\n    try:", "    await note('new')\n    await charge(order)\n    try:"
    )
    assert changed != text
    (tmp_path / "orders.py").write_text(changed)
    path = tmp_path / "old.db"
    shutil.copy(VERSIONS[-1], path)
    with World(f"sqlite:///{path}", serve=list(programs(str(tmp_path / "orders.py")).SERVED)) as world:
        world.clock.advance("10d")
        world.play(world.engine.get("open").signal("approval", "too soon"))
        with pytest.raises(NeedsAttention, match=r"charge#1"):
            world.result("open")
        assert world.status("figures") == "completed"


def test_f72_what_is_recorded_today_is_recorded_as_ever(orders: ModuleType, tmp_path: Path) -> None:
    """Goal: the recorder still makes what the kept store of this version holds, fact by fact."""
    record(tmp_path / "new.db")
    kept = tmp_path / "kept.db"
    shutil.copy(VERSIONS[-1], kept)
    with World(f"sqlite:///{kept}") as old, World(f"sqlite:///{tmp_path / 'new.db'}") as new:
        for run in ENDED:
            assert [type(fact) for fact in old.history(run)] == [type(fact) for fact in new.history(run)], run
