"""What every store must keep, as checks that any store can be given: the conformance suite.

Use it in a test of your own store, once for each name:

    @pytest.mark.parametrize("name", CHECKS)
    async def test_my_store_conforms(name, tmp_path):
        await CHECKS[name](lambda: MyStore.open(tmp_path / "store"))
"""

# ruff: noqa: PT018
from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import msgspec

from perdure.errors import BadCall, StoreDamaged
from perdure.model import message as m
from perdure.model.run import Life, RunRow, Wait
from perdure.runtime.node import done
from perdure.state.store import PAGE_MAX, STARTED, Batch, BatchRefused, Committed, Progress, Query
from perdure.testing.rows import NOON, HandRun, body_of

# Opens the store at one place: empty at the first call, and with all that was committed at later ones.
Open = Callable[[], Awaitable[Any]]
Check = Callable[[Open], Awaitable[None]]
CHECKS: dict[str, Check] = {}
_Body = Callable[[Any], Awaitable[None]]


def check(body: _Body) -> _Body:
    """A check on one open store."""

    async def checked(open: Open) -> None:
        store = await open()
        try:
            await store.claim("node", 1, NOON)
            await body(store)
            assert await store.check() == []
        finally:
            await store.close()

    checked.__name__, checked.__doc__ = body.__name__, body.__doc__
    CHECKS[body.__name__] = checked
    return body


def check_reopened(body: Check) -> Check:
    """A check that opens the store itself, more than once."""
    CHECKS[body.__name__] = body
    return body


async def commit(store: Any, *writes: Callable[[Batch], Any], **fields: Any) -> Committed:
    """Commit one batch made by these writers and fields."""
    batch = Batch()
    for write in writes:
        write(batch)
    for name, value in fields.items():
        setattr(batch, name, value)
    return await done(store.commit(batch))


async def ids(store: Any, **query: Any) -> list[str]:
    """The ids that a query finds."""
    return [row.id for row in await store.find(Query(**query))]


async def refused(store: Any, *writes: Callable[[Batch], Any], **fields: Any) -> None:
    """Commit what must be refused."""
    try:
        await commit(store, *writes, **fields)
    except BatchRefused:
        return
    raise AssertionError("the batch was not refused")


def signal(run: str, request: str = "", value: int = 1) -> m.Signal:
    """A signal to a run."""
    return m.Signal(run=run, name="go", value=msgspec.Raw(b"%d" % value), request=request, at=NOON)


# --- runs and their facts ------------------------------------------------------------------------------


@check
async def a_start_inserts_a_row_and_its_facts(store: Any) -> None:
    """What one batch writes is there, all of it, in one commit."""
    run = HandRun("a", tags={"team": "x"}, parent="p", parent_key="k", source="f.py", definition="d1")
    committed = await commit(store, run.start, lambda b: run.facts(b, body_of(1), body_of(2)), run.update)
    assert not committed.refused and run.ref.no > 0
    (one,) = await store.load(["a"])
    assert [(seq, body) for seq, body, _ in one.facts] == [(1, body_of(1)), (2, body_of(2))]
    row = one.row
    assert (row.id, row.no, row.workflow, row.version, row.definition) == ("a", run.ref.no, "wf", "1", "d1")
    assert (row.tags, row.parent, row.parent_key, row.source) == ({"team": "x"}, "p", "k", "f.py")
    assert (row.life, row.status, row.seq, row.head) == (Life.LIVE, "running", 2, run.head)
    assert one.damage == "" and one.snapshot is None and one.progress == {}


@check
async def a_run_that_was_not_updated_is_queued(store: Any) -> None:
    """A row without facts is queued, at sequence number 0."""
    await commit(store, HandRun("a").start)
    (one,) = await store.load(["a"])
    assert (one.row.life, one.row.seq, one.row.generation, one.facts) == (Life.QUEUED, 0, 1, [])
    assert (one.row.head, one.row.variables, one.row.created_at) == (bytes(16), b"{}", NOON)


