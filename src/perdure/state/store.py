"""The Store protocol: what every store promises, whatever it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

import msgspec

from perdure.errors import StoreError
from perdure.model.message import AnyMessage
from perdure.model.run import Life, RunRow, Status


class BatchRefused(StoreError):
    """The store refuses something in this batch itself; nothing was written, and other batches may pass."""


class Ref:
    """A run known to a store: its id, and the store's number for it once its start is committed (0 before).

    Shape: `live` belongs to the store: its row there says live, so that an update need not say so again.
    """

    __slots__ = ("id", "live", "no")

    def __init__(self, id: str, no: int = 0) -> None:
        self.id, self.no, self.live = id, no, False


class NewRun(msgspec.Struct, kw_only=True):
    """A run's first row. `drawn`: the id cannot be in use, so no look-up is needed.

    Shape: `request` is kept with the answer in the same commit; empty: the id serves as one, and nothing is kept. A
           run whose row has not been updated yet is queued, at sequence number 0.
    """

    ref: Ref
    workflow: str
    version: str
    definition: str
    input_hash: bytes
    tags: dict[str, str] = {}
    parent: str = ""
    parent_key: str = ""
    source: str = ""
    request: str = ""
    created_at: int = 0
    drawn: bool = False


# (ref, seq, body, chain hash): facts of a run are consecutive and follow its last stored sequence number.
FactRow = tuple[Ref, int, bytes, bytes]
# The last word on a run's row: ref, life, seq, head, asked_n, asked_h, generation, epoch, due, wait, variables,
# outcome, definition, updated_at, ended_at. One a run and batch; `due` is the wait's, `wait` an encoded Wait,
# `variables` and `outcome` encoded JSON.
UpdateRow = tuple[
    Ref, str, int, bytes, int, int, int, int, int | None, bytes, bytes, bytes | None, str, int, int | None
]


class Progress(msgspec.Struct, array_like=True):
    """The last progress that an attempt told."""

    run: str
    key: str
    attempt: int
    at: int
    value: bytes


class Batch:
    """All that one commit writes.

    Shape: `answers` are (request, run id, encoded answer); `blobs` (run, sha-256 hex, bytes); `inbox_done`
           row numbers; `inbox` messages to runs that are not in memory; `snapshots` (run, seq, body), the newest
           replaces the older, an empty body drops it; `progress_done` (run id) drops the progress rows of an ended run;
           `clock` is the engine's time, kept so that it never goes back; `note` this epoch's own remarks;
           `clean` marks a clean stop of this epoch; `restart` a (run, seq): loads begin at this fact from now on, and
           older snapshots are dropped; `progress` of a run that has ended, or is not there, is left out; `remove`
           (run id) removes the run with all the tree of runs below it and leaves tombstones, when the run is a root
           (no parent of it is there) and all of them have ended: else nothing of it (S28).
           Order within a batch: starts, facts, updates, answers, `inbox_done`, `inbox`, the rest.
    """

    __slots__ = (
        "answers", "blobs", "clean", "clock", "facts", "inbox", "inbox_done", "note", "progress",
        "progress_done", "remove", "restart", "snapshots", "starts", "updates",
    )  # fmt: skip

    def __init__(self) -> None:
        self.starts: list[NewRun] = []
        self.facts: list[FactRow] = []
        self.updates: list[UpdateRow] = []
        self.inbox: list[AnyMessage] = []
        self.inbox_done: list[int] = []
        self.answers: list[tuple[str, str, bytes]] = []
        self.blobs: list[tuple[Ref, str, bytes]] = []
        self.progress: list[Progress] = []
        self.progress_done: list[str] = []
        self.snapshots: list[tuple[Ref, int, bytes]] = []
        self.restart: list[tuple[Ref, int]] = []
        self.remove: list[str] = []
        self.clock: int = 0
        self.note: bytes | None = None
        self.clean: bool = False


class Committed(msgspec.Struct):
    """What came of a batch.

    Shape: `refused` are ids of starts whose id was in use, or whose request had an answer already (all that the
           batch says of these runs was left out, the rest is written); the caller reads the row that stands there
           and compares the input's hash.
           `repeated` are requests that had an answer already (that answer stands; a message with such a request,
           or one that is in the inbox already, was left out).
    """

    refused: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()


DONE = Committed()
# The most rows that one `find` gives, whatever was asked for.
PAGE_MAX = 10_000
# What answers a start, kept with its request.
STARTED = b'{"seq":1}'


class Loaded(msgspec.Struct, kw_only=True):
    """A run as the store holds it.

    Shape: `facts` are (seq, body, hash) from the generation's first fact (or the first of all) to the last, or
           those after `snapshot`, which is (seq, body), when one was asked for and exists.
           `damage` says what does not verify in the run's rows (a broken chain, a gap); empty: nothing.
    """

    row: RunRow
    facts: list[tuple[int, bytes, bytes]]
    snapshot: tuple[int, bytes] | None = None
    progress: dict[str, bytes] = {}
    damage: str = ""


class Query(msgspec.Struct, kw_only=True, frozen=True):
    """Which runs to list.

    Shape: every field given must hold; `order` "new" lists the newest start first, "due" the earliest due time
           first (runs without one are left out), "old" the oldest start first; `shards` are of a store of many nodes; `busy` wants runs that have open steps
           or settle, or wait for nothing at all (those asleep on timers, signals or children alone are left out);
           `after` is the last row of the page before; at most `limit` rows.
    """

    ids: tuple[str, ...] | None = None
    status: tuple[Status, ...] | None = None
    life: tuple[Life, ...] | None = None
    workflow: str | None = None
    tags: Mapping[str, str] | None = None
    parent: str | None = None
    input_hash: bytes | None = None
    source: str | None = None
    due_before: int | None = None
    due_after: int | None = None
    busy: bool = False
    shards: tuple[int, ...] | None = None
    ended_before: int | None = None
    roots: bool = False
    order: str = "new"
    after: RunRow | None = None
    limit: int = 100


class InboxRow(msgspec.Struct):
    no: int
    message: AnyMessage


class EpochRow(msgspec.Struct, kw_only=True):
    """One engine's time on the store.

    Shape: `note` is what it remarked last (JSON), `clean` whether it stopped cleanly, `live` whether it runs now; `until`
           is the last time that the store knows of it, where it does not run and that is known (else 0).
    """

    epoch: int
    node: str
    pid: int
    started_at: int
    clean: bool
    note: bytes
    live: bool = False
    until: int = 0


class Store(Protocol):
    """Where the facts are. Every store passes `perdure.testing.conformance`."""

    def commit(self, batch: Batch) -> Committed | Awaitable[Committed]:
        """Write the whole batch in one transaction, or nothing; durable when it returns (or is awaited).

        Shape:  facts of a run are consecutive and follow its last stored sequence number; refs of starts have
                their `no` set when the commit is durable.
        Raises: `StoreUnavailable` nothing was written (disk full, busy); `OutcomeUnknown` it may have been;
                `BatchRefused` nothing was written, and this batch never can be;
                `StoreLost` a sync failed: nothing may be acknowledged any more.
        """

    async def load(self, ids: Sequence[str], *, whole: bool = False, snapshot: bool = False) -> list[Loaded]:
        """The runs with these ids that exist, in the order asked; `whole`: from the first fact of all generations."""

    async def find(self, query: Query) -> list[RunRow]:
        """One page of runs, at most `PAGE_MAX`. Raises: `BadCall` for an order that there is none of."""

    async def inbox(self, after: int, limit: int, shards: Sequence[int] | None = None) -> list[InboxRow]:
        """Messages by number, those after the number `after`, oldest first; fewer than `limit` when there are no more.

        Shape:  `shards` are of a store of many nodes, None: all; one that cannot be read (altered, or of a kind that is not known here) is kept, and left out.
        """

    async def answers(self, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """(run id, answer) of those requests that have been answered."""

    async def blobs(self, hashes: Sequence[str]) -> dict[str, bytes]:
        """Blobs by hash. Raises: `StoreDamaged` when one is missing or does not match its hash."""

    def changed(self) -> bool:
        """Whether another process may have written since the last call; a hint, at most a few microseconds."""

    async def close(self) -> None:
        """Let go of the store; what was not committed is gone."""


class Upkeep(Protocol):
    """What keeps a store healthy; no part of a run's life."""

    async def claim(self, node: str, pid: int, now: int, note: bytes = b"") -> tuple[int, list[EpochRow], int]:
        """Begin an epoch with this note: its number, the newest earlier ones (at most 64, newest first), the last clock.

        Raises: `StoreLocked` when another engine holds the store (after the wait in settings).
        """

    async def epochs(self) -> list[EpochRow]:
        """The newest epochs, newest first, at most 64: those that run now among them."""

    async def backup(self, destination: str) -> None:
        """A consistent copy, made while the store is in use; it opens as a store. No file that holds anything is touched.

        Raises: `StoreUnavailable` when there is such a file, or the copy cannot be written.
        """

    async def check(self) -> list[str]:
        """What is wrong with the store's own structure; empty: nothing."""

    async def sizes(self) -> dict[str, int]:
        """Rows and bytes by name, for `doctor`."""

    async def tombstones(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        """(input hash, outcome) of removed runs."""


class WholeStore(Store, Upkeep, Protocol):
    """What an engine or a client holds: the runs, and what keeps the store healthy."""
