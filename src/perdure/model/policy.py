"""How often, how long and how many: the policies a task may carry."""

from __future__ import annotations

from datetime import timedelta
from hashlib import blake2b

import msgspec

from perdure.errors import DefinitionError
from perdure.model.duration import Duration, duration_us

JITTER_RANGE = 1 << 64


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often a failed attempt is made again.

    Shape: `attempts` counts all attempts, the first among them. The delay before attempt n+1 is drawn
           evenly from 0 to min(max, first * factor**(n-1)) with full jitter, or is that bound without.
    Source: full jitter after M. Brooker, "Exponential Backoff and Jitter" (AWS, 2015).
    """

    attempts: int = 3
    first: Duration = timedelta(seconds=1)
    factor: float = 2.0
    max: Duration = timedelta(minutes=1)
    jitter: bool = True
    on: tuple[type[BaseException], ...] = (Exception,)
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise DefinitionError(f"Retry(attempts={self.attempts!r}): at least 1")
        if not self.factor >= 1:
            raise DefinitionError(f"Retry(factor={self.factor!r}): at least 1")
        first, most = (duration_us(getattr(self, name), f"Retry({name}=)") for name in ("first", "max"))
        if first > most:
            raise DefinitionError(f"Retry(first={self.first!r}): longer than max={self.max!r}; give max= too")
        for name in ("on", "never"):
            _check_types(getattr(self, name), f"Retry({name}=)")

    def delay_us(self, failures: int, chance: bytes) -> int | None:
        """The wait in microseconds after the `failures`-th failed attempt; None: no more attempts.

        `chance` makes the jitter: the same bytes give the same delay.
        """
        if failures >= self.attempts:
            return None
        bound = min(duration_us(self.max), duration_us(self.first) * self.factor ** min(failures - 1, 1000))
        if not self.jitter:
            return int(bound)
        draw = int.from_bytes(blake2b(chance, digest_size=8).digest(), "little")
        return int(bound) * draw // JITTER_RANGE

    def allows(self, error: BaseException) -> bool:
        """Whether this exception is one to retry, by its type, as `except` looks."""
        kind = type(error)
        return issubclass(kind, self.on) and not issubclass(kind, self.never)


def _check_types(given: object, what: str) -> None:
    """Raises: `DefinitionError` for what `isinstance` would refuse when an attempt has failed."""
    for kind in given if isinstance(given, tuple) else (given,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise DefinitionError(f"{what} takes exception types, as (ConnectionError,), not {kind!r}")


ONCE = Retry(attempts=1)