@check
async def the_last_word_on_a_row_stands(store: Any) -> None:
    """Every field of an update is read back, the largest numbers too, and again after the next update."""
    run = HandRun("a")
    await commit(store, run.start, lambda b: run.facts(b, body_of(1)), run.update)
    wait = Wait(due=NOON + 5, signals=("s",), children=("c",), open=0, retrying=0, settling=False)
    for life, outcome in (("live", None), ("attention", b'{"reason":"x"}'), ("live", None), ("completed", b"{}")):
        await commit(
            store,
            lambda b: run.facts(b, body_of(run.seq)),
            lambda b, life=life, outcome=outcome: run.update(  # type: ignore[misc]
                b, life, wait=wait, outcome=outcome, variables=b'{"v":1}', at=NOON + run.seq, generation=3,
                asked_h=2**64 - run.seq, definition=f"d{run.seq}",
            ),
        )  # fmt: skip
        (row,) = await store.find(Query(ids=("a",)))
        assert (row.life, row.outcome, row.seq, row.head) == (Life(life), outcome, run.seq, run.head)
        assert (row.asked_n, row.asked_h, row.generation, row.epoch) == (run.seq, 2**64 - run.seq, 3, 1)
        assert (row.variables, row.definition, row.updated_at) == (b'{"v":1}', f"d{run.seq}", NOON + run.seq)
        assert row.wait == (wait if life == "live" else Wait())
        assert row.ended_at == (row.updated_at if life == "completed" else None)


@check
async def facts_that_do_not_follow_are_refused(store: Any) -> None:
    """A sequence number twice, or a run that is not there, refuses the whole batch, and nothing of it is written."""
    run, other = HandRun("a"), HandRun("b")
    await commit(store, run.start, lambda b: run.facts(b, body_of(1)), run.update)
    twice = (run.ref, 1, body_of(9), run.head)
    await refused(store, other.start, lambda b: other.facts(b, body_of(1)), lambda b: b.facts.append(twice))
    assert other.ref.no == 0 and await ids(store) == ["a"]
    ghost = HandRun("ghost")
    await refused(store, lambda b: ghost.facts(b, body_of(1)), ghost.update)
    ghost.ref.no = 77
    await refused(store, ghost.update)
    (one,) = await store.load(["a"])
    assert one.facts == [(1, body_of(1), run.head)] and one.damage == ""
    await commit(store, other.start)
    assert await ids(store) == ["b", "a"]


@check
async def a_start_of_an_id_in_use_is_left_out_with_all_that_follows(store: Any) -> None:
    """The rest of the batch is written; the row that stands there is not touched."""
    first, second, other = HandRun("a"), HandRun("a", input_hash=b"else"), HandRun("b", drawn=True)
    await commit(store, first.start, lambda b: first.facts(b, body_of(1)), first.update)
    committed = await commit(
        store, second.start, lambda b: second.facts(b, body_of(5), body_of(6)), lambda b: second.update(b, "failed"),
        other.start, lambda b: other.facts(b, body_of(7)), other.update,
        answers=[("r-a", "a", b"{}"), ("r-b", "b", b"{}")], blobs=[(second.ref, sha256(b"x").hexdigest(), b"x")],
        snapshots=[(second.ref, 1, b"s")],
    )  # fmt: skip
    assert committed.refused == {"a"}
    a, b = await store.load(["a", "b"])
    assert (a.row.input_hash, a.row.life, a.row.seq, a.row.no) == (b"input", Life.LIVE, 1, first.ref.no)
    assert (b.row.seq, len(b.facts)) == (1, 1)
    assert set(await store.answers(["r-a", "r-b"])) == {"r-b"}
    assert (await store.sizes())["blobs"] == 0 == (await store.sizes())["snapshots"]


