"""A run's state as the store holds it: (V, H, M, T), without running any of its code."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import UnknownRun
from perdure.model import fact as f
from perdure.model.run import HistoryEntry, Metadata, Outcome, WorkflowState, when
from perdure.runtime.replay import decode, tag_of
from perdure.state.store import Store


async def state_of(store: Store, run_id: str) -> WorkflowState:
    """Raises: `UnknownRun`; `StoreDamaged` for a fact that cannot be read."""
    found = await store.load([run_id], whole=True)
    if not found:
        raise UnknownRun(run_id)
    row, facts = found[0].row, found[0].facts
    outcome = msgspec.json.decode(row.outcome or b"{}", type=Outcome)
    return WorkflowState(
        variables=msgspec.json.decode(row.variables or b"{}"),
        history=tuple(entry_of(seq, fact) for seq, fact in decode(facts)),
        metadata=Metadata(
            id=row.id, workflow=row.workflow, version=row.version, status=row.status, generation=row.generation,
            tags=row.tags,
            parent=row.parent, wait=row.wait, created=when(row.created_at),
            ended=None if row.ended_at is None else when(row.ended_at), failure=outcome.failure, reason=outcome.reason,
            progress={key: msgspec.json.decode(raw) for key, raw in found[0].progress.items()},
        ),
        timestamp=when(row.updated_at),
    )  # fmt: skip


def entry_of(seq: int, fact: f.AnyFact) -> HistoryEntry:
    """One fact for a reader."""
    detail: dict[str, Any] = {}
    for name in fact.__struct_fields__:
        if name not in {"at", "asked_n", "asked_h"}:
            value = getattr(fact, name)
            detail[name] = msgspec.json.decode(value if isinstance(value, msgspec.Raw) else msgspec.json.encode(value))
    return HistoryEntry(seq=seq, at=when(fact.at), kind=tag_of(fact), detail=detail)
