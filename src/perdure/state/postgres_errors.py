"""What PostgreSQL says, in the words of the Store protocol."""

from __future__ import annotations

import asyncpg

from perdure.errors import NotAStore, OutcomeUnknown, PerdureError, StoreDamaged, StoreLost, StoreUnavailable
from perdure.state.store import BatchRefused

# SQLSTATE classes after which nothing was written, and the same may pass later.
_LATER = {"08", "40", "53", "55", "57", "58"}
# A statement that was cancelled, and a server that takes none yet: nothing was written for certain.
_UNDONE = {"57014", "57P03"}
_RIGHTS = (StoreUnavailable, "look at the user, the password and the rights in the store's address")
_NO_STORE = (NotAStore, "what stands there is no perdure store, or not all of one")
_KNOWN: dict[str, tuple[type[PerdureError], str]] = {
    "PE001": (StoreLost, "its lease ran out and other nodes took over, so this one stops"),
    "25006": (StoreUnavailable, "the server is read-only, it may be a standby"),
    **dict.fromkeys(("28000", "28P01", "42501", "3D000"), _RIGHTS),
    **dict.fromkeys(("42P01", "42883", "42703", "3F000"), _NO_STORE),
}
BROKEN = (OSError, TimeoutError, EOFError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)


def mapped(error: BaseException, doing: str, *, sent: bool = False) -> PerdureError:
    """The error for a caller. `doing` begins the message; `sent`: a commit was under way, and may have taken place."""
    if isinstance(error, PerdureError):
        return error
    code = getattr(error, "sqlstate", None) or ""
    text = f"{doing}: {str(error) or type(error).__name__}"
    if sent and code not in _UNDONE and (isinstance(error, BROKEN) or code[:2] in {"08", "57"}):
        return OutcomeUnknown(f"{text}: whether it was written is not known")
    if code in _KNOWN:
        kind, advice = _KNOWN[code]
        return kind(f"{text}: {advice}")
    if isinstance(error, BROKEN) or code[:2] in _LATER:
        return StoreUnavailable(text)
    return StoreDamaged(f"{text}: restore a backup") if code[:2] == "XX" else BatchRefused(text)
