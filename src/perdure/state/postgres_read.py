"""Reading runs from PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure.errors import BadCall
from perdure.model.message import decode_message
from perdure.model.run import ENDED, NO_WAIT, Life, RunRow, Wait
from perdure.state.blobs import checked
from perdure.state.damage import START, damage_of
from perdure.state.sql import statements
from perdure.state.store import PAGE_MAX, EpochRow, InboxRow, Loaded, Query
from perdure.version import VERSION

FULL = 1 << 64
ORDERS = ("new", "old", "due")
log = logging.getLogger("perdure.store")
_raw = statements("postgres", "read")
SQL = {name: text.replace("{columns}", _raw["columns"]) for name, text in _raw.items()}
_wait = msgspec.json.Decoder(Wait).decode
_tags = msgspec.json.Decoder(dict[str, str]).decode


async def load(db: Any, ids: Sequence[str], *, whole: bool, snapshot: bool) -> list[Loaded]:
    """See `Store.load`. Shape: `db` is in a transaction in which all statements see the same state."""
    rows = await db.fetch(SQL["by_id"], list(dict.fromkeys(ids)))
    if not rows:
        return []
    nos = [row["no"] for row in rows]
    snapshots = {}
    if snapshot and not whole:
        snapshots = {row["run"]: (row["seq"], row["body"]) for row in await db.fetch(SQL["snapshots"], nos)}
    firsts = {}
    for row in rows:
        taken = snapshots.get(row["no"])
        firsts[row["no"]] = 1 if whole else taken[0] + 1 if taken else row["start_at"]
    facts: dict[int, list[tuple[int, bytes, bytes]]] = {no: [] for no in nos}
    for run, seq, body, digest in await db.fetch(SQL["facts"], nos, [firsts[no] - 1 for no in nos]):
        facts[run].append((seq, body, digest))
    told: dict[str, dict[str, bytes]] = {}
    for run, key, value in await db.fetch(SQL["progress"], [row["id"] for row in rows]):
        told.setdefault(run, {})[key] = value
    loaded = []
    for found in rows:
        row, first = row_of(found), firsts[found["no"]]
        own = facts[row.no]
        before = (first - 1, own.pop(0)[2]) if first > 1 and own and own[0][0] == first - 1 else None
        damage = damage_of(own, START if first == 1 else before, (row.seq, row.head))
        loaded.append(
            Loaded(row=row, facts=own, snapshot=snapshots.get(row.no), progress=told.get(row.id, {}), damage=damage)
        )
    return loaded


def row_of(found: Mapping[str, Any]) -> RunRow:
    """A run's row."""
    wait, tags = found["wait"], found["tags"]
    return RunRow(
        id=found["id"], no=found["no"], workflow=found["workflow"], version=found["version"],
        definition=found["definition"], input_hash=found["input_hash"], life=Life(found["life"]), seq=found["seq"],
        head=found["head"], asked_n=found["asked_n"], asked_h=found["asked_h"] % FULL, generation=found["generation"],
        epoch=found["epoch"], wait=NO_WAIT if len(wait) == 2 else _wait(wait), variables=found["variables"],
        outcome=found["outcome"], tags={} if tags == "{}" else _tags(tags), parent=found["parent"],
        parent_key=found["parent_key"], source=found["source"], created_at=found["created_at"],
        updated_at=found["updated_at"], ended_at=found["ended_at"],
    )  # fmt: skip


async def find(db: Any, query: Query) -> list[RunRow]:
    """See `Store.find`. Every value is bound; only fixed pieces make the statement."""
    if query.order not in ORDERS:
        raise BadCall(f'order {query.order!r}: one of "new", "old", "due"')
    where = _Where()
    _conditions(where, query)
    if query.after is not None:
        after = query.after
        where.add(f"after_{query.order}", *((after.wait.due or 0, after.no) if query.order == "due" else (after.no,)))
    limit = where.place(max(0, min(query.limit, PAGE_MAX)))
    text = SQL["find"].format(where=where.text(), order=SQL[f"order_{query.order}"], limit=limit)
    return [row_of(row) for row in await db.fetch(text, *where.bound)]


