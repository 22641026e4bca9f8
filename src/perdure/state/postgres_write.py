"""A batch as the arrays that one call of `perdure_commit` takes, and what comes of it."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from perdure.model.message import Start, encode_message
from perdure.model.run import Wait
from perdure.model.shard import shard_of
from perdure.state.sql import statements
from perdure.state.store import DONE, Batch, BatchRefused, Committed, NewRun, Ref

HALF, FULL = 1 << 63, 1 << 64
ASLEEP, OPEN, IDLE = 0, 1, 2
# Encoded waits come again and again; so many are remembered.
WAITS_KEPT = 4_096
SQL = statements("postgres", "write")
_wait = msgspec.json.Decoder(Wait).decode
_json = msgspec.json.Encoder().encode
_busy: dict[tuple[bytes, bool], int] = {}
_STARTS, _FACTS, _UPDATES = 13, 4, 16


class Fence(NamedTuple):
    """What a node's commits are checked by. Shape: epoch 0 for a client, whose commits are not."""

    epoch: int = 0
    claim: UUID | None = None


def bound(batch: Batch, fence: Fence) -> list[Any]:
    """What `commit` binds. Raises: `BatchRefused` for a run that was never started."""
    places = {start.ref: -at for at, start in enumerate(batch.starts, 1)}

    def no(ref: Ref) -> int:
        found = ref.no or places.get(ref, 0)
        if not found:
            raise BatchRefused(f"there is no run {ref.id}")
        return found

    facts = [(no(ref), seq, body, digest) for ref, seq, body, digest in batch.facts]
    updates = [_updated(no(row[0]), row) for row in batch.updates]
    answers, inbox = batch.answers, batch.inbox
    node = fence.epoch > 0
    return [
        fence.epoch, fence.claim, batch.clock if node else 0, batch.note if node else None, batch.clean,
        *_columns([_started(start) for start in batch.starts], _STARTS),
        *_columns(facts, _FACTS),
        *_columns(updates, _UPDATES),
        *_columns(answers, 3),
        batch.inbox_done,
        [message.run for message in inbox], [shard_of(message.run) for message in inbox],
        [message.request for message in inbox], [encode_message(message) for message in inbox],
        [isinstance(message, Start) for message in inbox],
    ]  # fmt: skip


def _columns(rows: list[Any], count: int) -> list[Any]:
    return list(map(list, zip(*rows, strict=True))) if rows else [[] for _ in range(count)]


def _started(start: NewRun) -> tuple[Any, ...]:
    return (
        start.ref.id, shard_of(start.ref.id), start.workflow, start.version, start.definition, start.input_hash,
        _json(start.tags).decode() if start.tags else "{}", start.parent, start.parent_key, start.source, start.request,
        start.created_at, start.drawn,
    )  # fmt: skip


def _updated(no: int, row: Any) -> tuple[Any, ...]:
    (
        _, life, seq, head, asked_n, asked_h, generation, epoch, due, wait, variables, outcome, definition,
        updated_at, ended_at,
    ) = row  # fmt: skip
    busy = _busy.get((wait, due is None))
    if busy is None:
        busy = _busy_of(wait, due)
    return (
        no, life, seq, head, asked_n, asked_h - FULL if asked_h >= HALF else asked_h, generation, epoch, due, busy, wait,
        variables, outcome, definition, updated_at, ended_at,
    )  # fmt: skip


def _busy_of(wait: bytes, due: int | None) -> int:
    known = _wait(wait)
    if known.open or known.settling:
        busy = OPEN
    else:
        busy = ASLEEP if due is not None or known.signals or known.children else IDLE
    if len(_busy) < WAITS_KEPT:
        _busy[wait, due is None] = busy
    return busy


def plain(batch: Batch) -> bool:
    """Whether one call writes all of it; else it is a transaction of several."""
    return not (
        batch.blobs or batch.snapshots or batch.restart or batch.progress or batch.progress_done or batch.remove
    )


def numbered(batch: Batch, nos: list[int]) -> None:
    """The store's numbers of the runs that start."""
    for start, no in zip(batch.starts, nos, strict=True):
        if no:
            start.ref.no = no


def committed(batch: Batch, nos: list[int], repeated: list[str]) -> Committed:
    """What came of it."""
    refused = frozenset(start.ref.id for start, no in zip(batch.starts, nos, strict=True) if not no)
    return Committed(refused, frozenset(repeated)) if refused or repeated else DONE


async def attach(db: Any, batch: Batch, nos: list[int]) -> None:
    """Blobs, snapshots, where loads begin, progress, and what is removed: in the transaction of the rest."""
    dropped = {start.ref for start, no in zip(batch.starts, nos, strict=True) if not no}
    new = {start.ref: no for start, no in zip(batch.starts, nos, strict=True)}

    def no_of(ref: Ref) -> int:
        found = ref.no or new.get(ref, 0)
        if not found:
            raise BatchRefused(f"there is no run {ref.id}")
        return found

    blobs = [(no_of(ref), digest, data) for ref, digest, data in batch.blobs if ref not in dropped]
    if blobs:
        nos_, hashes, bodies = _columns(blobs, 3)
        await db.execute(SQL["blob"], hashes, bodies)
        await db.execute(SQL["blob_ref"], nos_, hashes)
    snapshots = [(no_of(ref), seq, body) for ref, seq, body in batch.snapshots if ref not in dropped]
    if snapshots:
        columns = _columns(snapshots, 3)
        await db.execute(SQL["snapshot"], *columns)
        await db.execute(SQL["snapshot_empty"], columns[0])
    restart = [(no_of(ref), seq) for ref, seq in batch.restart if ref not in dropped]
    if restart:
        columns = _columns(restart, 2)
        await db.execute(SQL["restart"], *columns)
        await db.execute(SQL["snapshot_outdated"], *columns)
    if batch.progress:
        rows = [(p.run, p.key, p.attempt, p.at, p.value) for p in batch.progress]
        await db.execute(SQL["progress"], *_columns(rows, 5))
    if batch.progress_done:
        await db.execute(SQL["progress_done"], batch.progress_done)
    for root in batch.remove:
        await _remove(db, root)


async def _remove(db: Any, root: str) -> None:
    """Remove a tree of runs, all of which have ended; else nothing of it (S28)."""
    tree = await db.fetch(SQL["tree"], root)
    if not tree or not all(row["ended"] for row in tree):
        return
    nos, ids = [row["no"] for row in tree], [row["id"] for row in tree]
    for name in ("tombstone", "remove_facts", "remove_snapshots", "remove_refs", "remove_run"):
        await db.execute(SQL[name], nos)
    for name in ("remove_requests", "progress_done"):
        await db.execute(SQL[name], ids)
