"""What follows from a failed attempt: another one, or the end of the step."""

from __future__ import annotations

import msgspec

from perdure.model.command import Activity
from perdure.model.failure import Failure

# A step that ended so may have had its effect: its compensation runs, with UNKNOWN as the result.
DOUBTFUL = frozenset({"timeout", "heartbeat", "deadline", "lost", "unknown"})


def retry_at(step: Activity, failure: Failure, error: BaseException | None, now: int, seed: int) -> int | None:
    """When the next attempt is due; None: the step has failed for good.

    Shape: `error` is the live exception where there is one; timeouts and lost workers count as worth a retry.
    Units: microseconds since 1970 UTC.
    """
    if error is not None and not step.spec.retry.allows(error):
        return None
    if failure.kind in {"deadline", "cancelled", "refused"}:
        return None
    chance = f"{seed}\0{step.generation}\0{step.key}\0{step.attempt}".encode()
    delay = step.spec.retry.delay_us(step.attempt - step.forgiven, chance)
    if delay is None:
        return None
    if failure.retry_after_us is not None:
        delay = max(delay, failure.retry_after_us)
    due = now + delay
    if step.spec.deadline_us is not None and due >= step.asked_at + step.spec.deadline_us:
        return None
    return due


def final(step: Activity, failure: Failure) -> Failure:
    """The failure as the step's outcome: with the number of attempts and the step's key."""
    return msgspec.structs.replace(failure, attempts=step.attempt, step=step.key)
