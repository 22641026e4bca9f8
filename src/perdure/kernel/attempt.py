"""What follows from a failed attempt: another one, or the end of the step."""

from __future__ import annotations

import msgspec

from perdure.model.command import Activity
from perdure.model.failure import Failure

# A step that ended so may have had its effect: its compensation runs, with UNKNOWN as the result.
DOUBTFUL = frozenset({"timeout", "heartbeat", "deadline", "lost", "unknown"})


def retry_at(step: Activity, failure: Failure, now: int, seed: int, *, allowed: bool) -> int | None:
    """When the next attempt is due; None: the step has failed for good.

    Shape: `allowed` when its policy retries this exception; timeouts and lost workers are worth a retry.
    Units: microseconds since 1970 UTC.
    """
    if not allowed or failure.kind in {"deadline", "cancelled", "refused"}:
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
