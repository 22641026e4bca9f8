"""What steps did, under which idempotency key, and which are to fail; forgotten before each test."""

from __future__ import annotations

import perdure

LOG: list[tuple[str, str]] = []
BROKEN: set[str] = set()


def do(what: str) -> str:
    """Note that a step did this; it fails where that is broken."""
    LOG.append((what, perdure.idempotency_key()))
    if what in BROKEN:
        raise ValueError(f"{what} is broken")
    return what


def keys_of(what: str) -> list[str]:
    """The idempotency keys under which it was done."""
    return [key for name, key in LOG if name == what]


def forget() -> None:
    """Nothing was done, and nothing is broken."""
    LOG.clear()
    BROKEN.clear()
