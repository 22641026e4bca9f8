"""A run's row in SQLite, written and read: its columns, and the sums that tell when one of them was altered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec

from perdure.model.fact import CHAIN_START
from perdure.model.run import NO_WAIT, Life, Outcome, RunRow, Wait
from perdure.state.store import NewRun, UpdateRow

HALF, FULL = 1 << 63, 1 << 64
ASLEEP, OPEN, IDLE = 0, 1, 2
# Encoded waits come again and again; so many are remembered.
WAITS_KEPT = 4_096
LIVE = Life.LIVE.value
encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_wait = msgspec.json.Decoder(Wait).decode
_tags = msgspec.json.Decoder(dict[str, str]).decode
# Which of the columns of a row are texts.
_TEXTS = {1, 2, 3, 4, 6, 18, 19, 20, 21}
_busy: dict[tuple[bytes, bool], int] = {}


def crc_of(*columns: Any) -> int:
    """A sum over the columns of a row."""
    return crc32(_pack(columns))


def started(start: NewRun, no: int) -> tuple[Any, ...]:
    """What `start` binds."""
    tags = encode(start.tags).decode() if start.tags else "{}"
    said = (
        start.ref.id, start.workflow, start.version, start.definition, start.input_hash, tags, start.parent,
        start.parent_key, start.source, start.created_at,
    )  # fmt: skip
    return (no, *said, _start_crc(no, said))


def _start_crc(no: int, said: tuple[Any, ...]) -> int:
    """The definition is left out: it may change later."""
    return crc32(_pack((no, said[:3], said[4:])))


def updated(row: UpdateRow) -> tuple[Any, ...]:
    """What `update_live` binds, then life, outcome and end, which `update` binds too."""
    (
        ref, life, seq, head, asked_n, asked_h, generation, epoch, due, wait, variables, outcome, definition,
        updated_at, ended_at,
    ) = row  # fmt: skip
    busy = _busy.get((wait, due is None))
    if busy is None:
        busy = _busy_of(wait, due)
    if asked_h >= HALF:
        asked_h -= FULL
    crc = crc_of(
        seq, head, asked_n, asked_h, generation, epoch, due, wait, variables, definition, updated_at, busy, life,
        outcome, ended_at,
    )  # fmt: skip
    return (
        ref.no, seq, head, asked_n, asked_h, generation, epoch, due, wait, variables, definition, updated_at, busy, crc,
        life, outcome, ended_at,
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


def as_text(value: Any) -> Any:
    """A text that was read as its bytes; one that is none any more is left as it is, and matches no sum."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def texts_of(found: Sequence[Any]) -> list[Any]:
    """A row of `row_columns` from one of `row_columns_as_bytes`."""
    return [as_text(value) if i in _TEXTS else value for i, value in enumerate(found)]


def row_of(found: Sequence[Any]) -> tuple[RunRow, str]:
    """A row of `row_columns`, and what does not verify in it.

    Shape: a row that does not verify is given as one that needs attention and waits for nothing, whatever it says.
    """
    (
        no, id, workflow, version, definition, input_hash, life, seq, head, asked_n, asked_h, generation, epoch, due,
        busy, wait, variables, outcome, tags, parent, parent_key, source, created_at, updated_at, ended_at, crc_start,
        crc,
    ) = found  # fmt: skip
    said = (id, workflow, version, definition, input_hash, tags, parent, parent_key, source, created_at)
    try:
        if crc is None:
            sound = life == "queued" and seq == 0
        else:
            sound = crc == crc_of(
                seq, head, asked_n, asked_h, generation, epoch, due, wait, variables, definition, updated_at, busy,
                life, outcome, ended_at,
            )  # fmt: skip
        if sound and crc_start == _start_crc(no, said):
            return RunRow(
                id=id, no=no, workflow=workflow, version=version, definition=definition, input_hash=input_hash,
                life=Life(life), seq=seq, head=head, asked_n=asked_n, asked_h=asked_h % FULL, generation=generation,
                epoch=epoch, wait=NO_WAIT if len(wait) == 2 else _wait(wait), variables=variables, outcome=outcome,
                tags={} if tags == "{}" else _tags(tags), parent=parent, parent_key=parent_key, source=source,
                created_at=created_at, updated_at=updated_at, ended_at=ended_at,
            ), ""  # fmt: skip
    except (ValueError, TypeError):
        pass  # one of the columns is of another type by now
    return _damaged(no, id, workflow, version, definition), "its row was altered: a column does not match the row's sum"


def unreadable(id: str) -> RunRow:
    """What stands for a row that cannot be read at all."""
    return _damaged(0, id, "", "", "")


def _damaged(no: int, id: Any, workflow: Any, version: Any, definition: Any) -> RunRow:
    outcome = encode(Outcome(reason="its row in the store was altered: restore a backup", cause="damaged"))
    return RunRow(
        id=_text(id), no=no, workflow=_text(workflow), version=_text(version), definition=_text(definition),
        input_hash=b"", life=Life.ATTENTION, seq=0, head=CHAIN_START, asked_n=0, asked_h=0, generation=1, epoch=0,
        wait=NO_WAIT, variables=b"{}", outcome=outcome, tags={}, parent="", parent_key="", source="", created_at=0,
        updated_at=0, ended_at=None,
    )  # fmt: skip


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
