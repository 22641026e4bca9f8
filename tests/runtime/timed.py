"""What the tests of attempts read from a history."""

from __future__ import annotations

from perdure.model import fact as f
from perdure.testing import World


def failed(world: World, run: str = "r") -> list[tuple[int, str, float | None]]:
    """The recorded failures: attempt, kind, and the delay until the next one in seconds."""
    facts = [fact for fact in world.history(run) if isinstance(fact, f.AttemptFailed)]
    return [
        (fact.attempt, fact.failure.kind, None if fact.retry_at is None else (fact.retry_at - fact.at) / 1e6)
        for fact in facts
    ]
