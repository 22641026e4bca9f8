"""An engine on a damaged file: the run at fault is set aside, the others go on; nobody waits for ever (F15)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from zlib import crc32

import pytest

import perdure
from perdure import NeedsAttention
from perdure.cli.verify import audit_all
from perdure.errors import StoreDamaged
from perdure.settings import Settings
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Batch
from perdure.testing.rows import HandRun
from tests.state import flips, programs

ADDRESS = f"sqlite:///{flips.FILE}"
PAGE = 4_096


async def store() -> None:
    """A store in which run `two` waits for a signal that is in the inbox already."""
    flips.lay(await flips.make(closed=True))


def opening() -> perdure.app.Opening:
    return perdure.open(ADDRESS, [programs.mixed, programs.waits], **programs.SETTINGS)


def change(statement: str, *bound: object) -> None:
    """Change rows behind the engine's back."""
    database = sqlite3.connect(flips.FILE)
    with database:
        assert database.execute(statement, bound).rowcount == 1
    database.close()


def spoil(tree: str) -> None:
    """Make the root page of a table or index one of no kind that there is."""
    database = sqlite3.connect(flips.FILE)
    ((root,),) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (tree,))
    database.close()
    with Path(flips.FILE).open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(b"\x03")


async def others_go_on(engine: perdure.Engine) -> None:
    other = await engine.start(programs.waits, 2, id="other")
    await other.signal("go", 1)
    assert await other.result("60s") == 10


@pytest.mark.parametrize(
    "change_of",
    [
        "UPDATE facts SET body = CAST(replace(body, '\"look', '\"took') AS BLOB) WHERE seq = 2 AND run = (SELECT no FROM runs WHERE id = 'two')",
        "UPDATE facts SET body = CAST(x'fffe' AS TEXT) WHERE seq = 1 AND run = (SELECT no FROM runs WHERE id = 'two')",
        "UPDATE runs SET workflow = CAST(x'77ff' AS TEXT) WHERE id = 'two'",
        "UPDATE runs SET head = zeroblob(16) WHERE id = 'two'",
        "UPDATE runs SET start_at = 2 WHERE id = 'two'",
    ],
)
async def test_f15_an_altered_run_needs_attention_and_the_others_go_on(change_of: str) -> None:
    """Goal: a run is never replayed from facts, or as a row, that nobody wrote."""
    await store()
    change(change_of)
    async with opening() as engine:
        with pytest.raises(NeedsAttention):
            await engine.get("two").result("60s")
        await others_go_on(engine)
        assert programs.made["two", "look", 12] == 0
        assert {run.id: run.status async for run in engine.runs()}["two"] == "attention"


@pytest.mark.parametrize("tree", ["inbox", "requests", "runs_open"])
async def test_f15_who_waits_on_a_file_whose_structure_is_damaged_is_told(tree: str) -> None:
    """Goal: where work cannot be found any more the engine stops, with an error that says what to do."""
    await store()
    spoil(tree)
    async with opening() as engine:
        with pytest.raises(StoreDamaged, match="restore a backup"):
            await engine.get("two").result("60s")
        assert await engine.store.check()


@pytest.mark.parametrize("tree", ["snapshots", "tombstones", "tags_run"])
async def test_f15_what_can_be_done_without_is_done_without(tree: str) -> None:
    """Goal: damage in what no run's progress rests on stops no run; the check finds it."""
    await store()
    spoil(tree)
    async with opening() as engine:
        assert await engine.get("two").result("60s") == 14
        assert await engine.store.check()


async def test_f15_an_altered_answer_is_known_as_given_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a request whose answer was altered still counts once."""
    await store()
    change("UPDATE requests SET answer = x'7b02' WHERE id = 'go'")
    async with opening() as engine:
        assert "the answer to request go was altered" in (await engine.store.check())
        await engine.get("one").signal("go", 7, request_id="go")
        assert "the answer to request go was altered" in caplog.text
        assert await engine.get("two").result("60s") == 14


@pytest.mark.parametrize("facts", ["begun begun", "begun done done", "done begun"])
async def test_f15_a_history_that_no_code_wrote_is_set_aside_and_the_others_go_on(facts: str) -> None:
    """Goal: a history whose sums are right, and which still cannot be, is replayed into attention."""
    await store()
    by_hand = await SqliteStore.open_engine(flips.FILE, Settings())
    try:
        (two,) = await by_hand.load(["two"])
        bodies = {"begun": two.facts[0][1], "done": two.facts[1][1]}
        poison, batch = HandRun("poison", workflow="waits", definition=two.row.definition), Batch()
        poison.start(batch).facts(batch, *(bodies[fact] for fact in facts.split()))
        poison.update(batch, definition=two.row.definition)
        by_hand.commit(batch)
    finally:
        await by_hand.close()
    for _ in range(2):
        async with opening() as engine:
            with pytest.raises(NeedsAttention):
                await engine.get("poison").result("60s")
            assert await engine.get("two").result("60s") == 14


UNREAD = {
    "altered": (b'{"kind":"cancel","run":"two"}', 1),
    "of a newer kind": (b'{"kind":"migrate","run":"two","to":"2"}', None),
    "without what its kind holds": (b'{"kind":"signal","run":"two","name":"go"}', None),
    "no message": (b"\xff\x00", None),
}


def put_first(body: bytes, crc: int | None, count: int = 1) -> None:
    """Rows of the inbox before all others."""
    change("UPDATE inbox SET no = no + 1000")
    crc = crc32(body) if crc is None else crc
    for no in range(1, count + 1):
        change("INSERT INTO inbox (no, run, body, crc) VALUES (?, 'two', ?, ?)", no, body, crc)


@pytest.mark.parametrize("what", UNREAD)
async def test_f15_a_message_that_cannot_be_read_is_kept_and_the_others_are_heard(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: one row of the inbox stands in nobody's way; log, check and audit name it, and it stays for who can read it."""
    await store()
    put_first(*UNREAD[what])
    async with opening() as engine:
        assert await engine.get("two").result("60s") == 14
        await others_go_on(engine)
        assert [row.message for row in await engine.store.inbox(0, 10)] == []
        assert sum("message 1 of the inbox" in line for line in caplog.messages) == 1
        (wrong,) = await engine.store.check()
        assert wrong.startswith("message 1 of the inbox, to run two, ")
        findings = await audit_all(engine.store, Settings(), replay=False)
        assert wrong in "\n".join(findings.lines())
        broken = [report.subject for report in findings.reports if not report.ok]
        assert broken == ["run hand", "store"]  # the facts of the former are no facts, which hides no other run
        assert {report.subject for report in findings.reports} > {"run one", "run two", "run other"}
    database = sqlite3.connect(flips.FILE)
    assert database.execute("SELECT no, body FROM inbox").fetchall() == [(1, UNREAD[what][0])]
    database.close()


async def test_f15_pages_of_messages_that_cannot_be_read_hide_none() -> None:
    """Goal: more of them than are read at once, and what comes after is heard all the same."""
    await store()
    put_first(*UNREAD["of a newer kind"], count=600)
    async with opening() as engine:
        assert await engine.get("two").result("60s") == 14
        await others_go_on(engine)
    by_hand = await SqliteStore.open_engine(flips.FILE, Settings())
    try:
        assert await by_hand.inbox(0, 1) == []
        assert len(await by_hand.check()) == 600
    finally:
        await by_hand.close()
