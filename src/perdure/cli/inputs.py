"""Values from the command line: JSON, a file of JSON, or stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from perdure.errors import BadArgument, BadCall
from perdure.model.payload import strict_json

LIMIT = 64 << 20


def json_value(text: str, what: str, *, files: bool = True) -> Any:
    """The value of JSON text; `@FILE` reads it from a file, `-` from stdin.

    Raises: `BadCall` for a file that cannot be read; `BadArgument` with a hint where the quotes of a text are missing.
    """
    if files and text == "-":
        return strict_json(sys.stdin.buffer.read(LIMIT + 1), f"{what} (stdin)", LIMIT)
    if files and text.startswith("@"):
        return strict_json(read_file(text[1:]), f"{what} ({text})", LIMIT)
    try:
        return strict_json(text, what, LIMIT)
    except BadArgument as error:
        hint = f"; a text needs quotes of its own: '\"{text}\"'" if text.isalnum() else ""
        raise BadArgument(f"{error}{hint}") from None


def read_file(name: str) -> bytes:
    """Raises: `BadCall` naming the file and why it cannot be read."""
    try:
        with Path(name).expanduser().open("rb") as stream:
            return stream.read(LIMIT + 1)
    except OSError as error:
        raise BadCall(f"{name} cannot be read: {error.strerror}") from None


def by_name(whole: str | None, single: Iterable[str]) -> dict[str, Any]:
    """The input of a run by the names of its parameters: from `--input` and from `-p name=JSON`."""
    found = json_value(whole, "--input") if whole is not None else {}
    if not isinstance(found, dict):
        raise BadCall('--input takes an object of the parameters by name, as {"names": ["Ada"]}')
    for text in single:
        name, value = pair(text, "-p")
        if name in found:
            raise BadCall(f"parameter {name!r} is given twice")
        found[name] = json_value(value, f"-p {name}", files=False)
    return found


def pair(text: str, option: str) -> tuple[str, str]:
    """`name=value` as a pair."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.UsageError(f"{option} takes NAME=VALUE, not {text!r}")
    return name, value


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Several of `name=value`; each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, value = pair(text, option)
        if name in found:
            raise click.UsageError(f"{option} {name} is given twice")
        found[name] = value
    return found
