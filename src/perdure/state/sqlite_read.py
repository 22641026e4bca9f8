"""Reading runs from SQLite: in read transactions that are short and see one state of the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import apsw

from perdure.errors import BadCall, StoreDamaged
from perdure.model.message import decode_message
from perdure.model.run import ENDED, RunRow
from perdure.state.blobs import checked
from perdure.state.damage import START, damage_of
from perdure.state.sql import statements
from perdure.state.sqlite_errors import mapped
from perdure.state.sqlite_row import encode, row_of
from perdure.state.store import PAGE_MAX, EpochRow, InboxRow, Loaded, Query

# So many facts are read in one transaction, so that none is much longer than a second and the log can be emptied.
FACTS_AT_ONCE = 200_000
log = logging.getLogger("perdure.store")
CANNOT = "the store cannot be read"
ORDERS = ("new", "old", "due")


class Reader:
    """One connection that only reads."""

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        self._sql = _filled(statements("sqlite", "read"))
        self._told: set[int] = set()

    def rows(self, name: str, *bound: Any) -> list[tuple[Any, ...]]:
        """What one statement gives. Raises: `StoreUnavailable`, `StoreDamaged`."""
        try:
            return list(self.db.execute(self._sql[name], bound))
        except apsw.Error as error:
            raise mapped(error, CANNOT) from error

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        """A read transaction: all statements in it see the same state."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.execute("COMMIT")

    # --- runs ----------------------------------------------------------------------------------------

    def load(self, ids: Sequence[str], *, whole: bool, snapshot: bool) -> list[Loaded]:
        """See `Store.load`."""
        left = list(dict.fromkeys(ids))
        loaded: list[Loaded] = []
        try:
            while left:
                with self._one_state():
                    done = self._load(left, loaded, whole=whole, snapshot=snapshot)
                left = left[done:]
        except apsw.CorruptError as error:
            if len(left) == 1:
                raise mapped(error, CANNOT) from error
            # One of these runs lies on a damaged page: the others are read without it.
            for id in left:
                loaded.extend(self._alone(id, whole=whole, snapshot=snapshot))
        except apsw.Error as error:
            raise mapped(error, CANNOT) from error
        return loaded

    def _alone(self, id: str, *, whole: bool, snapshot: bool) -> list[Loaded]:
        try:
            return self.load([id], whole=whole, snapshot=snapshot)
        except StoreDamaged:
            return []

    def _load(self, ids: list[str], loaded: list[Loaded], *, whole: bool, snapshot: bool) -> int:
        """Load runs until enough facts are read; how many of the ids are done with."""
        found = {row[2]: row for row in self.db.execute(self._sql["by_id"], (encode(ids).decode(),))}
        count = 0
        for done, id in enumerate(ids, 1):
            row = found.get(id)
            if row is not None:
                one = self._one(row, whole=whole, snapshot=snapshot)
                loaded.append(one)
                count += len(one.facts)
                if count >= FACTS_AT_ONCE:
                    return done
        return len(ids)

    def _one(self, found: Sequence[Any], *, whole: bool, snapshot: bool) -> Loaded:
        row, damage = row_of(found[1:])
        one = Loaded(row=row, facts=[], damage=damage)
        first = 1 if whole else found[0]
        if snapshot and not whole:
            one.snapshot = self._snapshot(row.no)
            if one.snapshot is not None:
                first = one.snapshot[0] + 1
        if not isinstance(first, int) or first < 1:
            first, one.damage = 1, damage or "where its loads begin was altered"
        try:
            facts: list[Any] = self.db.execute(self._sql["facts"], (row.no, first - 1)).fetchall()
            one.progress = dict(self.db.execute(self._sql["progress"], (row.id,)))
        except apsw.CorruptError as error:
            one.damage = damage or f"its facts cannot be read: {error}"
            return one
        before = (first - 1, facts.pop(0)[2]) if first > 1 and facts and facts[0][0] == first - 1 else None
        one.facts = facts
        try:
            one.damage = one.damage or damage_of(facts, START if first == 1 else before, (row.seq, row.head))
        except TypeError:
            one.damage = "a fact is of another type than what was written"
        return one

    def _snapshot(self, no: int) -> tuple[int, bytes] | None:
        """A run's snapshot; one that does not verify is as good as none, since the facts are there."""
        for seq, body, crc in self.db.execute(self._sql["snapshot"], (no,)):
            if isinstance(body, bytes) and isinstance(seq, int) and crc32(body) == crc:
                return seq, body
        return None

    def find(self, query: Query) -> list[RunRow]:
        """See `Store.find`. Every value is bound; only fixed pieces make the statement."""
        if query.order not in ORDERS:
            raise BadCall(f'order {query.order!r}: one of "new", "old", "due"')
        sql = self._sql
        where, bound = _conditions(sql, query)
        if query.after is not None:
            where.append(sql[f"find_after_{query.order}"])
            bound.extend((query.after.wait.due or 0, query.after.no) if query.order == "due" else (query.after.no,))
        text = sql["find"].format(
            columns=sql["row_columns"],
            where=f"WHERE {' AND '.join(where)}" if where else "",
            order=sql[f"order_{query.order}"],
        )
        try:
            return [row_of(row)[0] for row in self.db.execute(text, (*bound, _page(query.limit)))]
        except apsw.Error as error:
            raise mapped(error, CANNOT) from error

    def altered(self) -> list[str]:
        """The rows of runs and messages that do not match their sums."""
        wrong = []
        for found in self.db.execute(self._sql["all_runs"]):
            row, damage = row_of(found)
            if damage:
                wrong.append(f"run {row.id}: {damage}")
        wrong.extend(
            f"message {no} of the inbox was altered"
            for no, body, crc in self.db.execute(self._sql["all_inbox"])
            if crc32(body) != crc
        )
        return wrong

    # --- the rest --------------------------------------------------------------------------------------

    def inbox(self, after: int, limit: int) -> list[InboxRow]:
        """See `Store.inbox`. A message that was altered is left where it is, unheard, and told of."""
        rows = []
        for no, body, crc in self.rows("inbox", after, _page(limit)):
            if crc32(body) == crc:
                rows.append(InboxRow(no, decode_message(body)))
            elif no not in self._told:
                self._told.add(no)
                log.error("message %d of the inbox was altered and is not heard: restore a backup", no)
        return rows

    def answers(self, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """See `Store.answers`."""
        return {id: (run, answer) for id, run, answer in self.rows("answers", encode(list(requests)).decode())}

    def blobs(self, hashes: Sequence[str]) -> dict[str, bytes]:
        """See `Store.blobs`."""
        return checked(dict(self.rows("blobs", encode(list(hashes)).decode())), list(hashes))

    def tombstones(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        """See `Upkeep.tombstones`."""
        return {id: (digest, outcome) for id, digest, outcome in self.rows("tombstones", encode(list(ids)).decode())}

    def epochs(self) -> list[EpochRow]:
        """The newest epochs, newest first."""
        return [
            EpochRow(epoch=epoch, node=node, pid=pid, started_at=started_at, clean=bool(clean), note=bytes(note))
            for epoch, node, pid, started_at, clean, note in self.rows("epochs")
        ]

    def sizes(self) -> dict[str, int]:
        """Rows by table."""
        return dict(self.rows("sizes"))


def _filled(sql: dict[str, str]) -> dict[str, str]:
    columns = sql["row_columns"]
    return {name: text.replace("{columns}", columns) if name != "find" else text for name, text in sql.items()}


def _page(limit: int) -> int:
    return max(0, min(limit, PAGE_MAX))


def _conditions(sql: dict[str, str], query: Query) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    bound: list[Any] = []
    for name, value in (
        ("ids", None if query.ids is None else _json(query.ids)),
        ("life", None if query.life is None else _json(query.life)),
        ("workflow", query.workflow),
        ("parent", query.parent or None),
        ("input", query.input_hash),
        ("source", query.source),
        ("due_before", query.due_before),
        ("due_after", query.due_after),
        ("ended_before", query.ended_before),
    ):
        if value is not None:
            where.append(sql[f"find_{name}"])
            bound.append(value)
    plain = {
        "roots": query.roots or query.parent == "",
        "busy": query.busy,
        "due": query.order == "due",
        # Said so that the index of open runs can be used.
        "open": query.busy or (query.life is not None and all(not life.ended for life in query.life)),
    }
    where.extend(sql[f"find_{name}"] for name, wanted in plain.items() if wanted)
    for key, value in (query.tags or {}).items():
        where.append(sql["find_tag"])
        bound.extend((key, value))
    if query.status is not None:
        where.append(_status(sql, query.status, bound))
    return where, bound


def _status(sql: dict[str, str], status: Sequence[str], bound: list[Any]) -> str:
    lives = [one for one in status if one in ENDED or one in {"queued", "attention"}]
    parts = [sql["find_life"]]
    bound.append(_json(lives))
    parts.extend(sql[f"find_{one}"] for one in ("running", "waiting") if one in status)
    return f"({' OR '.join(parts)})"


def _json(values: Sequence[str]) -> str:
    return encode(list(values)).decode()
