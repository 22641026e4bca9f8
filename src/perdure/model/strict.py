"""JSON from outside, read strictly; one spelling for what is the same; references to blobs."""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from typing import Any, Final, NoReturn

import msgspec

from perdure.errors import BadArgument, TooLarge
from perdure.model.values import deeper_than

OUTSIDE_DEPTH_MAX: Final = 64  # people and programs write no deeper JSON by hand
BLOB_MIN_DEFAULT: Final = 256 << 10
INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
# Our own encodings are compact: no value that we encoded begins with a brace and a space.
_BLOB: Final = b'{ "$blob": "'


def strict_json(text: str | bytes, what: str, limit: int) -> Any:
    """The value of JSON text that a person or another program wrote.

    Raises: `TooLarge` over `limit` bytes, else `BadArgument` naming `what` and what is wrong with it.
    """
    size = len(text) if len(text) > limit or isinstance(text, bytes) else len(text.encode("utf-8", "replace"))
    if size > limit:
        raise TooLarge(what, size, limit)
    try:
        known = text.decode() if isinstance(text, bytes) else text
        if deeper_than(known.encode(), OUTSIDE_DEPTH_MAX):
            raise ValueError(f"nests deeper than {OUTSIDE_DEPTH_MAX} levels")
        value = _LOADER.decode(known)
        msgspec.json.encode(value)  # finds lone surrogates that came as \\ud800
    except UnicodeDecodeError as error:
        raise BadArgument(f"{what} is not UTF-8 (at byte {error.start})") from None
    except UnicodeEncodeError:
        raise BadArgument(f"{what} holds a lone surrogate, which is no character") from None
    except json.JSONDecodeError as error:
        raise BadArgument(f"{what} is not JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadArgument(f"{what}: {error}") from None
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > 20 or not INT_MIN <= int(digits) <= INT_MAX:
        raise ValueError(
            f"the number {digits[:24]}{'...' if len(digits) > 24 else ''} has more than 64 bits: write it as text"
        )
    return int(digits)


def _real(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits[:24]} is too large")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_LOADER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_whole, parse_float=_real, parse_constant=_no_number
)


# --- one spelling ----------------------------------------------------------------------------------


def _number(digits: str) -> float | int:
    """The same number is spelled the same: 1.0 and 1e0 as 1."""
    number = float(digits)
    return int(number) if number.is_integer() and INT_MIN <= number <= INT_MAX else number


_decode_numbers = msgspec.json.Decoder(float_hook=_number).decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


def canonical(raw: bytes | msgspec.Raw) -> bytes:
    """The one spelling of a JSON value: compact, keys sorted at all depths, whole numbers without a fraction.

    Raises: `BadArgument` when it is no JSON.
    """
    try:
        return _encode_sorted(_decode_numbers(raw))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadArgument(f"not JSON that can be kept: {error}") from None


def input_hash(raw: bytes | msgspec.Raw) -> bytes:
    """16 bytes that are the same for the same input (S23)."""
    return blake2b(canonical(raw), digest_size=16).digest()


# --- blobs -------------------------------------------------------------------------------------------


def blob_ref(sha256_hex: str, size: int) -> bytes:
    """What stands for a value that is kept as a blob."""
    return b'%b%b", "size": %d }' % (_BLOB, sha256_hex.encode(), size)


def is_blob(raw: bytes | msgspec.Raw) -> bool:
    """Whether this stands for a blob."""
    return bytes(memoryview(raw)[: len(_BLOB)]) == _BLOB


def blob_hash(raw: bytes | msgspec.Raw) -> str:
    """The SHA-256 of the blob, in hexadecimal."""
    assert is_blob(raw)
    return bytes(memoryview(raw)[len(_BLOB) : len(_BLOB) + 64]).decode()
