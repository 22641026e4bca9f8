"""What an attempt with a transaction has beside others: whether it may still commit, decided once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from perdure.model.failure import Failure
from perdure.state.gate import Gate, Place
from perdure.state.outcomes import StepKey

if TYPE_CHECKING:
    from perdure.runtime.attempt import Attempt

log = logging.getLogger("perdure.pools")


class Hold:
    """Whether an attempt may still commit, and the seed of its run.

    Shape: `connection` is what its code is given; `expired` when the step's deadline was over before it began, so that
           only an earlier outcome counts.
    """

    __slots__ = ("_lock", "connection", "expired", "over", "place", "sealed", "seed", "transaction")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._lock = threading.Lock()
        self.sealed = self.over = self.expired = False
        self.connection: Any = None
        self.transaction: Any = None
        self.place: tuple[Gate, Place] | None = None

    def take(self, transaction: Any) -> bool:
        """It has begun. False: too late, it is to be closed."""
        with self._lock:
            if not self.over:
                self.transaction = transaction
            return not self.over

    def seal(self) -> bool:
        """Decide that it commits. False: it is over, and must not."""
        with self._lock:
            self.sealed = not self.over
            return self.sealed

    def revoke(self) -> bool:
        """Decide that it does not commit. False: it does."""
        with self._lock:
            if not self.sealed:
                self.over = True
            return self.over

    def let_go(self) -> None:
        """Its turn at the file is over."""
        if self.place is not None:
            gate, place = self.place
            gate.leave(place)


def hold_of(attempt: Attempt) -> Hold:
    assert attempt.hold is not None
    return attempt.hold


def key_of(attempt: Attempt) -> StepKey:
    return StepKey(attempt.run_id, hold_of(attempt).seed, attempt.generation, attempt.key)


def settled_before(attempt: Attempt, found: bytes | None) -> bool:
    """Whether nothing is to be run: an earlier attempt has committed, or the deadline was over before this one began."""
    if found is None and not hold_of(attempt).expired:
        return False
    if attempt.done or attempt.left:
        return True
    if found is not None:
        log.info("step %s of run %s was committed by an earlier attempt", attempt.key, attempt.run_id)
        attempt.result = found
    else:
        seconds = (attempt.spec.deadline_us or 0) / 1e6
        attempt.failure = Failure("TimeoutError", f"the step's deadline of {seconds:g}s is over", "deadline")
    return True
