"""Batches made by hand: the rows that an engine would write, for tests of stores."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.fact import CHAIN_START, chain
from perdure.model.run import Life, Wait
from perdure.state.store import Batch, NewRun, Ref

encode = msgspec.json.Encoder().encode
# A moment for everything that a test has no wish for. Units: microseconds since 1970 UTC.
NOON = 1_767_268_800_000_000


class HandRun:
    """One run as it is written by hand: its ref, and where its history stands.

    Shape: `live` and the other fields are what the last `update` said; each call adds to the batch it is given.
    """

    def __init__(self, id: str, **fields: Any) -> None:
        self.ref = Ref(id)
        self.fields = fields
        self.seq, self.head = 0, CHAIN_START

    @property
    def id(self) -> str:
        return self.ref.id

    def start(self, batch: Batch) -> HandRun:
        """Add the run's first row."""
        given: dict[str, Any] = {
            "workflow": "wf", "version": "1", "definition": "d1", "input_hash": b"input", "created_at": NOON,
        } | self.fields  # fmt: skip
        batch.starts.append(NewRun(ref=self.ref, **given))
        return self

    def facts(self, batch: Batch, *bodies: bytes) -> HandRun:
        """Add facts that follow those before."""
        for body in bodies:
            self.seq += 1
            self.head = chain(self.head, body)
            batch.facts.append((self.ref, self.seq, body, self.head))
        return self

    def update(
        self, batch: Batch, life: str = "live", *, wait: Wait | None = None, outcome: bytes | None = None,
        variables: bytes = b"{}", at: int = NOON, generation: int = 1, asked_h: int = 0, definition: str = "d1",
    ) -> HandRun:  # fmt: skip
        """Add the last word on the run's row. An open step is waited for unless `wait` says otherwise."""
        ended = Life(life).ended
        if life != "live":
            said, due = b"[]", None
        else:
            wait = wait if wait is not None else Wait(open=1)
            said, due = encode(wait), wait.due
        batch.updates.append(
            (
                self.ref, life, self.seq, self.head, self.seq, asked_h, generation, 1, due, said, variables, outcome,
                definition, at, at if ended else None,
            )
        )  # fmt: skip
        return self


def body_of(number: int, size: int = 40) -> bytes:
    """The body of a fact: JSON, about so many bytes, told from others by its number."""
    return encode(["test", number, "x" * max(0, size - 16)])
