"""Writing a batch into SQLite: row statements, in a transaction that the store begins and ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from zlib import crc32

import apsw

from perdure.model.message import Start, encode_message
from perdure.state.sql import statements
from perdure.state.sqlite_row import LIVE, crc_of, encode, started, updated
from perdure.state.store import DONE, STARTED, Batch, BatchRefused, Committed, NewRun, Ref


class BatchWriter:
    """Shape: `epoch` is the one that was claimed, 0 for a client; `commits` counts all that the store holds for certain."""

    def __init__(self, db: apsw.Connection, *, engine: bool) -> None:
        self.db, self.engine = db, engine
        self.epoch = 0
        self.commits = 0
        self._counted = 0
        self._sql = statements("sqlite", "write")
        self._last_run = 0
        self._numbered: list[Ref] = []
        self._enlivened: list[Ref] = []

    def write(self, batch: Batch, *, careful: bool = False) -> Committed:
        """All of the batch; `careful`: drawn ids are looked up too.

        Raises: `BatchRefused`, `apsw.Error`; the caller rolls back and calls `undo`.
        """
        dropped, repeated = self._starts(batch.starts, careful) if batch.starts else (set[Ref](), set[str]())
        refused = frozenset(ref.id for ref in dropped)
        self._rows(batch, dropped)
        if batch.answers or batch.inbox or batch.inbox_done:
            repeated |= self._messages(batch, dropped, refused)
        if batch.blobs or batch.snapshots or batch.restart:
            self._attached(batch, dropped)
        if batch.progress or batch.progress_done or batch.remove:
            self._kept(batch)
        if self.engine and batch.note is not None:
            self.db.execute(self._sql["note"], (self.epoch, batch.note))
        if self.engine and batch.clean:
            self.db.execute(self._sql["clean"], (self.epoch,))
        self.pulse(batch.clock if self.engine else 0)
        return Committed(refused, frozenset(repeated)) if refused or repeated else DONE

    def pulse(self, clock: int = 0) -> None:
        """Count the commit, which is yet to come."""
        self._counted = self._value("pulse", clock, self._last_run)

    def claim(self, node: str, pid: int, now: int, note: bytes) -> int:
        """A new epoch."""
        self.epoch = self._value("epoch", node, pid, now, note)
        self.pulse()
        return self.epoch

    def _value(self, statement: str, *bound: Any) -> Any:
        """The only column of the only row."""
        ((value,),) = self.db.execute(self._sql[statement], bound)
        return value

    def done(self) -> None:
        """The transaction is committed."""
        self.commits = self._counted
        for ref in self._enlivened:
            ref.live = True
        self._numbered, self._enlivened = [], []

    def undo(self) -> None:
        """The transaction was rolled back."""
        for ref in self._numbered:
            ref.no = 0
        self._numbered, self._enlivened = [], []

    # --- runs ----------------------------------------------------------------------------------------

    def _starts(self, starts: list[NewRun], careful: bool) -> tuple[set[Ref], set[str]]:
        """Insert the rows of new runs; the refs of those that are left out, and their requests that had an answer."""
        sql = self._sql
        no = last = self._value("last_run")
        answered = self._which("answered", (start.request for start in starts))
        dropped: set[Ref] = set()
        repeated: set[str] = set()
        ids: set[str] = set()
        rows = []
        for start in starts:
            ref, request = start.ref, start.request
            if request and request in answered:
                repeated.add(request)
                dropped.add(ref)
            elif (careful or not start.drawn) and (ref.id in ids or self._used(ref.id)):
                dropped.add(ref)
            else:
                no += 1
                ref.no = no
                self._numbered.append(ref)
                ids.add(ref.id)
                rows.append(started(start, no))
                if request:
                    answered.add(request)
        if rows:
            self._last_run = no
            self.db.executemany(sql["start"], rows)
            self._started([start for start in starts if start.ref not in dropped])
        else:
            self._last_run = last
        return dropped, repeated

    def _used(self, run: str) -> bool:
        return self.db.execute(self._sql["id_used"], (run,)).fetchone() is not None

    def _started(self, starts: list[NewRun]) -> None:
        """Their tags, and the answers to their requests."""
        tags = [(start.ref.no, key, value) for start in starts for key, value in start.tags.items()]
        if tags:
            self.db.executemany(self._sql["tag"], tags)
        self._answers([(start.request, start.ref.id, STARTED) for start in starts if start.request])

    def _answers(self, answers: list[tuple[str, str, bytes]]) -> None:
        if answers:
            self.db.executemany(self._sql["answer"], [(*answer, crc_of(*answer)) for answer in answers])

    def _rows(self, batch: Batch, dropped: set[Ref]) -> None:
        """Facts, and the last word on each run's row."""
        facts, updates = batch.facts, batch.updates
        if dropped:
            facts = [row for row in facts if row[0] not in dropped]
            updates = [row for row in updates if row[0] not in dropped]
        if facts:
            self.db.executemany(self._sql["fact"], [(ref.no, seq, body, digest) for ref, seq, body, digest in facts])
        if not updates:
            return
        live, other = [], []
        for row in updates:
            ref, life = row[0], row[1]
            if life == LIVE and ref.live:
                live.append(updated(row)[:14])
            else:
                other.append(updated(row))
                if life == LIVE:
                    self._enlivened.append(ref)
                ref.live = False
        before = self.db.total_changes()
        if live:
            self.db.executemany(self._sql["update_live"], live)
        if other:
            self.db.executemany(self._sql["update"], other)
        if self.db.total_changes() - before != len(updates):
            raise BatchRefused("a run that the batch updates is not in the store")

    # --- messages --------------------------------------------------------------------------------------

    def _which(self, statement: str, requests: Iterable[str]) -> set[str]:
        """Those of the requests that the statement finds."""
        asked = [request for request in requests if request]
        if not asked:
            return set()
        return {request for (request,) in self.db.execute(self._sql[statement], (encode(asked).decode(),))}

    def _messages(self, batch: Batch, dropped: set[Ref], refused: frozenset[str]) -> set[str]:
        """Answers, then rows that are done, then new messages; the requests that are there already."""
        sql, many = self._sql, self.db.executemany
        started_here = {start.ref.id for start in batch.starts if start.ref not in dropped}
        answers = [row for row in batch.answers if row[1] not in refused or row[1] in started_here]
        asked = [row[0] for row in answers] + [message.request for message in batch.inbox]
        answered = self._which("answered", asked)
        repeated: set[str] = set()
        fresh = []
        for row in answers:
            if row[0] in answered:
                repeated.add(row[0])
            else:
                answered.add(row[0])
                fresh.append(row)
        self._answers(fresh)
        if batch.inbox_done:
            many(sql["inbox_done"], [(no,) for no in batch.inbox_done])
        if not batch.inbox:
            return repeated
        waiting = self._which("waiting", (message.request for message in batch.inbox))
        rows = []
        for message in batch.inbox:
            request = message.request
            own = isinstance(message, Start) and message.run in started_here
            if isinstance(message, Start) and message.run in refused and not own:
                continue
            if request and (request in waiting or (request in answered and not own)):
                repeated.add(request)
                continue
            if request:
                waiting.add(request)
            body = encode_message(message)
            rows.append((message.run, request or None, body, crc32(body)))
        many(sql["inbox"], rows)
        return repeated

    # --- what hangs on runs ------------------------------------------------------------------------------

    def _attached(self, batch: Batch, dropped: set[Ref]) -> None:
        """Blobs, snapshots, and where loads begin."""
        sql, many = self._sql, self.db.executemany
        blobs = [row for row in batch.blobs if row[0] not in dropped]
        if blobs:
            many(sql["blob"], [(digest, data) for _, digest, data in blobs])
            many(sql["blob_ref"], [(_no(ref), digest) for ref, digest, _ in blobs])
        said = [row for row in batch.snapshots if row[0] not in dropped]
        if said:
            many(sql["snapshot"], [(_no(ref), seq, body, crc32(body, seq)) for ref, seq, body in said])
            many(sql["remove_snapshots"], [(ref.no,) for ref, _, body in said if not body])
        restart = [(_no(ref), seq) for ref, seq in batch.restart if ref not in dropped]
        if restart:
            many(sql["restart"], restart)
            many(sql["snapshot_outdated"], restart)

    def _kept(self, batch: Batch) -> None:
        """Progress, and what is removed."""
        sql, many = self._sql, self.db.executemany
        if batch.progress:
            rows = [(p.run, p.key, p.attempt, p.at, p.value) for p in batch.progress]
            many(sql["progress"], [(*row, crc_of(*row[:3], row[4])) for row in rows])
        if batch.progress_done:
            many(sql["progress_done"], [(run,) for run in batch.progress_done])
        for root in batch.remove:
            self._remove(root)

    def _remove(self, root: str) -> None:
        """Remove a tree of runs, all of which have ended; else nothing of it (S28)."""
        sql, many = self._sql, self.db.executemany
        tree = list(self.db.execute(sql["tree"], (root,)))
        if not all(row[2] for row in tree):
            return
        nos, ids = [row[:1] for row in tree], [row[1:2] for row in tree]
        many(sql["tombstone"], [(id, *left, crc_of(id, *left)) for _, id, _, *left in tree])
        for name in ("remove_facts", "remove_tags", "remove_snapshots", "remove_run"):
            many(sql[name], nos)
        for name in ("remove_requests", "progress_done"):
            many(sql[name], ids)
        held: list[Any] = []
        for no in nos:
            held.extend(self.db.execute(sql["remove_refs"], no))
        many(sql["remove_blob"], held)


def _no(ref: Ref) -> int:
    """Raises: `BatchRefused` for a run that was never started."""
    if not ref.no:
        raise BatchRefused(f"there is no run {ref.id}")
    return ref.no
