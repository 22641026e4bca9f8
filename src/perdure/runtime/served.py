"""Attempts that commit in a database that is served: all that is said to it is waited for on the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from perdure.errors import OutcomeUnknown
from perdure.runtime.hold import hold_of, key_of, settled_before
from perdure.state.outcomes import NotYet, StepKey

if TYPE_CHECKING:
    from perdure.runtime.attempt import Attempt

log = logging.getLogger("perdure.pools")
# A server that is away is asked again after so long, at first and at most. Units: seconds.
ASK_FIRST_S, ASK_MAX_S = 0.05, 1.0
# So many times a server may be away before it is spoken of.
QUIET: Final = 5


async def make(attempt: Attempt, database: Any, driven: Awaitable[Any], payload_max: int) -> None:
    """Make an attempt. Raises: what its code raises, or what the server says; nothing of it is kept then."""
    hold, key = hold_of(attempt), key_of(attempt)
    transaction, found = await _looked(database, key)
    try:
        if hold.take(transaction) and not settled_before(attempt, found):
            hold.connection = transaction.connection
            attempt.succeed(await driven, payload_max)
            await _commit(attempt, database, transaction)
    finally:
        hold.connection = None
        await transaction.close()


async def _looked(database: Any, key: StepKey) -> tuple[Any, bytes | None]:
    """A transaction, and what an earlier attempt left: as soon as the server can be had."""
    pause_s, tries = ASK_FIRST_S, 0
    while True:
        try:
            transaction = await database.begin(key)
            try:
                return transaction, await transaction.look(key)
            except BaseException:
                await transaction.close()
                raise
        except NotYet as error:
            tries += 1
            if tries == QUIET:
                log.warning("step %s of run %s waits for its database: %s", key.step, key.run, error)
        await asyncio.sleep(pause_s)
        pause_s = min(ASK_MAX_S, pause_s * 2)


async def _commit(attempt: Attempt, database: Any, transaction: Any) -> None:
    """Commit what the attempt did with its outcome, if it still counts."""
    result, key = attempt.result, key_of(attempt)
    if result is None:
        return
    attempt.result = None
    await transaction.keep(key, attempt.number, result)
    if not hold_of(attempt).seal():
        return
    try:
        await transaction.commit()
    except OutcomeUnknown:
        # Nothing else may be said of the step before this is known, however long the server is away.
        await transaction.close()
        again, found = await _looked(database, key)
        await again.close()
        if found is None:
            raise
    attempt.result = result