@check
async def a_start_with_a_known_request_is_left_out(store: Any) -> None:
    """A request starts one run, whatever id the repetition drew (S26); also twice within a batch."""
    first, second, third = HandRun("a", request="r"), HandRun("b", request="r", drawn=True), HandRun("c", request="q")
    await commit(store, first.start)
    fourth = HandRun("d", request="q")
    committed = await commit(store, second.start, third.start, fourth.start, lambda b: fourth.facts(b, body_of(1)))
    assert committed.refused == {"b", "d"} and committed.repeated == {"r", "q"}
    assert await store.answers(["r", "q", "none"]) == {"r": ("a", STARTED), "q": ("c", STARTED)}
    assert await ids(store) == ["c", "a"]


@check
async def a_drawn_id_is_taken_as_new_and_still_never_overwrites(store: Any) -> None:
    """Even a drawn id that is in use after all leaves the run that has it alone."""
    first, second, other = HandRun("a", drawn=True), HandRun("a", drawn=True), HandRun("b", drawn=True)
    await commit(store, first.start, lambda b: first.facts(b, body_of(1)), first.update)
    try:
        committed = await commit(store, other.start, second.start, lambda b: second.facts(b, body_of(2)))
        assert committed.refused == {"a"} and await ids(store) == ["b", "a"]
    except BatchRefused:
        assert await ids(store) == ["a"]
    (one,) = await store.load(["a"])
    assert one.facts == [(1, body_of(1), first.head)]


@check
async def loads_come_in_the_order_asked_each_once(store: Any) -> None:
    """Ids that there are none of are left out."""
    for id in "abc":
        await commit(store, HandRun(id).start)
    assert [one.row.id for one in await store.load(["c", "x", "a", "c", "b"])] == ["c", "a", "b"]
    assert await store.load([]) == []


@check
async def loads_begin_where_the_generation_does(store: Any) -> None:
    """After `restart` a load begins there, `whole` begins at the first fact, a snapshot shortens what is newer."""
    run = HandRun("a")
    await commit(store, run.start, lambda b: run.facts(b, *map(body_of, range(1, 6))), run.update)
    await commit(store, snapshots=[(run.ref, 2, b"old"), (run.ref, 3, b"new")])
    (one,) = await store.load(["a"], snapshot=True)
    assert one.snapshot == (3, b"new") and [seq for seq, _, _ in one.facts] == [4, 5] and one.damage == ""
    await commit(store, restart=[(run.ref, 4)])
    for whole, first in ((False, 4), (True, 1)):
        (one,) = await store.load(["a"], whole=whole, snapshot=True)
        assert one.snapshot is None and one.damage == ""
        assert [seq for seq, _, _ in one.facts] == list(range(first, 6))
    await commit(store, snapshots=[(run.ref, 5, b"now")])
    (one,) = await store.load(["a"], snapshot=True)
    assert one.snapshot == (5, b"now") and one.facts == [] and one.damage == ""
    (one,) = await store.load(["a"])
    assert one.snapshot is None and len(one.facts) == 2
    await commit(store, snapshots=[(run.ref, 5, b"")])
    assert (await store.load(["a"], snapshot=True))[0].snapshot is None


@check_reopened
async def a_broken_chain_is_told(open: Open) -> None:
    """A fact whose hash does not follow from the one before is damage; so is a row that says otherwise."""
    store = await open()
    run, other = HandRun("a"), HandRun("b")
    await commit(store, run.start, lambda b: run.facts(b, body_of(1), body_of(2)))
    batch = Batch()
    run.facts(batch, body_of(3))
    ref, seq, body, digest = batch.facts[0]
    batch.facts[0] = (ref, seq, body.replace(b"x", b"y", 1), digest)
    run.update(batch)
    await done(store.commit(batch))
    await commit(store, other.start, lambda b: other.facts(b, body_of(1)))
    a, b = await store.load(["a", "b"])
    assert "fact 3" in a.damage and b.damage
    await store.close()


# --- finding ---------------------------------------------------------------------------------------------


