"""What a step leaves beside the user's own rows, in their transaction: its outcome, by which the next attempt knows it."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from perdure.errors import StoreUnavailable


class StepKey(NamedTuple):
    """Which step of which life of a run. Shape: `seed` tells the run from another of the same id, before or elsewhere."""

    run: str
    seed: int
    generation: int
    step: str

    def number(self) -> int:
        """64 bits that stand for it, signed: what a lock is named by."""
        text = "\0".join(map(str, self)).encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


class NotYet(StoreUnavailable):
    """The database gives no transaction now, and nothing was tried: it is asked again."""
