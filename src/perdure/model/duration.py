"""Durations: a timedelta, or text ("30s", "1h30m", "3d", "PT5M"), or a number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache

from perdure.errors import BadDuration

Duration = timedelta | str | int | float

DURATION_MAX = timedelta(days=36525)
_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)\s*")
_ISO = re.compile(
    r"P(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_HINT = 'give a timedelta, seconds, or text such as "30s", "5m", "1h30m", "3d" or "PT5M"'


def duration_us(value: Duration, what: str = "duration") -> int:
    """The duration in whole microseconds, 0 to 100 years.

    Raises: `BadDuration` naming `what`.
    """
    if isinstance(value, str):
        micros = _from_text(value, what)
    elif isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
        micros = round(value * 1_000_000)
    else:
        raise BadDuration(f"{_said(what, value)} is no duration: {_HINT}")
    if not 0 <= micros <= DURATION_MAX // timedelta(microseconds=1):
        raise BadDuration(f"{_said(what, value)} is not between 0 and 100 years: {_HINT}")
    return micros


def _said(what: str, value: object) -> str:
    """What was given, and for what: `timeout='3x'` or `Retry(first='3x')` for a parameter, `advance: '3x'` else."""
    if what.endswith(("=", "=)")):
        return f"{what.removesuffix(')')}{value!r}{')' * what.endswith(')')}"
    return f"{what}: {value!r}"


@lru_cache(maxsize=1024)
def _from_text(text: str, what: str) -> int:
    stripped = text.strip()
    iso = _ISO.fullmatch(stripped)
    if iso and any(iso.groups()) and not stripped.endswith("T"):
        return round(sum(float(n) * _UNITS[u] for n, u in zip(iso.groups(), "wdhms", strict=True) if n))
    micros, end = 0.0, 0
    while end < len(stripped) and (part := _PART.match(stripped, end)):
        micros += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if not stripped or end != len(stripped):
        raise BadDuration(f"{_said(what, text)} is no duration: {_HINT}")
    return round(micros)


def say_us(micros: int) -> str:
    """A duration in microseconds for people: "1h 30m", "2.5s", "120ms"."""
    if micros < 1_000_000:
        return f"{micros / 1000:.3g}ms"
    if micros < 60_000_000:
        return f"{micros / 1e6:.3g}s"
    parts, left = [], micros // 1_000_000
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
