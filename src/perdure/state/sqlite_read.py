"""Reading runs from SQLite: in read transactions that are short and see one state of the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from zlib import crc32

import apsw
import msgspec

from perdure.errors import BadCall, StoreDamaged
from perdure.model.message import AnyMessage, decode_message
from perdure.model.run import ENDED, RunRow
from perdure.state.blobs import checked
from perdure.state.damage import START, damage_of
from perdure.state.sql import statements
from perdure.state.sqlite_errors import mapped
from perdure.state.sqlite_row import as_text, crc_of, encode, row_of, texts_of, unreadable
from perdure.state.store import PAGE_MAX, EpochRow, InboxRow, Loaded, Query
from perdure.version import VERSION

# So many facts are read in one transaction, so that none is much longer than a second and the log can be emptied.
FACTS_AT_ONCE = 200_000
log = logging.getLogger("perdure.store")
_ERRORS = (apsw.Error, UnicodeDecodeError)
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
        except _ERRORS as error:
            raise mapped(error, CANNOT) from error

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        """A read transaction: all statements in it see the same state."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            try:
                self.db.execute("COMMIT")
            except apsw.Error:  # it only read, and what was read is told apart already; it must not stay open
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")

    # --- runs ----------------------------------------------------------------------------------------

    def load(self, ids: Sequence[str], *, whole: bool, snapshot: bool) -> list[Loaded]:
        """See `Store.load`."""
        left = list(dict.fromkeys(ids))
        if not left:
            return []
        loaded: list[Loaded] = []
        try:
            while left:
                with self._one_state():
                    done = self._load(left, loaded, whole=whole, snapshot=snapshot)
                left = left[done:]
        except apsw.CorruptError as error:
            # One of these runs lies on a damaged page: the others are read without it.
            if len(left) > 1:
                for id in left:
                    loaded.extend(self.load([id], whole=whole, snapshot=snapshot))
            else:
                loaded.append(Loaded(row=unreadable(left[0]), facts=[], damage=f"its row cannot be read: {error}"))
        except _ERRORS as error:
            raise mapped(error, CANNOT) from error
        return loaded

    def _load(self, ids: list[str], loaded: list[Loaded], *, whole: bool, snapshot: bool) -> int:
        """Load runs until enough facts are read; how many of the ids are done with."""
        bound = (encode(ids).decode(),)
        try:
            rows = list(self.db.execute(self._sql["by_id"], bound))
        except UnicodeDecodeError:
            rows = [(at, *texts_of(row)) for at, *row in self.db.execute(self._sql["by_id_as_bytes"], bound)]
        found = {row[2]: row for row in rows}
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
            one.progress = self._progress(row.id)
        except (apsw.CorruptError, UnicodeDecodeError) as error:
            one.damage = damage or f"its facts cannot be read: {error}"
            return one
        before = (first - 1, facts.pop(0)[2]) if first > 1 and facts and facts[0][0] == first - 1 else None
        one.facts = facts
        try:
            one.damage = one.damage or damage_of(facts, START if first == 1 else before, (row.seq, row.head))
        except TypeError:
            one.damage = "a fact is of another type than what was written"
        return one

    def _progress(self, run: str) -> dict[str, bytes]:
        """What attempts told last; what was altered is as good as never told."""
        told = {}
        for key, attempt, value, crc in self.db.execute(self._sql["progress"], (run,)):
            if crc is None or crc == crc_of(run, key, attempt, value):
                told[key] = value
            else:
                log.error("the progress of step %s of run %s was altered and is not used", key, run)
        return told

    def _snapshot(self, no: int) -> tuple[int, bytes] | None:
        """A run's snapshot; one that does not verify is as good as none, since the facts are there."""
        with suppress(UnicodeDecodeError, apsw.CorruptError):
            for seq, body, crc in self.db.execute(self._sql["snapshot"], (no,)):
                if isinstance(body, bytes) and isinstance(seq, int) and crc32(body, seq & 0xFFFFFFFF) == crc:
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
        asked = {"where": f"WHERE {' AND '.join(where)}" if where else "", "order": sql[f"order_{query.order}"]}
        bound.append(_page(query.limit))
        try:
            try:
                text = sql["find"].format(columns=sql["row_columns"], **asked)
                found = [row_of(row) for row in self.db.execute(text, bound)]
            except UnicodeDecodeError:
                text = sql["find"].format(columns=sql["row_columns_as_bytes"], **asked)
                found = [row_of(texts_of(row)) for row in self.db.execute(text, bound)]
        except apsw.Error as error:
            raise mapped(error, CANNOT) from error
        if query.parent and any(row.parent != query.parent and not damage for row, damage in found):
            raise StoreDamaged(f"the index of the children of {query.parent} was altered: restore a backup")
        return [row for row, _ in found]

    def altered(self) -> list[str]:
        """The rows that do not match their sums."""
        try:
            wrong = [
                f"run {row.id}: {damage}"
                for row, damage in map(row_of, self.db.execute(self._sql["all_runs"]))
                if damage
            ]
        except UnicodeDecodeError:
            rows = map(row_of, map(texts_of, self.db.execute(self._sql["all_runs_as_bytes"])))
            wrong = [f"run {row.id}: {damage}" for row, damage in rows if damage]
        for name, what in (
            ("all_requests", "the answer to request"),
            ("all_progress", "the progress of run"),
            ("all_tombstones", "what is left of run"),
        ):
            for id, *rest, crc in self.db.execute(self._sql[name]):
                columns = (as_text(id), as_text(rest[0]) if name != "all_tombstones" else rest[0], *rest[1:])
                if crc_of(*columns) != crc:
                    wrong.append(f"{what} {columns[0]} was altered")
        return wrong + self.unheard()

    # --- the rest --------------------------------------------------------------------------------------

    def inbox(self, after: int, limit: int) -> list[InboxRow]:
        """See `Store.inbox`. One that cannot be read stays where it is, unheard, and is told of; others stand in its place."""
        found: list[InboxRow] = []
        while wanted := _page(limit) - len(found):
            page = self.rows("inbox", after, wanted)
            for no, body, crc in page:
                message = _message(body, crc)
                if not isinstance(message, str):
                    found.append(InboxRow(no, message))
                elif no not in self._told:
                    self._told.add(no)
                    log.error("message %d of the inbox %s: it is kept, and is not heard", no, message)
            if len(page) < wanted:
                break
            after = page[-1][0]
        return found

    def unheard(self) -> list[str]:
        """What is wrong with the messages of the inbox that cannot be read."""
        rows = self.rows("all_inbox")
        read = [(no, as_text(run), _message(body, crc)) for no, run, body, crc in rows]
        return [f"message {no} of the inbox, to run {run}, {why}" for no, run, why in read if isinstance(why, str)]

    def answers(self, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """See `Store.answers`. Of one that was altered it is known that it was given, and not what it said."""
        given = {}
        for id, run, answer, crc in self.rows("answers", encode(list(requests)).decode()):
            given[id] = (run, answer)
            if crc is not None and crc != crc_of(id, run, answer):
                log.error("the answer to request %s was altered: restore a backup", id)
                given[id] = (str(run), b"{}")
        return given

    def blobs(self, hashes: Sequence[str]) -> dict[str, bytes]:
        """See `Store.blobs`."""
        return checked(dict(self.rows("blobs", encode(list(hashes)).decode())), list(hashes))

    def tombstones(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        """See `Upkeep.tombstones`."""
        found = {}
        for id, digest, outcome, crc in self.rows("tombstones", encode(list(ids)).decode()):
            if crc is not None and crc != crc_of(id, digest, outcome):
                raise StoreDamaged(f"what is left of run {id} was altered: restore a backup")
            found[id] = (digest, outcome)
        return found

    def epochs(self) -> list[EpochRow]:
        """The newest epochs, newest first."""
        return [
            EpochRow(
                epoch=epoch,
                node=node,
                pid=pid,
                started_at=started_at,
                clean=clean == 1,
                note=note if isinstance(note, bytes) else b"",
            )
            for epoch, node, pid, started_at, clean, note in self.rows("epochs")
        ]

    def sizes(self) -> dict[str, int]:
        """Rows by table."""
        return dict(self.rows("sizes"))


def _message(body: bytes | None, crc: int) -> AnyMessage | str:
    """A message of the inbox, or why it cannot be read."""
    if body is None or crc32(body) != crc:
        return "was altered, restore a backup"
    try:
        return decode_message(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return f"cannot be read by perdure {VERSION}; a newer one may have written it ({error})"


def _filled(sql: dict[str, str]) -> dict[str, str]:
    """The statements with the columns of runs in their places; `find` gets them when it is asked."""
    filled = dict(sql)
    for name in sql.keys() - {"find"}:
        for place in ("columns", "columns_as_bytes"):
            filled[name] = filled[name].replace(f"{{{place}}}", sql[f"row_{place}"])
    return filled


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
