"""Reading runs from SQLite: whole groups in a few statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec

from perdure.model.run import ENDED, NO_WAIT, Life, RunRow, Wait
from perdure.state.store import Loaded, Query

LIMIT_MAX = 10_000
encode = msgspec.json.Encoder().encode
_wait = msgspec.json.Decoder(Wait).decode
_tags = msgspec.json.Decoder(dict[str, str]).decode


def row_of(found: Sequence[Any]) -> RunRow:
    """A row of `row_columns` as a RunRow."""
    (
        no, id, workflow, version, definition, input_hash, life, seq, head, asked_n, asked_h, generation, epoch, wait,
        variables, outcome, tags, parent, parent_key, source, created_at, updated_at, ended_at,
    ) = found  # fmt: skip
    return RunRow(
        id=id, no=no, workflow=workflow, version=version, definition=definition, input_hash=input_hash, life=Life(life),
        seq=seq, head=head, asked_n=asked_n, asked_h=asked_h & 0xFFFFFFFFFFFFFFFF, generation=generation, epoch=epoch,
        wait=NO_WAIT if len(wait) == 2 else _wait(wait), variables=_bytes(variables), outcome=outcome,
        tags={} if tags == "{}" else _tags(tags), parent=parent, parent_key=parent_key, source=source,
        created_at=created_at, updated_at=updated_at, ended_at=ended_at,
    )  # fmt: skip


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value


def load_runs(
    rows: Callable[..., list[tuple[Any, ...]]], ids: Sequence[str], *, whole: bool, snapshot: bool
) -> list[Loaded]:
    """See `Store.load`."""
    found = [row_of(row) for row in rows("by_id", encode(list(dict.fromkeys(ids))).decode())]
    loaded = {row.no: Loaded(row=row, facts=[]) for row in found}
    if snapshot and not whole:
        for no, seq, body in rows("snapshots", encode(list(loaded)).decode()):
            loaded[no].snapshot = (seq, body)
    snapped = [(no, one.snapshot[0]) for no, one in loaded.items() if one.snapshot is not None]
    rest = [no for no, one in loaded.items() if one.snapshot is None]
    if snapped:
        _collect(loaded, rows("facts_after", encode(snapped).decode()))
    if rest:
        _collect(loaded, rows("facts_whole" if whole else "facts_recent", encode(rest).decode()))
    by_id = {one.row.id: one for one in loaded.values()}
    for run, key, value in rows("progress", encode(list(by_id)).decode()):
        by_id[run].progress[key] = value
    return list(loaded.values())


def _collect(loaded: dict[int, Loaded], facts: list[tuple[Any, ...]]) -> None:
    for no, seq, body, digest in facts:
        loaded[no].facts.append((seq, body, digest))


def find_rows(reader: apsw.Connection, read: dict[str, str], query: Query) -> list[RunRow]:
    """See `Store.find`. Every value is bound; only fixed pieces make the statement."""
    where, bound = _conditions(read, query)
    order = query.order if query.order in {"new", "old", "due"} else "new"
    if order == "due":
        where.append(read["find_due"])
    if query.after is not None:
        if order == "due":
            where.append(read["find_after_due"])
            bound.extend((query.after.wait.due or 0, query.after.no))
        else:
            where.append(read["find_before_no" if order == "new" else "find_after_no"])
            bound.append(query.after.no)
    text = read["find"].format(
        columns=read["row_columns"], where=f"WHERE {' AND '.join(where)}" if where else "", order=read[f"order_{order}"]
    )
    return [row_of(row) for row in reader.execute(text, (*bound, max(0, min(query.limit, LIMIT_MAX))))]


def _conditions(read: dict[str, str], query: Query) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    bound: list[Any] = []
    for name, value in (
        ("ids", None if query.ids is None else encode(list(query.ids)).decode()),
        ("life", None if query.life is None else encode([life.value for life in query.life]).decode()),
        ("workflow", query.workflow),
        ("parent", query.parent),
        ("input", query.input_hash),
        ("source", query.source),
        ("due_before", query.due_before),
        ("due_after", query.due_after),
        ("ended_before", query.ended_before),
    ):
        if value is not None:
            where.append(read[f"find_{name}"])
            bound.append(value)
    if query.roots:
        where.append(read["find_roots"])
    if query.busy:
        where.append(read["find_busy"])
    for key, value in (query.tags or {}).items():
        where.append(read["find_tag"])
        bound.extend((key, value))
    if query.status is not None:
        where.append(_status(read, query.status, bound))
    return where, bound


def _status(read: dict[str, str], status: Sequence[str], bound: list[Any]) -> str:
    lives = [one for one in status if one in ENDED or one in {"queued", "attention"}]
    parts = [read["find_life"]]
    bound.append(encode(lives).decode())
    parts.extend(read[f"find_{one}"] for one in ("running", "waiting") if one in status)
    return f"({' OR '.join(parts)})"
