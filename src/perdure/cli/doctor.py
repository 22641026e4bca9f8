"""`perdure doctor`: how a store is."""

from __future__ import annotations

import inspect
import os
import platform
import re
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from perdure.cli.options import Session, awaited, command
from perdure.cli.output import clock, columns, put, put_json, style
from perdure.model.run import when
from perdure.model.text import escape
from perdure.settings import Settings
from perdure.state.sqlite_health import Health, health_of, newest_epochs
from perdure.state.store import EpochRow
from perdure.version import VERSION

EPOCHS_SHOWN = 5
WAL_ALARM = 64 << 20
MEANING = re.compile(r"^    (\w+): \w+ = .+?  # (.+)$", re.MULTILINE)


class Checkup(msgspec.Struct, frozen=True):
    """What the doctor looked at. Shape: `wrong` is what is wrong with the file's structure; empty: nothing."""

    health: Health
    wrong: list[str]
    epochs: list[EpochRow]
    settings: Settings


@command(
    "doctor",
    "Look at the store itself, and the settings.",
    as_json=True,
    examples="""
    perdure doctor --store sqlite:////srv/orders.db
    perdure doctor --settings
    """,
)
@click.option("--settings", "only_settings", is_flag=True, help="List all settings as they are here, and no store.")
def doctor(session: Session, only_settings: bool) -> int:
    """Look at a store: its sizes and structure, who runs it, what was lost, and settings that were changed.

    Exits with 3 where the structure is damaged or less is there than was acknowledged.
    """
    if only_settings:
        _put_settings(session, Settings.from_environment(os.environ))
        return 0

    async def look() -> Checkup:
        async with session.client() as client:
            store: Any = client.store
            return Checkup(
                await health_of(store),
                await store.check(),
                await newest_epochs(store),
                Settings.from_environment(os.environ),
            )

    found = awaited(look())
    bad = bool(found.wrong) or lost(found.health) > 0
    if session.json:
        put_json({"ok": not bad, "lost_commits": lost(found.health), **_data(found)})
    else:
        for name, text in _facts(found):
            put(f"{style(f'{name:<11}', dim=True)}{text}" if name else f"{'':11}{text}")
    return 3 if bad else 0


def lost(health: Health) -> int:
    """How many acknowledged commits the file does not hold."""
    if health.mark is None or health.mark.store_id != health.store_id or health.holder:
        return 0
    return max(0, health.mark.commits - health.commits)


def _data(found: Checkup) -> dict[str, Any]:
    return {
        "perdure": VERSION,
        "python": platform.python_version(),
        "store": found.health,
        "structure": found.wrong,
        "epochs": [
            {
                "epoch": row.epoch, "node": row.node, "pid": row.pid, "started": when(row.started_at),
                "clean": row.clean, "note": msgspec.Raw(row.note or b"null"),
            }
            for row in found.epochs
        ],
        "settings": found.settings,
    }  # fmt: skip


def _facts(found: Checkup) -> Iterator[tuple[str, str]]:
    health = found.health
    yield "perdure", f"{VERSION}, Python {platform.python_version()}, SQLite {health.sqlite}"
    yield "store", f"{escape(health.path)} (id {escape(health.store_id)}, schema {health.schema})"
    yield "structure", style("sound", fg="green") if not found.wrong else style(escape(found.wrong[0], 200), fg="red")
    yield "commits", _commits(health)
    yield "engine", f"pid {health.holder} holds the store" if health.holder > 0 else "held" if health.holder else "none"
    large = style("  large: a reader holds it", fg="yellow") if health.wal_size > WAL_ALARM else ""
    yield "size", f"{health.file_size:,} bytes, write-ahead log {health.wal_size:,}{large}"
    yield "holds", ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in health.sizes.items() if count)
    for i, row in enumerate(found.epochs[:EPOCHS_SHOWN]):
        ended = "stopped cleanly" if row.clean else "runs" if i == 0 and health.holder else "died"
        text = f"{row.epoch}  {clock(when(row.started_at))}  {escape(row.node, 40)}:{row.pid}  {ended}"
        yield "epochs" if i == 0 else "", text
    changed = [f"{name} = {value} (changed)" for name, value in changed_settings(found.settings)]
    for i, text in enumerate(changed or ["as they come; --settings lists them"]):
        yield "settings" if i == 0 else "", text


def changed_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Name and value of those that are not as they come."""
    default = Settings()
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        if value != getattr(default, field.name):
            yield field.name, escape(str(value))


def _put_settings(session: Session, settings: Settings) -> None:
    """Each setting with its value and its meaning, as its line in the source says it."""
    if session.json:
        put_json(settings)
        return
    meanings = dict(MEANING.findall(inspect.getsource(Settings)))
    changed = {name for name, _ in changed_settings(settings)}
    rows = [
        (name, escape(str(value)) + (" (changed)" if name in changed else ""), meanings.get(name, ""))
        for name, value in msgspec.structs.asdict(settings).items()
    ]
    for line in columns(rows, {2: lambda text: style(text, dim=True)}):
        put(line)


def _commits(health: Health) -> str:
    text = f"{health.commits:,}"
    if health.mark is None:
        return f"{text} (no mark beside the store: what was taken back cannot be told)"
    missing = lost(health)
    if missing:
        return style(f"{text}, but {health.mark.commits:,} were acknowledged: {missing:,} are lost", fg="red")
    return f"{text}, none lost"
