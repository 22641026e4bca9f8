"""Whether a task can commit with the user's own data, and with which database."""

from __future__ import annotations

from typing import Final

from perdure.errors import DefinitionError
from perdure.model.task import TaskSpec
from perdure.model.text import redact

POSTGRES: Final = ("postgresql://", "postgres://")
SQLITE: Final = "sqlite:///"


def check_transaction(spec: TaskSpec) -> None:
    """Raises: `DefinitionError` saying what transaction= takes, or what it does not go with."""
    where, address = f"task {spec.name}", spec.transaction
    if address is False or address is None:
        return
    if address is not True and not _is_address(address):
        said = redact(address) if isinstance(address, str) else address
        raise DefinitionError(
            f"{where}: transaction={said!r}: an address, postgresql://… or sqlite:///FILE.db, or True for the store's own"
        )
    if spec.pool == "process":
        raise DefinitionError(
            f'{where}: transaction= does not go with pool="process": the node decides at its commit whether an attempt '
            "still counts, and a process is out of its reach"
        )
    if spec.at_most_once:
        raise DefinitionError(
            f"{where}: transaction= does not go with at_most_once=True: what is not committed has left nothing, so an "
            "attempt may always be made again; put an effect elsewhere into a step of its own"
        )
    if spec.pool == "thread" and isinstance(address, str) and address.startswith(POSTGRES):
        raise DefinitionError(
            f"{where}: a transaction on PostgreSQL needs an async task, since its connection (asyncpg) is: write async def"
        )


def _is_address(address: object) -> bool:
    if not isinstance(address, str) or "\0" in address:
        return False
    if address.startswith(POSTGRES):
        return True
    file = address.removeprefix(SQLITE)
    return address.startswith(SQLITE) and bool(file) and "?" not in file and file != ":memory:"
