"""`perdure ps`: the runs of a store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from perdure.cli.inputs import pairs
from perdure.cli.options import EngineSeen, Session, awaited, command, engine_of
from perdure.cli.output import STATUS_COLOURS, ago, columns, outcome_of, put, put_json_lines, row_data, say, style
from perdure.model.run import RunRow, Status, when
from perdure.model.text import escape
from perdure.monitoring.progress import is_terminal, lasting
from perdure.runtime.client import Client

WATCH_S = 0.5
NAMES_MAX = 3
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


@command(
    "ps",
    "List runs and what they wait for.",
    as_json=True,
    examples="""
    perdure ps
    perdure ps --status failed --status attention --workflow fulfil --tag region=eu
    perdure ps --watch
    """,
)
@click.option("--status", "statuses", multiple=True, help="Only runs of this status; may be repeated.")
@click.option("--workflow", help="Only runs of this workflow.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Only runs with this tag; may be repeated.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many runs.")
@click.option("--watch", is_flag=True, help="Show them anew whenever something changes, until Ctrl-C.")
def ps(
    session: Session,
    *,
    statuses: tuple[Status, ...],
    workflow: str | None,
    tags: tuple[str, ...],
    limit: int,
    watch: bool,
) -> None:
    """List runs, the newest first, with what they wait for.

    Runs of workflows that no running engine serves stay as they are, and are marked "not served".
    """
    wanted = pairs(tags, "--tag")

    async def look(client: Client) -> None:
        found = client.runs(status=statuses or None, workflow=workflow, tags=wanted or None, limit=limit)
        _show(session, [row async for row in found], await engine_of(client), limit)

    async def whole() -> None:
        async with session.client() as client:
            await look(client)
            while watch:
                await asyncio.sleep(WATCH_S)
                if client.store.changed() or is_terminal(sys.stdout):
                    click.echo(CLEAR if is_terminal(sys.stdout) else "", nl=False)
                    await look(client)

    awaited(whole())


def is_served(row: RunRow, engine: EngineSeen | None) -> bool | None:
    """Whether the engine that runs now serves the run; None when none runs or the run has ended."""
    if engine is None or row.life.ended:
        return None
    return (row.workflow, row.version) in engine.serves


def _show(session: Session, rows: Sequence[RunRow], engine: EngineSeen | None, limit: int) -> None:
    if session.json:
        put_json_lines([row_data(row, is_served(row, engine)) for row in rows])
        return
    now = datetime.now(UTC)
    if rows:
        lines = columns(
            [("RUN", "WORKFLOW", "STATUS", "STARTED", "TOOK", ""), *(_cells(row, engine, now) for row in rows)],
            {2: _paint, 5: lambda text: style(text, dim=True)},
        )
        put(style(lines[0], bold=True))
        for line in lines[1:]:
            put(line)
    say(_footer(rows, engine, limit))


def _paint(text: str) -> str:
    return style(text, fg=STATUS_COLOURS.get(text.strip()))


def _cells(row: RunRow, engine: EngineSeen | None, now: datetime) -> tuple[str, ...]:
    name = escape(row.workflow, 40) + (f" {escape(row.version, 20)}" if row.version != "1" else "")
    begun = when(row.created_at)
    ended = now if row.ended_at is None else when(row.ended_at)
    took = lasting((ended - begun).total_seconds())
    return row.id, name, row.status, ago(begun, now), took, note_of_row(row, engine, now)


def note_of_row(row: RunRow, engine: EngineSeen | None, now: datetime) -> str:
    """What a run waits for, or how it ended, on one line."""
    outcome = outcome_of(row)
    if outcome.failure is not None:
        return escape(outcome.failure.summary(), 200)
    if outcome.reason:
        return escape(outcome.reason, 200)
    if row.life.ended:
        return ""
    parts = ["not served by the engine that runs"] if is_served(row, engine) is False else []
    return " · ".join([*parts, *waits(row, now)])


def waits(row: RunRow, now: datetime) -> list[str]:
    """What the run waits for."""
    wait, parts = row.wait, []
    if wait.settling:
        parts.append("settles before it ends")
    if wait.open:
        parts.append(f"{wait.open:,} step{'s' * (wait.open != 1)}")
    if wait.retrying:
        parts.append(f"{wait.retrying:,} to be retried")
    if wait.signals:
        parts.append(f"signal {_names(wait.signals)}")
    if wait.children:
        parts.append(f"child {_names(wait.children)}")
    if wait.due is not None:
        parts.append(f"{'retry' if wait.retrying else 'timer'} {_until(wait.due, now)}")
    return parts


def _until(due: int, now: datetime) -> str:
    instant = when(due)
    return f"due {ago(instant, now)}" if instant <= now else ago(instant, now)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(escape(name, 60) for name in names[:NAMES_MAX])
    return shown + (f" and {len(names) - NAMES_MAX:,} more" if len(names) > NAMES_MAX else "")


def _footer(rows: Sequence[RunRow], engine: EngineSeen | None, limit: int) -> str:
    count = f"{len(rows):,} run{'s' * (len(rows) != 1)}" + (" shown, --limit shows more" if len(rows) == limit else "")
    if not rows:
        count = "no such runs"
    left = sum(not row.life.ended for row in rows)
    if engine is not None:
        return f"{count}; an engine runs" + (f" (pid {engine.pid})" if engine.pid > 0 else "")
    return f"{count}; no engine runs on this store" + (f": {left:,} wait for one" if left else "")
