"""Copying and checking a SQLite file while it is in use, on connections of their own."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from perdure.errors import StoreUnavailable
from perdure.state.sqlite_errors import mapped
from perdure.state.sqlite_read import Reader

PAGES_AT_ONCE = 1_000


def copy_file(path: str, destination: str) -> None:
    """A consistent copy: one read transaction, so that commits beside it neither disturb it nor get in.

    Shape:  written beside its place and put there when it is whole and on the disk; an empty file is replaced,
            any other is left alone.
    Raises: `StoreUnavailable`.
    """
    target = Path(destination).expanduser().absolute()
    if target.exists() and target.stat().st_size:
        raise StoreUnavailable(f"{target} exists: name a new file for the backup, or remove that one")
    part = target.with_name(f"{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        _copy(path, str(part))
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    except apsw.FullError as error:  # of a copy SQLite says here: "not an error"
        raise StoreUnavailable(f"backup to {target}: the disk is full") from error
    except apsw.Error as error:
        raise StoreUnavailable(f"backup to {target}: {type(error).__name__}, {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"backup to {target}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _copy(path: str, part: str) -> None:
    source = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        target = apsw.Connection(part)
        try:
            target.pragma("synchronous", "OFF")
            source.execute("BEGIN")
            source.pragma("user_version")
            with target.backup("main", source, "main") as copy:
                while not copy.done:
                    copy.step(PAGES_AT_ONCE)
        finally:
            target.close()
    finally:
        source.close()


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def check_file(path: str) -> list[str]:
    """What is wrong with the file's pages and rows; empty: nothing."""
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise mapped(error, f"{path} cannot be checked") from error
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        return ([] if found == ["ok"] else found) + Reader(connection).altered()
    except apsw.CorruptError as error:
        return [str(error)]
    except apsw.Error as error:
        raise mapped(error, f"{path} cannot be checked") from error
    finally:
        connection.close()