async def _seven(store: Any) -> None:
    """Runs of every kind: queued, with steps, asleep, waiting for nothing, in attention, ended, a child."""
    waits = {
        "steps": Wait(open=2), "timer": Wait(due=NOON + 20), "signal": Wait(signals=("s",)), "idle": Wait(),
        "settling": Wait(due=NOON + 10, settling=True),
    }  # fmt: skip
    await commit(store, HandRun("queued", tags={"k": "1"}).start)
    for at, (id, wait) in enumerate(waits.items()):
        run = HandRun(id, workflow=id, source="s.py", tags={"k": "1", "at": str(at)})
        await commit(store, run.start, lambda b, w=wait, run=run: run.update(b, wait=w))  # type: ignore[misc]
    for at, life in enumerate(("attention", "completed", "failed", "cancelled")):
        run = HandRun(life, parent="steps" if life == "failed" else "", input_hash=b"other")
        await commit(store, run.start, lambda b, a=at, life=life, run=run: run.update(b, life, at=NOON + a))  # type: ignore[misc]


@check
async def a_query_gives_what_fits_all_its_fields(store: Any) -> None:
    """Every field of a query, alone and together."""
    await _seven(store)
    ended = ["cancelled", "failed", "completed"]
    assert await ids(store) == [*ended, "attention", "settling", "idle", "signal", "timer", "steps", "queued"]
    assert await ids(store, status=("running",)) == ["settling", "steps"]
    assert await ids(store, status=("waiting", "failed")) == ["failed", "idle", "signal", "timer"]
    assert await ids(store, status=()) == [] == await ids(store, ids=())
    assert await ids(store, life=(Life.QUEUED, Life.ATTENTION)) == ["attention", "queued"]
    assert await ids(store, life=(Life.LIVE,), busy=True, order="old") == ["steps", "idle", "settling"]
    assert await ids(store, tags={"k": "1", "at": "2"}) == ["signal"] and await ids(store, tags={"k": "2"}) == []
    assert await ids(store, workflow="timer") == ["timer"] == await ids(store, workflow="timer", source="s.py")
    assert await ids(store, parent="steps") == ["failed"] and await ids(store, parent="timer") == []
    assert await ids(store, roots=True, life=(Life.FAILED, Life.CANCELLED)) == ["cancelled"]
    assert await ids(store, input_hash=b"other", ended_before=NOON + 2) == ["failed", "completed"]
    assert await ids(store, order="due") == ["settling", "timer"]
    assert await ids(store, due_before=NOON + 10) == ["settling"] and await ids(store, due_after=NOON + 10) == ["timer"]
    assert await ids(store, ids=("idle", "none", "steps")) == ["idle", "steps"]


@check
async def pages_give_each_row_once(store: Any) -> None:
    """Every order, page by page, to the end; a limit is a limit, and none is beyond the most."""
    await _seven(store)
    for order in ("new", "old", "due"):
        whole = await ids(store, order=order, limit=PAGE_MAX * 2)
        paged: list[str] = []
        after: RunRow | None = None
        while page := await store.find(Query(order=order, after=after, limit=3)):
            assert len(page) <= 3
            paged.extend(row.id for row in page)
            after = page[-1]
        assert paged == whole
    assert await ids(store, limit=0) == [] == await ids(store, limit=-1)


@check
async def an_unknown_order_is_refused(store: Any) -> None:
    """The order is one of a list, never text for the store."""
    try:
        await store.find(Query(order="due; dropping runs"))
    except BadCall:
        return
    raise AssertionError("the order was taken")


# --- messages --------------------------------------------------------------------------------------------


@check
async def the_inbox_keeps_messages_in_order_until_they_are_done(store: Any) -> None:
    """Numbers grow and are never used again."""
    said = [signal("a", f"r{n}", n) for n in range(5)]
    await commit(store, inbox=said)
    rows = await store.inbox(0, 100)
    assert [row.message for row in rows] == said
    assert [row.no for row in await store.inbox(rows[1].no, 2)] == [rows[2].no, rows[3].no]
    await commit(store, inbox_done=[row.no for row in rows])
    assert await store.inbox(0, 100) == []
    await commit(store, inbox=[signal("a", "later")])
    assert (await store.inbox(0, 100))[0].no > rows[-1].no


