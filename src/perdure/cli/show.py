"""`perdure show`: one run as it is now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from perdure.cli.options import EngineSeen, Session, awaited, command, engine_of
from perdure.cli.output import ago, clock, json_text, outcome_of, put, put_json, run_data, style, styled_status
from perdure.cli.ps import is_served, waits
from perdure.kernel.fold import UNDO
from perdure.model.duration import say_us
from perdure.model.payload import blob_hash, is_blob
from perdure.model.run import HistoryEntry, Life, RunRow, WorkflowState, micros, when
from perdure.model.text import escape
from perdure.monitoring.progress import lasting
from perdure.runtime.client import Client
from perdure.runtime.definitions import HASH_DIGITS
from perdure.runtime.length import WARN_AT, remedy
from perdure.runtime.ways import ways_out

VALUE_MAX = 2_000
STEPS_MAX = 10


@command(
    "show",
    "Show one run: status, waits, steps, result.",
    as_json=True,
    examples="perdure show order-42\nperdure show order-42 --json | jq .variables",
)
@click.argument("run")
def show(session: Session, run: str) -> None:
    """Show a run: its status, what it waits for, its steps, variables and result.

    With --json the whole of it, history included.
    """
    awaited(_show(session, run))


async def _show(session: Session, run: str) -> None:
    async with session.client() as client:
        row, state = await client.row(run), await client.state(run)
        result, engine = await result_of(client, row), await engine_of(client)
        most = client.settings.history_max
    if session.json:
        put_json(run_data(row, state, result, is_served(row, engine)))
        return
    for name, text in _facts(row, state, result, engine=engine, most=most):
        put(f"{style(f'{name:<10}', dim=True)}{text}")


async def result_of(client: Client | Any, row: RunRow) -> bytes | None:
    """The encoded result of a completed run; None where there is none."""
    if row.life is not Life.COMPLETED:
        return None
    raw = bytes(outcome_of(row).result)
    if is_blob(raw):
        raw = (await client.store.blobs([blob_hash(raw)]))[blob_hash(raw)]
    return raw


def _facts(
    row: RunRow, state: WorkflowState, result: bytes | None, *, engine: EngineSeen | None, most: int
) -> Iterator[tuple[str, str]]:
    now = datetime.now(UTC)
    yield "run", style(row.id, bold=True)
    yield "workflow", f"{escape(row.workflow)} (version {escape(row.version)})"
    yield "status", styled_status(row.status) + (_served(row, engine) if not row.life.ended else "")
    outcome = outcome_of(row)
    if outcome.failure is not None:
        yield "failure", escape(outcome.failure.summary(), VALUE_MAX)
    if outcome.reason:
        yield "reason", escape(outcome.reason, VALUE_MAX)
    if row.life is Life.ATTENTION:
        yield "", escape(ways_out(row.id, outcome))
    if row.life is Life.LIVE:
        yield "waits for", " · ".join(waits(row, now)) or "its next turn"
    if row.wait.due is not None and row.life is Life.LIVE:
        yield "until", clock(when(row.wait.due))
    yield from _times(row, now)
    yield "steps", _steps(state)
    yield from _long(row, state, most)
    for line in _troubled(state, now):
        yield "", line
    for name, value in state.variables.items():
        yield "variable", f"{escape(name)} = {json_text(value, VALUE_MAX)}"
    if row.tags:
        yield "tags", "  ".join(f"{escape(key)}={escape(value)}" for key, value in row.tags.items())
    if row.parent:
        yield "parent", f"{row.parent} ({escape(row.parent_key)})"
    if row.source:
        yield "source", escape(row.source)
    if result is not None:
        yield "result", escape(result.decode("utf-8", "replace"), VALUE_MAX)


def _served(row: RunRow, engine: EngineSeen | None) -> str:
    if engine is None:
        return "  (no engine runs on this store)"
    return "" if is_served(row, engine) else "  (not served by the engine that runs)"


def _times(row: RunRow, now: datetime) -> Iterator[tuple[str, str]]:
    begun = when(row.created_at)
    yield "started", f"{clock(begun)} ({ago(begun, now)})"
    if row.ended_at is not None:
        ended = when(row.ended_at)
        yield "ended", f"{clock(ended)} (after {lasting((ended - begun).total_seconds())})"
    if row.generation > 1:
        yield "generation", str(row.generation)


def _steps(state: WorkflowState) -> str:
    """How many of each kind, and how many facts that makes."""
    counts = {"completed": 0, "undone": 0, "failed": 0, "retried": 0, "skipped": 0}
    for entry in state.history:
        if entry.kind in {"step_completed", "child_ended"}:
            counts["undone" if str(entry.detail["key"]).startswith(UNDO) else "completed"] += 1
        elif entry.kind == "attempt_failed":
            counts["failed" if entry.detail["retry_at"] is None else "retried"] += 1
        elif entry.kind == "step_skipped":
            counts["skipped"] += 1
    shown = [f"{count:,} {name}" for name, count in counts.items() if count or name == "completed"]
    if state.metadata.wait.open and state.status not in {"completed", "failed", "cancelled"}:
        shown.append(f"{state.metadata.wait.open:,} open")
    return f"{', '.join(shown)}  ({len(state.history):,} facts)"


def _long(row: RunRow, state: WorkflowState, most: int) -> Iterator[tuple[str, str]]:
    """How long the generation's history is, when it comes near its limit."""
    kinds = [entry.kind for entry in reversed(state.history)]
    count = kinds.index("run_continued") + 1 if "run_continued" in kinds else len(kinds)
    if not row.life.ended and count * 100 >= most * WARN_AT:
        kind = "graph" if len(row.definition) == HASH_DIGITS else "flow"
        yield "history", f"{count:,} facts in this generation, of at most {most:,} (history_max): {remedy(kind)}"


def _troubled(state: WorkflowState, now: datetime) -> Iterator[str]:
    """Open steps of which something is known: failed attempts, and the progress that was told last."""
    if state.metadata.ended is not None:
        return
    failed: dict[str, HistoryEntry] = {}
    for entry in state.history:
        key = entry.detail.get("key")
        if entry.kind == "attempt_failed" and key:
            failed[key] = entry
        elif entry.kind in {"step_completed", "step_resolved", "run_continued", "run_retried"}:
            failed.pop(str(key), None)
    progress = state.metadata.progress
    for key in [*failed, *(key for key in progress if key not in failed)][:STEPS_MAX]:
        parts = []
        if key in failed:
            detail = failed[key].detail
            message = f"{detail['failure']['type'].rpartition('.')[2]}: {detail['failure']['message']}"
            parts.append(f"attempt {detail['attempt']} failed ({escape(message, 120)})")
            if detail["retry_at"] is not None:
                left = detail["retry_at"] - micros(now)
                parts.append(f"next in {say_us(left)}" if left > 0 else "next is due")
        if key in progress:
            parts.append(f"progress {json_text(progress[key], 120)}")
        yield f"{escape(key)}: {'; '.join(parts)}"
