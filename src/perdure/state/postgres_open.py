"""Opening a store in PostgreSQL: its address, the settings that must hold, its schema."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from perdure.errors import NotAStore, StoreNewer, StoreUnavailable
from perdure.model.text import redact
from perdure.settings import Settings
from perdure.state.postgres_errors import mapped
from perdure.state.sql import migrations, statements
from perdure.version import VERSION

SQL = statements("postgres", "open")
READ = statements("postgres", "read")
DEFAULT_SCHEMA = "perdure"
SCHEMES = ("postgresql", "postgres")
OLDEST = 140_000
# Units: seconds.
CONNECT_S, STATEMENT_S, LOCK_S, IDLE_S = 10.0, 30, 10, 30
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Address(NamedTuple):
    """Where a store is. Shape: `dsn` is what the driver takes, `schema` where its tables stand."""

    dsn: str
    schema: str


def address_of(text: str) -> Address:
    """An address as `postgresql://user@host:port/database?schema=perdure`. Raises: `NotAStore`."""
    parts = urlsplit(text)
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = asked.pop("schema", DEFAULT_SCHEMA)
    if not _NAME.fullmatch(schema):
        raise NotAStore(f"schema={schema!r}: small letters, digits and underscores, as schema={DEFAULT_SCHEMA}")
    return Address(urlunsplit(parts._replace(query=urlencode(asked))), schema)


async def connected(address: Address, kind: str) -> asyncpg.Connection[Any]:
    """One connection. Raises: `StoreUnavailable`, `NotAStore`."""
    try:
        db: asyncpg.Connection[Any] = await asyncpg.connect(
            address.dsn, timeout=CONNECT_S, command_timeout=STATEMENT_S * 2, server_settings=session(address, kind)
        )
    except (ValueError, TypeError) as error:
        raise NotAStore(f"the address {redact(address.dsn)} cannot be used: {redact(str(error))}") from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise mapped(error, f"the store {redact(address.dsn)} cannot be reached") from error
    return db


def session(address: Address, kind: str) -> dict[str, str]:
    """What every session of ours is set to: nothing of it may hang for ever."""
    return {
        "search_path": address.schema, "application_name": f"perdure {kind}", "jit": "off",
        "statement_timeout": f"{STATEMENT_S}s", "lock_timeout": f"{LOCK_S}s",
        "idle_in_transaction_session_timeout": f"{IDLE_S}s", "client_min_messages": "warning",
    }  # fmt: skip


async def prepare(db: Any, address: Address, settings: Settings) -> None:
    """See to it that the server keeps what it acknowledges, and that the tables are there, and ours.

    Raises: `StoreUnavailable` for settings that lose acknowledged facts; `StoreNewer`; `NotAStore`.
    """
    _refuse_unsafe({row["name"]: row["setting"] for row in await db.fetch(READ["settings"])}, settings)
    steps = migrations("postgres")
    newest = steps[-1][0]
    there = await _version(db)
    if there < newest:
        async with db.transaction():
            await db.execute(SQL["lock"], address.schema)  # several nodes may start at once: one migrates
            await db.execute(SQL["schema"].format(schema=address.schema))
            there = await _version(db)
            for number, script in steps:
                if number > there:
                    await db.execute(script)
                    await db.execute(SQL["version"], str(number))
    if there > newest:
        raise StoreNewer(f"the store's schema is of version {there}; perdure {VERSION} knows {newest}: use a newer one")


async def _version(db: Any) -> int:
    if not await db.fetchval(READ["schema_there"]):
        return 0
    return int(await db.fetchval(READ["schema_version"]) or 0)


def _refuse_unsafe(found: dict[str, str], settings: Settings) -> None:
    version = int(found["server_version_num"])
    if version < OLDEST:
        raise NotAStore(f"PostgreSQL {version // 10_000} is too old: 14 or newer")
    if settings.durability != "full":
        return
    unsafe = [f"{name} = off" for name in ("fsync", "full_page_writes", "synchronous_commit") if found[name] == "off"]
    if unsafe:
        raise StoreUnavailable(
            f"the server may lose what it has acknowledged ({', '.join(unsafe)}): turn it on, "
            'or say durability="relaxed" if that is meant'
        )
