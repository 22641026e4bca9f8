"""SQL by name: every statement of every store stands in a `.sql` file, after a line `-- name: …`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_TABLE = re.compile(r"^CREATE[ ]TABLE (\w+)", re.MULTILINE)
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def statements(store: str, file: str) -> dict[str, str]:
    """The statements of one file, by name."""
    text = files("perdure.state.sql").joinpath(store, f"{file}.sql").read_text("utf-8")
    parts = _NAME.split(text)
    return {parts[i]: parts[i + 1].strip() for i in range(1, len(parts), 2)}


@cache
def migrations(store: str) -> list[tuple[int, str]]:
    """(version, script) of every migration, in order."""
    folder = files("perdure.state.sql").joinpath(store, "migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.split("_")[0]), folder.joinpath(name).read_text("utf-8")) for name in names]


@cache
def tables(store: str) -> list[str]:
    """The tables that migrations make."""
    return [name for _, script in migrations(store) for name in _TABLE.findall(script)]
