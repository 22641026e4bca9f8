"""Auditing a run: its history from the store, its code replayed where that is known here, its relatives' rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.authoring.registry import Registry
from perdure.errors import NonDeterminism, PerdureError, UnknownRun
from perdure.kernel.audit import audit
from perdure.kernel.audit_report import AuditReport
from perdure.kernel.audit_subject import ReplayResult, Subject
from perdure.kernel.decider import Catalogue
from perdure.kernel.flow import Limits, Watch
from perdure.kernel.graph import Graph
from perdure.model import fact as f
from perdure.model.run import Life, RunRow
from perdure.model.workflow import WorkflowSpec
from perdure.runtime.definitions import bound, definition_of
from perdure.runtime.replay import TAKEN_BACK, Attention, Known, blobs_of, decode, fill, make, replay, stood_on
from perdure.settings import Settings
from perdure.state.store import InboxRow, Loaded, Query, Store

PAGE = 500


async def verify_run(
    store: Store, catalogue: Registry, settings: Settings, run_id: str, *, watch: Watch | None = None
) -> AuditReport:
    """The four conditions over one run. Shape: `watch` interrupts code that blocks, where the caller has more to do.

    Raises: `UnknownRun`; `StoreDamaged` for facts that cannot be read.
    """
    found = await store.load([run_id], whole=True)
    if not found:
        raise UnknownRun(run_id)
    limits = Limits(settings.payload_max, settings.turn_callbacks_max, settings.children_depth_max, watch=watch)
    return audit(await _subject(store, catalogue, limits, found[0], await _inbox(store)))


async def _subject(
    store: Store, catalogue: Registry, limits: Limits, one: Loaded, inbox: Sequence[InboxRow]
) -> Subject:
    row = one.row
    known = decode(one.facts)
    facts = [
        f.Recorded(seq, body, digest, fact) for (seq, body, digest), (_, fact) in zip(one.facts, known, strict=True)
    ]
    ids = {fact.child for _, fact in known if isinstance(fact, f.ChildEnded)} | set(row.wait.children)
    rows = await _rows(store, [*ids, *([row.parent] if row.parent else [])])
    spec = await _spec(store, catalogue, row)
    graph = spec.graph if spec is not None else None
    if spec is None or spec.definition_hash != row.definition:
        graph = await definition_of(store, row.definition) or graph
    return Subject(
        row=row,
        facts=facts,
        children={child: rows.get(child) for child in ids},
        parent=rows.get(row.parent),
        replay=await _replayed(store, catalogue, limits, one, spec),
        graph=graph,
        inbox=sum(1 for waiting in inbox if waiting.message.run == row.id),
    )


async def _spec(store: Store, catalogue: Registry, row: RunRow) -> WorkflowSpec | None:
    """The code of the run: as it is served, but a graph by the definition that moved it last, where that can be bound."""
    spec = catalogue.workflow(row.workflow, row.version, row.definition)
    if spec is None or (spec.graph is not None and spec.definition_hash != row.definition):
        return await bound(store, catalogue, row) or spec
    return spec


async def _inbox(store: Store) -> list[InboxRow]:
    rows: list[InboxRow] = []
    while True:
        page = await store.inbox(rows[-1].no if rows else 0, PAGE)
        rows.extend(page)
        if len(page) < PAGE:
            return rows


async def _rows(store: Store, ids: Sequence[str]) -> dict[str, RunRow]:
    found: dict[str, RunRow] = {}
    for start in range(0, len(ids), PAGE):
        part = tuple(ids[start : start + PAGE])
        found.update((row.id, row) for row in await store.find(Query(ids=part, limit=len(part))))
    return found


def _folded(history: Known) -> Known:
    """The facts but for a turn that was taken back and not resumed: its code may block or loop, and decided nothing."""
    last = next((i for i in range(len(history) - 1, 0, -1) if not isinstance(history[i][1], f.RunRecovered)), 0)
    fact = history[last][1]
    if isinstance(fact, f.AttentionSet) and fact.cause in TAKEN_BACK and not isinstance(history[last - 1][1], f.NOTES):
        return history[: last - 1]
    return history


async def _replayed(
    store: Store, catalogue: Catalogue, limits: Limits, one: Loaded, spec: WorkflowSpec | None
) -> ReplayResult | None:
    """Run the code over the history; None where the code is not known here,
    or does not end the run (a forced cancel).
    """
    row = one.row
    known = decode(one.facts)
    if spec is None or not known or any(isinstance(fact, f.CancelRequested) and fact.force for _, fact in known):
        return None
    hashes = blobs_of(known)
    if hashes:
        fill(known, await store.blobs(sorted(hashes)))
    decider: Any = make(row.id, spec, catalogue, limits)
    decider.journal = {}
    try:
        return _compared(decider, *stood_on(decider, known), row)
    finally:
        decider.drop()


def _compared(decider: Any, history: Known, copied: int, row: RunRow) -> ReplayResult:
    """What a replay of the history asks for, and where it differs."""
    trace: dict[int, tuple[int, int]] = {}
    folded = _folded(history)
    try:
        replay(decider, folded, copied=copied, trace=trace)
        if len(folded) < len(history):
            return ReplayResult(asked=trace)
    except NonDeterminism as error:
        return ReplayResult(ok=False, mismatch=str(error), seq=error.seq, asked=trace)
    except (Attention, PerdureError) as error:
        return ReplayResult(ok=row.life is Life.ATTENTION, mismatch=str(error), asked=trace)
    open_now = frozenset(key for key, step in decider.open.items() if not step.given_up)
    waiting = frozenset(key for key, child in decider.children.items() if not child.detached and not child.given_up)
    limits_by_key = {key: step.spec.retry.attempts for key, step in decider.open.items() if not step.spec.at_most_once}
    return ReplayResult(
        asked=trace, keys=dict(decider.journal), open=open_now | waiting, limits=limits_by_key,
        unmade=decider.unmade() if isinstance(decider, Graph) else frozenset(),
        wait=decider.wait() if row.life is Life.LIVE else None,
    )  # fmt: skip