@check
async def a_request_is_answered_once(store: Any) -> None:
    """An answer stands; a message that has one, or is there already, is left out (S26)."""
    await commit(store, HandRun("a").start, answers=[("r", "a", b'{"seq":1}')])
    committed = await commit(store, answers=[("r", "a", b'{"seq":2}'), ("q", "a", b"{}"), ("q", "a", b"[]")])
    assert committed.repeated == {"r", "q"}
    assert await store.answers(["q", "r"]) == {"r": ("a", b'{"seq":1}'), "q": ("a", b"{}")}
    committed = await commit(store, inbox=[signal("a", "r"), signal("a", "n"), signal("a", "n"), signal("a")])
    assert committed.repeated == {"r", "n"}
    assert [row.message.request for row in await store.inbox(0, 9)] == ["n", ""]
    committed = await commit(store, inbox=[signal("a", "n"), signal("a", "z")], answers=[("z", "a", b"{}")])
    assert committed.repeated == {"n", "z"} and len(await store.inbox(0, 9)) == 2


@check
async def a_message_may_be_put_back(store: Any) -> None:
    """Rows that are done go before new messages come, so that a message can be moved to the end."""
    await commit(store, inbox=[signal("a", "r"), signal("a", "s")])
    first = (await store.inbox(0, 1))[0]
    committed = await commit(store, inbox_done=[first.no], inbox=[first.message])
    assert committed.repeated == frozenset()
    assert [row.message.request for row in await store.inbox(0, 9)] == ["s", "r"]


@check
async def a_client_start_keeps_its_message_with_its_row(store: Any) -> None:
    """Row, answer and message come together; a repetition brings neither."""
    for count in (1, 2):
        run = HandRun("a", request="r")
        start = m.Start(
            run="a", workflow="wf", version="1", input=msgspec.Raw(b"1"), input_hash=b"input", request="r", at=NOON
        )
        committed = await commit(store, run.start, inbox=[start])
        assert committed.refused == (set() if count == 1 else {"a"})
        assert [row.message for row in await store.inbox(0, 9)] == [start]
    assert await store.answers(["r"]) == {"r": ("a", STARTED)}


# --- what hangs on runs ----------------------------------------------------------------------------------


@check
async def blobs_are_known_by_their_hash(store: Any) -> None:
    """A blob that two runs hold is kept once; one that is missing is damage."""
    data = b"x" * 300_000
    digest = sha256(data).hexdigest()
    a, b = HandRun("a"), HandRun("b")
    await commit(
        store, a.start, b.start, lambda batch: batch.blobs.extend([(a.ref, digest, data), (b.ref, digest, data)])
    )
    assert await store.blobs([digest]) == {digest: data} and (await store.sizes())["blobs"] == 1
    try:
        await store.blobs([digest, "0" * 64])
    except StoreDamaged:
        return
    raise AssertionError("a missing blob was not told of")


@check
async def progress_is_the_last_that_was_told(store: Any) -> None:
    """One value a step, dropped with the run's end, and none for a run that has ended or is not there."""
    run = HandRun("a")
    await commit(store, run.start, run.update)
    await commit(store, progress=[Progress("a", "k", 1, NOON, b"1"), Progress("a", "j", 1, NOON, b"2")])
    await commit(store, progress=[Progress("a", "k", 2, NOON, b"3"), Progress("ghost", "k", 1, NOON, b"4")])
    assert (await store.load(["a"]))[0].progress == {"k": b"3", "j": b"2"}
    await commit(store, lambda b: run.update(b, "completed"), progress_done=["a"])
    await commit(store, progress=[Progress("a", "k", 3, NOON, b"5")])
    assert (await store.load(["a"]))[0].progress == {}


