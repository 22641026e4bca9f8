"""Blobs are known by the SHA-256 of their bytes."""

from __future__ import annotations

from hashlib import sha256

from perdure.errors import StoreDamaged


def blob_hash_of(data: bytes) -> str:
    """64 hexadecimal digits."""
    return sha256(data).hexdigest()


def checked(found: dict[str, bytes], wanted: list[str]) -> dict[str, bytes]:
    """Raises: `StoreDamaged` when a blob is missing or does not match its hash."""
    for digest in wanted:
        if digest not in found:
            raise StoreDamaged(f"blob {digest} is missing")
        if blob_hash_of(found[digest]) != digest:
            raise StoreDamaged(f"blob {digest} does not match its hash")
    return found
