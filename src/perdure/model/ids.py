"""Ids: their grammar, and how those of steps and children are derived."""

from __future__ import annotations

import re
from base64 import b32encode
from hashlib import blake2b

from perdure.errors import BadId

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def check_id(value: object, what: str = "run id") -> str:
    """Raises: `BadId` when the value is not 1 to 128 letters, digits, '_' or '-'."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise BadId(f"{what} {str(value)[:140]!r}: 1 to 128 letters, digits, '_' and '-'")
    return value


def short_hash(data: bytes, length: int = 16) -> str:
    """`length` lower-case letters and digits (5 bits each) that stand for the data."""
    size = -(-length * 5 // 8)
    return b32encode(blake2b(data, digest_size=size).digest()).decode().lower().rstrip("=")[:length]


def drawn_id(workflow: str, chance: int) -> str:
    """A new run's id: the workflow's name and 60 random bits."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", workflow)[:60].strip("-") or "run"
    return f"{stem}-{short_hash(chance.to_bytes(16, 'little'), 12)}"


def child_id(parent: str, generation: int, key: str, workflow: str) -> str:
    """A child run's id, derived so that asking twice is asking once (S20)."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", workflow)[:60].strip("-") or "run"
    origin = "\0".join((parent, str(generation), key)).encode()
    return f"{stem}-{short_hash(origin, 20)}"


def idempotency_key(run: str, generation: int, key: str) -> str:
    """The same for every attempt of a step; another once the step is made again in a later generation."""
    return f"{run}:{generation}:{key}"