@check
async def a_tree_is_removed_whole_or_not_at_all(store: Any) -> None:
    """Retention (S28): only roots, only when all below has ended; tombstones stay, blobs go when nobody holds them."""
    root, child, leaf, other = (
        HandRun("root"),
        HandRun("child", parent="root"),
        HandRun("leaf", parent="child"),
        HandRun("other"),
    )
    data, shared = b"own", b"shared"
    own_hash, shared_hash = sha256(data).hexdigest(), sha256(shared).hexdigest()
    await commit(store, *(run.start for run in (root, child, leaf, other)))
    await commit(
        store, *(lambda b, run=run: run.facts(b, body_of(1)).update(b, "completed", outcome=b"{}") for run in (root, child)),
        leaf.update, lambda b: other.update(b, "failed"), answers=[("r", "leaf", b"{}"), ("q", "other", b"{}")],
        progress=[Progress("leaf", "k", 1, NOON, b"1")], snapshots=[(root.ref, 1, b"s")],
        blobs=[(leaf.ref, own_hash, data), (leaf.ref, shared_hash, shared), (other.ref, shared_hash, shared)],
    )  # fmt: skip
    await commit(store, remove=["root", "child", "leaf", "nobody"])
    assert len(await ids(store)) == 4
    await commit(store, lambda b: leaf.update(b, "cancelled", outcome=b'{"reason":"r"}'), remove=["child", "leaf"])
    assert len(await ids(store)) == 4
    await commit(store, remove=["root", "child"])
    assert await ids(store) == ["other"] and await store.load(["root", "leaf"], whole=True) == []
    gone = await store.tombstones(["root", "leaf", "other"])
    assert gone == {"root": (b"input", b"{}"), "leaf": (b"input", b'{"reason":"r"}')}
    assert set(await store.answers(["r", "q"])) == {"q"}
    assert await store.blobs([shared_hash]) == {shared_hash: shared}
    sizes = await store.sizes()
    assert (sizes["runs"], sizes["facts"], sizes["blobs"], sizes["snapshots"], sizes["tombstones"]) == (1, 0, 1, 0, 3)
    assert (await commit(store, HandRun("root").start)).refused == {"root"}


# --- the store as a whole ----------------------------------------------------------------------------------


@check_reopened
async def what_was_committed_is_there_when_it_is_opened_again(open: Open) -> None:
    """Closing forgets nothing that was committed, and a new run never gets the number of a removed one."""
    store = await open()
    await store.claim("node", 1, NOON)
    run = HandRun("a", request="r")
    await commit(store, run.start, lambda b: run.facts(b, body_of(1)), run.update, inbox=[signal("a", "s")])
    ended = HandRun("b")
    await commit(store, ended.start, lambda b: ended.update(b, "completed"))
    await commit(store, remove=["b"])
    await store.close()
    store = await open()
    (one,) = await store.load(["a"])
    assert (len(one.facts), one.row.seq, one.damage) == (1, 1, "")
    assert len(await store.inbox(0, 9)) == 1 and set(await store.answers(["r"])) == {"r"}
    later = HandRun("c", drawn=True)
    await commit(store, later.start)
    assert later.ref.no > ended.ref.no
    await store.close()


@check_reopened
async def each_owner_has_an_epoch(open: Open) -> None:
    """Epochs grow; the next owner sees what those before said, whether they stopped cleanly, and their clock."""
    for count in range(1, 4):
        store = await open()
        epoch, earlier, clock = await store.claim("node", count, NOON + count, b"[0]")
        assert epoch == count and clock == (NOON * 2 if count > 1 else 0)
        assert [row.epoch for row in earlier] == list(range(count - 1, 0, -1))
        if earlier:
            assert (earlier[0].clean, earlier[0].note, earlier[0].pid) == (count == 2, b"[1]", count - 1)
        seen = await store.epochs()
        assert [row.epoch for row in seen] == list(range(count, 0, -1)) and seen[0].live
        assert not any(row.live for row in seen if row.clean)
        await commit(store, clock=NOON * 2, note=b"[1]", clean=count == 1)
        await commit(store, clock=NOON)
        await store.close()
