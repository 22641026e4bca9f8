"""What the program says: results on stdout, all else on stderr; escaped, and coloured on a terminal only."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import click
import msgspec

from perdure.model.run import Outcome, RunRow, WorkflowState, when
from perdure.model.text import escape, redact
from perdure.monitoring.progress import is_terminal, lasting

LINE_MAX: Final = 1_000
LINES_MAX: Final = 6
STATUS_COLOURS: Final = {
    "queued": "bright_black",
    "running": "cyan",
    "waiting": "blue",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "attention": "bright_magenta",
}
# What JSON text may hold as it is and a terminal would act upon; it is written as \uXXXX.
_HARMFUL: Final = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class NobodyReads(Exception):
    """Who reads our stdout has seen enough."""


# --- stderr ------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """A word to the person, on stderr: at most a few lines."""
    lines = redact(text).strip().split("\n")
    click.echo(f"perdure: {escape(lines[0], LINE_MAX)}", err=True)
    say_block(lines[1:])


def say_block(lines: Iterable[str]) -> None:
    """Lines that follow what was said."""
    for line in list(lines)[: LINES_MAX - 1]:
        click.echo(f"  {escape(redact(line), LINE_MAX)}", err=True)


# --- stdout ------------------------------------------------------------------------------------------


def put(text: str) -> None:
    """A line on stdout. Shape: already escaped; may hold colours, which a pipe does not get."""
    try:
        click.echo(text, color=None if coloured(sys.stdout) else False)
    except BrokenPipeError:
        raise NobodyReads from None


def put_json(value: Any) -> None:
    """A value as JSON: in lines of its own on a terminal, else on one."""
    put_raw_json(msgspec.json.encode(value))


def put_raw_json(raw: bytes) -> None:
    """Encoded JSON."""
    text = (msgspec.json.format(raw, indent=2 if is_terminal(sys.stdout) else 0)).decode()
    put(_HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def put_json_lines(values: Sequence[Any]) -> None:
    """A JSON array with a line for each member."""
    lines = [msgspec.json.encode(value).decode() for value in values]
    body = ",\n ".join(_HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in lines)
    put(f"[{body}]")


def put_text(text: str) -> None:
    """A text as it is; on a terminal with what that would act upon escaped, its lines kept."""
    if is_terminal(sys.stdout):
        text = "\n".join(escape(line) for line in text.split("\n"))
    put(text)


def coloured(stream: TextIO) -> bool:
    """Whether colours are wanted: on a terminal, unless NO_COLOR is set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def style(text: str, **how: Any) -> str:
    """Coloured where stdout is a terminal."""
    return click.style(text, **how) if text and coloured(sys.stdout) else text


def styled_status(status: str, width: int = 0) -> str:
    return style(f"{status:<{width}}", fg=STATUS_COLOURS.get(status, "white"))


def width_of_terminal() -> int | None:
    """The columns of stdout's terminal; None when it is none, and nothing is cut."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def columns(rows: Sequence[Sequence[str]], colours: dict[int, Any] | None = None) -> list[str]:
    """Rows as lines in columns; the last is cut to the terminal. Shape: `colours` gives a style by (column)."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(rows[0]))] if rows else []
    room = width_of_terminal()
    lines = []
    for row in rows:
        used, cells = 0, []
        for i, cell in enumerate(row):
            last = i == len(row) - 1
            text = cell if last else f"{cell:<{widths[i]}}  "
            if room is not None and last and used + len(text) > room:
                text = text[: max(room - used - 1, 8)] + "…"
            used += len(text)
            painter = (colours or {}).get(i)
            cells.append(painter(text) if painter is not None else text)
        lines.append("".join(cells).rstrip())
    return lines


# --- times and values --------------------------------------------------------------------------------


def clock(instant: datetime) -> str:
    """An instant in the person's own zone."""
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"


def ago(instant: datetime, now: datetime | None = None) -> str:
    seconds = ((now or datetime.now(UTC)) - instant).total_seconds()
    return f"{lasting(seconds)} ago" if seconds >= 0 else f"in {lasting(-seconds)}"


def json_text(value: Any, limit: int) -> str:
    """A value as JSON on one line, cut and escaped."""
    return escape(msgspec.json.encode(value).decode("utf-8", "replace"), limit)


def outcome_of(row: RunRow) -> Outcome:
    return msgspec.json.decode(row.outcome or b"{}", type=Outcome)


# --- runs as data ------------------------------------------------------------------------------------


def row_data(row: RunRow, served: bool | None) -> dict[str, Any]:
    """A run of a list, for JSON. Shape: `served` tells whether the engine that runs now serves it; null: none runs."""
    outcome = outcome_of(row)
    wait = row.wait
    return {
        "id": row.id,
        "workflow": row.workflow,
        "version": row.version,
        "status": row.status,
        "generation": row.generation,
        "facts": row.seq,
        "tags": row.tags,
        "parent": row.parent or None,
        "source": row.source or None,
        "created": when(row.created_at),
        "updated": when(row.updated_at or row.created_at),
        "ended": None if row.ended_at is None else when(row.ended_at),
        "wait": {
            "due": None if wait.due is None else when(wait.due),
            "signals": wait.signals,
            "children": wait.children,
            "open": wait.open,
            "retrying": wait.retrying,
            "settling": wait.settling,
        },
        "failure": outcome.failure,
        "reason": outcome.reason,
        "step": outcome.step,
        "served": served,
    }


def run_data(row: RunRow, state: WorkflowState, result: bytes | None, served: bool | None = None) -> dict[str, Any]:
    """The whole of a run, for JSON: its row, result, variables, progress and history."""
    data = row_data(row, served)
    data["result"] = None if result is None else msgspec.Raw(result)
    data["variables"] = state.variables
    data["progress"] = state.metadata.progress
    data["timestamp"] = state.timestamp
    data["history"] = state.history
    return data
