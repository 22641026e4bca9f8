"""The reference store: plain dictionaries, written to be obviously right; what it holds goes with its process."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import msgspec

from perdure.errors import BadCall
from perdure.model.fact import CHAIN_START
from perdure.model.message import AnyMessage, Start, decode_message, encode_message
from perdure.model.run import NO_WAIT, Life, RunRow, Wait
from perdure.state.blobs import checked
from perdure.state.damage import START, damage_of
from perdure.state.store import (
    PAGE_MAX,
    STARTED,
    Batch,
    BatchRefused,
    Committed,
    EpochRow,
    InboxRow,
    Loaded,
    NewRun,
    Progress,
    Query,
    Ref,
    UpdateRow,
)

EPOCHS_SHOWN = 64
_wait = msgspec.json.Decoder(Wait).decode


class _Run:
    """One run. Shape: fact number n stands at `facts[n - 1]`; `start_at` is the fact at which loads begin."""

    def __init__(self, row: RunRow) -> None:
        self.row = row
        self.facts: list[tuple[int, bytes, bytes]] = []
        self.start_at = 1
        self.snapshot: tuple[int, bytes] | None = None
        self.due: int | None = None
        self.blobs: set[str] = set()


class MemoryStore:
    """Shape: `epoch` is the one that was claimed last. Closing forgets nothing, so that a test may go on with it."""

    def __init__(self) -> None:
        self.epoch = 0
        self._runs: dict[str, _Run] = {}
        self._last_no = 0
        self._inbox: dict[int, bytes] = {}
        self._last_inbox_no = 0
        self._answers: dict[str, tuple[str, bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._progress: dict[tuple[str, str], Progress] = {}
        self._tombstones: dict[str, tuple[bytes, bytes | None]] = {}
        self._epochs: list[EpochRow] = []
        self._clock = 0

    # --- commit --------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Committed:
        """See `Store.commit`."""
        refused, repeated = self._refused(batch.starts)
        dropped = {start.ref for start in refused}
        self._check(batch, dropped)
        for start in batch.starts:
            if start.ref not in dropped:
                self._start(start)
        ids = frozenset(start.ref.id for start in refused)
        for ref, seq, body, digest in batch.facts:
            if ref not in dropped:
                self._runs[ref.id].facts.append((seq, body, digest))
        for update in batch.updates:
            if update[0] not in dropped:
                self._update(update)
        repeated |= self._messages(batch, ids)
        for ref, blob, data in batch.blobs:
            if ref not in dropped:
                self._blobs.setdefault(blob, data)
                self._runs[ref.id].blobs.add(blob)
        self._marks(batch, dropped)
        self._rest(batch)
        return Committed(ids, frozenset(repeated))

    def _refused(self, starts: list[NewRun]) -> tuple[list[NewRun], set[str]]:
        """The starts that are left out, and the requests among theirs that had an answer."""
        refused, repeated = [], set()
        ids, requests = set[str](), set[str]()
        for start in starts:
            id, request = start.ref.id, start.request
            if request and (request in requests or request in self._answers):
                repeated.add(request)
                refused.append(start)
            elif id in ids or id in self._runs or id in self._tombstones:
                refused.append(start)
            else:
                ids.add(id)
                requests.add(request)
        return refused, repeated

    def _check(self, batch: Batch, dropped: set[Ref]) -> None:
        """Raises: `BatchRefused` for facts that do not follow, or rows of a run that there is none of."""
        new = {start.ref.id for start in batch.starts if start.ref not in dropped}
        said = [
            row[0] for rows in (batch.facts, batch.updates, batch.blobs, batch.snapshots, batch.restart) for row in rows
        ]
        for ref in said:
            if ref not in dropped and ref.id not in new and ref.id not in self._runs:
                raise BatchRefused(f"there is no run {ref.id}")
        last: dict[str, int] = {}
        for ref, seq, _, _ in batch.facts:
            if ref in dropped:
                continue
            if ref.id not in last:
                last[ref.id] = len(self._runs[ref.id].facts) if ref.id in self._runs else 0
            if seq != last[ref.id] + 1:
                raise BatchRefused(f"fact {seq} of run {ref.id} does not follow fact {last[ref.id]}")
            last[ref.id] = seq

    def _start(self, start: NewRun) -> None:
        self._last_no += 1
        start.ref.no = self._last_no
        row = RunRow(
            id=start.ref.id, no=start.ref.no, workflow=start.workflow, version=start.version,
            definition=start.definition,
            input_hash=start.input_hash, life=Life.QUEUED, seq=0, head=CHAIN_START, asked_n=0, asked_h=0, generation=1,
            epoch=0, wait=NO_WAIT, variables=b"{}", tags=dict(start.tags), outcome=None, parent=start.parent,
            parent_key=start.parent_key, source=start.source, created_at=start.created_at, updated_at=start.created_at,
            ended_at=None,
        )  # fmt: skip
        self._runs[start.ref.id] = _Run(row)
        if start.request:
            self._answers[start.request] = (start.ref.id, STARTED)

    def _update(self, update: UpdateRow) -> None:
        (
            ref, life, seq, head, asked_n, asked_h, generation, epoch, due, wait, variables, outcome, definition,
            updated_at, ended_at,
        ) = update  # fmt: skip
        run = self._runs[ref.id]
        run.due = due
        run.row = msgspec.structs.replace(
            run.row, life=Life(life), seq=seq, head=head, asked_n=asked_n, asked_h=asked_h, generation=generation,
            epoch=epoch, wait=_wait(wait), variables=variables, outcome=outcome, definition=definition,
            updated_at=updated_at, ended_at=ended_at,
        )  # fmt: skip

    def _messages(self, batch: Batch, refused: frozenset[str]) -> set[str]:
        """Answers, then rows that are done, then new messages; the requests that are there already."""
        started = {start.ref.id for start in batch.starts if self._stands(start)}
        repeated = set()
        for request, run, answer in batch.answers:
            if run in refused and run not in started:
                continue
            if request in self._answers:
                repeated.add(request)
            else:
                self._answers[request] = (run, answer)
        for no in batch.inbox_done:
            self._inbox.pop(no, None)
        if not batch.inbox:
            return repeated
        waiting = {decode_message(body).request for body in self._inbox.values()} - {""}
        for message in batch.inbox:
            own = isinstance(message, Start) and message.run in started
            if isinstance(message, Start) and message.run in refused and not own:
                continue
            if message.request in waiting or (message.request in self._answers and not own):
                repeated.add(message.request)
                continue
            if message.request:
                waiting.add(message.request)
            self._post(message)
        return repeated

    def _stands(self, start: NewRun) -> bool:
        return start.ref.id in self._runs and self._runs[start.ref.id].row.no == start.ref.no

    def _post(self, message: AnyMessage) -> None:
        self._last_inbox_no += 1
        self._inbox[self._last_inbox_no] = encode_message(message)

    def _marks(self, batch: Batch, dropped: set[Ref]) -> None:
        """Snapshots, and where loads begin."""
        for ref, seq, body in batch.snapshots:
            if ref not in dropped:
                self._runs[ref.id].snapshot = (seq, body) if body else None
        for ref, seq in batch.restart:
            if ref in dropped:
                continue
            run = self._runs[ref.id]
            run.start_at = seq
            if run.snapshot is not None and run.snapshot[0] < seq:
                run.snapshot = None

    def _rest(self, batch: Batch) -> None:
        for progress in batch.progress:
            if progress.run in self._runs and self._runs[progress.run].row.ended_at is None:
                self._progress[progress.run, progress.key] = progress
        for run_id in batch.progress_done:
            self._forget_progress(run_id)
        for run_id in batch.remove:
            self._remove(run_id)
        self._clock = max(self._clock, batch.clock)
        if self._epochs:
            if batch.note is not None:
                self._epochs[-1].note = batch.note
            self._epochs[-1].clean = self._epochs[-1].clean or batch.clean

    def _remove(self, root: str) -> None:
        """Remove a tree of runs, all of which have ended; else nothing of it (S28)."""
        top = self._runs.get(root)
        if top is None or top.row.parent in self._runs:
            return
        tree = [root]
        for parent in tree:
            tree.extend(id for id, run in self._runs.items() if run.row.parent == parent)
        if not all(self._runs[id].row.life.ended for id in tree):
            return
        for id in tree:
            row = self._runs.pop(id).row
            self._tombstones[id] = (row.input_hash, row.outcome)
            self._forget_progress(id)
        self._answers = {request: said for request, said in self._answers.items() if said[0] not in tree}
        held = {digest for run in self._runs.values() for digest in run.blobs}
        self._blobs = {digest: data for digest, data in self._blobs.items() if digest in held}

    def _forget_progress(self, run_id: str) -> None:
        self._progress = {at: progress for at, progress in self._progress.items() if progress.run != run_id}

    # --- reading -------------------------------------------------------------------------------------

    async def load(self, ids: Sequence[str], *, whole: bool = False, snapshot: bool = False) -> list[Loaded]:
        """See `Store.load`."""
        return [self._load(self._runs[id], whole, snapshot) for id in dict.fromkeys(ids) if id in self._runs]

    def _load(self, run: _Run, whole: bool, snapshot: bool) -> Loaded:
        first = 1 if whole else run.start_at
        taken = run.snapshot if snapshot and not whole else None
        if taken is not None:
            first = taken[0] + 1
        facts = [fact for fact in run.facts if fact[0] >= first]
        before = (
            START if first == 1 else next(((seq, digest) for seq, _, digest in run.facts if seq == first - 1), None)
        )
        progress = {key: progress.value for (id, key), progress in self._progress.items() if id == run.row.id}
        damage = damage_of(facts, before, (run.row.seq, run.row.head))
        return Loaded(row=copy(run.row), facts=facts, snapshot=taken, progress=progress, damage=damage)

    async def find(self, query: Query) -> list[RunRow]:
        """See `Store.find`."""
        runs = [run for run in self._runs.values() if _fits(run, query)]
        after = query.after
        if query.order == "new":
            runs = [run for run in runs if after is None or run.row.no < after.no]
            runs.sort(key=lambda run: -run.row.no)
        elif query.order == "old":
            runs = [run for run in runs if after is None or run.row.no > after.no]
            runs.sort(key=lambda run: run.row.no)
        elif query.order == "due":
            runs = [run for run in runs if run.due is not None]
            if after is not None:
                runs = [run for run in runs if _due(run) > (after.wait.due or 0, after.no)]
            runs.sort(key=_due)
        else:
            raise BadCall(f'order {query.order!r}: one of "new", "old", "due"')
        return [copy(run.row) for run in runs[: max(0, min(query.limit, PAGE_MAX))]]

    async def inbox(self, after: int, limit: int, shards: Sequence[int] | None = None) -> list[InboxRow]:  # noqa: ARG002
        found = [InboxRow(no, decode_message(body)) for no, body in self._inbox.items() if no > after]
        return found[: max(0, min(limit, PAGE_MAX))]

    async def answers(self, requests: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        return {request: self._answers[request] for request in requests if request in self._answers}

    async def blobs(self, hashes: Sequence[str]) -> dict[str, bytes]:
        found = {digest: self._blobs[digest] for digest in hashes if digest in self._blobs}
        return checked(found, list(hashes))

    async def tombstones(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        return {id: self._tombstones[id] for id in ids if id in self._tombstones}

    def changed(self) -> bool:
        """Never: no other process can write here."""
        return False

    async def close(self) -> None:
        """Nothing is held."""

    # --- upkeep ----------------------------------------------------------------------------------------

    async def claim(self, node: str, pid: int, now: int, note: bytes = b"") -> tuple[int, list[EpochRow], int]:
        """See `Upkeep.claim`. Nobody else can hold it."""
        earlier = [copy(row) for row in reversed(self._epochs[-EPOCHS_SHOWN:])]
        self.epoch += 1
        self._epochs.append(EpochRow(epoch=self.epoch, node=node, pid=pid, started_at=now, clean=False, note=note))
        return self.epoch, earlier, self._clock

    async def epochs(self) -> list[EpochRow]:
        """See `Upkeep.epochs`. The newest runs until it has stopped: nobody else could tell."""
        found = [copy(row) for row in reversed(self._epochs[-EPOCHS_SHOWN:])]
        if found:
            found[0].live = not found[0].clean
            found[0].until = 0 if found[0].live else self._clock
        return found

    async def backup(self, destination: str) -> None:
        """Raises: `BadCall`: what is kept in memory only has no file to be copied to."""
        raise BadCall(
            f'a store "memory:" cannot be copied to {destination}: open a "sqlite:///…" store to keep what it holds'
        )

    async def check(self) -> list[str]:
        loaded = await self.load(list(self._runs), whole=True)
        return [f"run {one.row.id}: {one.damage}" for one in loaded if one.damage]

    async def sizes(self) -> dict[str, int]:
        return {
            "runs": len(self._runs),
            "facts": sum(len(run.facts) for run in self._runs.values()),
            "inbox": len(self._inbox),
            "requests": len(self._answers),
            "blobs": len(self._blobs),
            "blob_bytes": sum(len(data) for data in self._blobs.values()),
            "snapshots": sum(1 for run in self._runs.values() if run.snapshot is not None),
            "tombstones": len(self._tombstones),
        }


def _due(run: _Run) -> tuple[int, int]:
    return run.due or 0, run.row.no


def _fits(run: _Run, query: Query) -> bool:
    """Whether every field of the query that is given holds."""
    row, due = run.row, run.due
    return (
        _is(row.id, query.ids)
        and _is(row.status, query.status)
        and _is(row.life, query.life)
        and (query.workflow is None or row.workflow == query.workflow)
        and all(row.tags.get(key) == value for key, value in (query.tags or {}).items())
        and (query.parent is None or row.parent == query.parent)
        and (query.input_hash is None or row.input_hash == query.input_hash)
        and (query.source is None or row.source == query.source)
        and (query.due_before is None or (due is not None and due <= query.due_before))
        and (query.due_after is None or (due is not None and due > query.due_after))
        and (query.ended_before is None or (row.ended_at is not None and row.ended_at <= query.ended_before))
        and not (query.roots and row.parent)
        and not (query.busy and not _busy(row, due))
    )


def _is(value: Any, wanted: Sequence[Any] | None) -> bool:
    return wanted is None or value in wanted


def _busy(row: RunRow, due: int | None) -> bool:
    wait = row.wait
    idle = due is None and not wait.signals and not wait.children
    return row.life is Life.LIVE and (wait.open > 0 or wait.settling or idle)
