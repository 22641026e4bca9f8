"""Makes a store of the first schema out of one of today, and opens it: python -m tests.state.migrated STORE.

`acks` says 1 when the old store is there, and 2 when it was opened and is of today's schema.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import apsw

import perdure
from perdure.state import sqlite_open
from perdure.state.sql import migrations
from tests.crash.harness import until_async
from tests.state import programs

# A migration as one of later days may be: a table is made anew with other columns, its rows are taken over.
LATER = """
CREATE TABLE epochs_new (
    epoch INTEGER PRIMARY KEY, node TEXT NOT NULL, pid INTEGER NOT NULL, started_at INTEGER NOT NULL,
    clean INTEGER NOT NULL DEFAULT 0, note BLOB NOT NULL DEFAULT (x''), ended_at INTEGER
);
INSERT INTO epochs_new (epoch, node, pid, started_at, clean, note) SELECT epoch, node, pid, started_at, clean, note FROM epochs;
DROP TABLE epochs;
ALTER TABLE epochs_new RENAME TO epochs;
CREATE INDEX runs_definition ON runs (definition);
"""


def all_migrations(store: str = "sqlite") -> list[tuple[int, str]]:
    """Those that there are, and one more."""
    known = migrations(store)
    return [*known, (known[-1][0] + 1, LATER)]


def downgrade(source: str, target: str) -> None:
    """The rows of a store in a file of the first schema, as the first version wrote it."""
    database = apsw.Connection(target)
    database.pragma("journal_mode", "wal")
    number, script = migrations("sqlite")[0]
    database.execute("ATTACH ? AS today", (source,))
    database.execute("BEGIN IMMEDIATE")
    database.execute(script)
    tables = [name for (name,) in database.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'")]
    for table in tables:
        columns = ", ".join(row[1] for row in database.execute(f"PRAGMA main.table_info({table})"))
        database.execute(f"DELETE FROM main.{table}")
        database.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM today.{table} WHERE 1")
    database.execute("DELETE FROM main.meta WHERE key <> 'id'")
    database.pragma("application_id", sqlite_open.APPLICATION_ID)
    database.pragma("user_version", number)
    database.execute("COMMIT")
    database.execute("DETACH today")
    database.close()


async def today(path: str) -> None:
    """A store of today: one run has ended, one waits."""
    async with perdure.open(f"sqlite:///{path}", [programs.mixed, programs.waits], **programs.SETTINGS) as engine:
        await engine.start(programs.mixed, 3, id="one", request_id="start")
        await engine.get("one").signal("go", 7, request_id="go")
        assert await engine.get("one").result("60s") == programs.RESULT
        waiting = await engine.start(programs.waits, 1, id="two")

        async def waits() -> bool:
            return bool((await engine.row(waiting.id)).wait.signals)

        await until_async(waits, "it waits")


async def main(path: str) -> None:
    made = f"{Path.cwd()}.today.db"  # beside the folder that is recorded
    await today(made)
    downgrade(made, path)
    acks = os.open("acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(acks, b"1\n")
    sqlite_open.migrations = all_migrations
    async with perdure.open(f"sqlite:///{path}", [programs.waits], **programs.SETTINGS):
        os.write(acks, b"2\n")
    os.close(acks)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
