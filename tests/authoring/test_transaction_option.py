"""What `transaction=` takes, and what it does not go with."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import task
from perdure.errors import DefinitionError

ORDERS = "sqlite:///orders.db"


@task(transaction=ORDERS)
def booking() -> None: ...


def plain() -> None: ...
async def on_a_loop() -> None: ...


@pytest.mark.parametrize(
    "fn, options, said",
    [
        (plain, {"transaction": "mysql://x:secret@y/z"}, r"mysql://x:\*\*\*@y/z.*: an address, postgresql://"),
        (plain, {"transaction": "sqlite:///"}, "an address"),
        (plain, {"transaction": "sqlite:///:memory:"}, "an address"),
        (plain, {"transaction": 7}, "transaction=7"),
        (plain, {"transaction": "postgresql://h/d"}, "write async def"),
        (plain, {"transaction": ORDERS, "pool": "process"}, "out of its reach"),
        (on_a_loop, {"transaction": True, "at_most_once": True}, "may always be made again"),
    ],
)
def test_what_does_not_go_together_is_refused_at_definition(fn: Any, options: dict[str, Any], said: str) -> None:
    """Goal: each refusal names the reason and what to write instead; no password is shown."""
    with pytest.raises(DefinitionError, match=said):
        task(**options)(fn)


def test_the_database_of_a_task_is_not_changed_for_a_call() -> None:
    """Goal: attempts of one step look for its outcome in one place."""
    with pytest.raises(DefinitionError, match="belongs to the task"):
        booking.options(transaction="sqlite:///other.db")
    assert booking.options(timeout="5s").transaction == ORDERS