class _Where:
    """Conditions that must all hold, with the values that they bind."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.bound: list[Any] = []

    def place(self, value: Any) -> str:
        self.bound.append(value)
        return f"${len(self.bound)}"

    def piece(self, name: str, *values: Any) -> str:
        text = SQL[f"find_{name}"]
        for value in values:
            text = text.replace("%", self.place(value), 1)
        return text

    def add(self, name: str, *values: Any) -> None:
        self.parts.append(self.piece(name, *values))

    def text(self) -> str:
        return f"WHERE {' AND '.join(self.parts)}" if self.parts else ""


def _conditions(where: _Where, query: Query) -> None:
    for name, value in (
        ("ids", None if query.ids is None else list(query.ids)),
        ("life", None if query.life is None else list(query.life)),
        ("workflow", query.workflow),
        ("parent", query.parent or None),
        ("input", query.input_hash),
        ("source", query.source),
        ("shards", None if query.shards is None else list(query.shards)),
        ("due_before", query.due_before),
        ("due_after", query.due_after),
        ("ended_before", query.ended_before),
    ):
        if value is not None:
            where.add(name, value)
    plain = {
        "roots": query.roots or query.parent == "",
        "busy": query.busy,
        "due": query.order == "due",
        # Said so that the index of open runs can be used.
        "open": query.busy or (query.life is not None and all(not life.ended for life in query.life)),
    }
    for name, wanted in plain.items():
        if wanted:
            where.add(name)
    if query.tags:
        where.add("tags", msgspec.json.encode(dict(query.tags)).decode())
    if query.status is not None:
        lives = [one for one in query.status if one in ENDED or one in {"queued", "attention"}]
        parts = [where.piece("life", lives)]
        parts.extend(where.piece(one) for one in ("running", "waiting") if one in query.status)
        where.parts.append(f"({' OR '.join(parts)})")


async def inbox(db: Any, after: int, limit: int, shards: list[int] | None, *, told: set[int]) -> list[InboxRow]:
    """See `Store.inbox`. One that cannot be read stays where it is, unheard, and is told of; others stand in its place."""
    found: list[InboxRow] = []
    while wanted := max(0, min(limit, PAGE_MAX)) - len(found):
        page = await db.fetch(SQL["inbox"], after, wanted, shards)
        for no, _, body in page:
            try:
                found.append(InboxRow(no, decode_message(body)))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                if no not in told:
                    told.add(no)
                    log.error(
                        "message %d of the inbox cannot be read by perdure %s (%s): it is kept, and is not heard",
                        no, VERSION, error,
                    )  # fmt: skip
        if len(page) < wanted:
            break
        after = page[-1]["no"]
    return found


async def answers(db: Any, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    """See `Store.answers`."""
    return {row["id"]: (row["run"], row["answer"]) for row in await db.fetch(SQL["answers"], list(requests))}


async def blobs(db: Any, hashes: Sequence[str]) -> dict[str, bytes]:
    """See `Store.blobs`."""
    rows = await db.fetch(SQL["blobs"], list(hashes))
    return checked({row["hash"]: row["body"] for row in rows}, list(hashes))


async def tombstones(db: Any, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
    """See `Upkeep.tombstones`."""
    rows = await db.fetch(SQL["tombstones"], list(ids))
    return {row["id"]: (row["input_hash"], row["outcome"]) for row in rows}


async def epochs(db: Any, before: int) -> list[EpochRow]:
    """The newest epochs before this one, newest first."""
    return [
        EpochRow(
            epoch=row["epoch"], node=row["name"], pid=row["pid"], started_at=row["started_at"], clean=row["clean"],
            note=row["note"],
        )
        for row in await db.fetch(SQL["epochs"], before)
    ]  # fmt: skip


async def newest_epochs(db: Any) -> list[EpochRow]:
    """The newest epochs, newest first."""
    return [
        EpochRow(
            epoch=row["epoch"], node=row["name"], pid=row["pid"], started_at=row["started_at"], clean=row["clean"],
            note=row["note"], live=row["live"], until=0 if row["live"] else row["clock"],
        )
        for row in await db.fetch(SQL["newest_epochs"])
    ]  # fmt: skip
