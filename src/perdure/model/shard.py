"""Shards: the parts in which a cluster's nodes share the runs of a store (D4)."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

SHARDS = 64


@lru_cache(maxsize=65_536)
def shard_of(run_id: str) -> int:
    """The shard of a run, for ever the same: by the hash of its id alone."""
    return int.from_bytes(blake2b(run_id.encode(), digest_size=8).digest(), "big") % SHARDS
