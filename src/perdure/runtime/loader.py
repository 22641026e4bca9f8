"""Bringing runs back into memory: from a snapshot, then the store, then rebuilt from history.

Loads go in bounded groups beside the queue, never in front of it (S15). What waited for a run, and the timers
that are due, are folded in the order of their times (S11).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.errors import (
    IdInUse,
    NonDeterminism,
    PerdureError,
    StoreDamaged,
    StoreError,
    StoreLost,
    UnknownRun,
    WrongState,
)
from perdure.kernel.decider import Trouble
from perdure.kernel.forced import Forced
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.command import StartChild
from perdure.model.run import Life, RunRow
from perdure.runtime.attempt import Attempt
from perdure.runtime.definitions import bind_kept
from perdure.runtime.live import Ended, LiveRun
from perdure.runtime.outage import lose, replies
from perdure.runtime.recovery import Recovery, ended_child, from_snapshot, rebuild, whole_outcome
from perdure.runtime.replay import Attention, blobs_of, check_frontier, decode, fill, make
from perdure.runtime.revive import Revive
from perdure.runtime.snapshots import plan_next
from perdure.runtime.work import Install, Item
from perdure.state.store import BatchRefused, Loaded, Query

if TYPE_CHECKING:
    from perdure.runtime.node import Node
    from perdure.runtime.suspects import Suspects

log = logging.getLogger("perdure.loader")
GROUP = 100
# How long a group may replay before the loop gets a turn. Units: seconds.
SLICE_S = 0.01
RETRY_S = 0.2


class Loader:
    """Loads what is asked for, group by group.

    Shape: `wanted` holds, by run id, what waits for a run that is not in memory: messages and attempts that ended.
    """

    def __init__(self, node: Node, clean: Iterable[int], name: str) -> None:
        self.node = node
        self.clean = set(clean)
        self.name = name
        self.wanted: dict[str, list[Any]] = {}
        self.task: asyncio.Task[None] | None = None
        self.kept_back: set[str] = set()
        self.aside: set[asyncio.Task[None]] = set()  # runs that are being set aside
        self.seen: set[int] = set()  # inbox rows that are being folded: the sweep's
        self.unserved: set[str] = set()
        self.unsnapped: set[str] = set()
        self.suspects: Suspects
        self.recovery = Recovery(self)
        self.revive = Revive(self)
        node.on_load = self

    def __call__(self, run_id: str, entry: Any) -> None:
        """Ask for a run, with something that waits for it."""
        waiting = self.wanted.setdefault(run_id, [])
        if entry is not None:
            waiting.append(entry)
        self.retry()

    def retry(self) -> None:
        """Go on loading, when there is something to load and the store takes calls."""
        if self.wanted and self.task is None and self.node.failed is None and self.node.lost is None:
            self.task = self.node.loop.create_task(self._work(), name="perdure-loader")

    def given_up(self) -> list[asyncio.Future[Any]]:
        """Nothing is loaded any more: forget what is wanted, and give those who wait for it."""
        wanted, self.wanted = self.wanted, {}
        return [reply for entries in wanted.values() for reply in replies(entries)]

    async def _work(self) -> None:
        try:
            while self.wanted and self.node.lost is None and self.node.failed is None:
                group: dict[str, list[Any]] = {}
                for run_id in list(islice(self.wanted, GROUP)):
                    group[run_id] = self.wanted.pop(run_id)
                try:
                    await self._group(group)
                except StoreError as error:
                    for run_id, entries in group.items():
                        self.wanted[run_id] = entries + self.wanted.get(run_id, [])
                    if isinstance(error, StoreLost | StoreDamaged):
                        lose(self.node, error)
                        break
                    log.warning("runs cannot be loaded now: %s", error)
                    await asyncio.sleep(RETRY_S)
                # What has been loaded begins, and new work goes on, before the next group is loaded (S15).
                await asyncio.sleep(0)
            if self.node.lost is not None:  # what was being loaded meanwhile is told too
                lose(self.node, self.node.lost)
        finally:
            self.task = None

    async def _group(self, group: dict[str, list[Any]]) -> None:
        store, node = self.node.store, self.node
        requests = [
            entry.message.request for entries in group.values() for entry in entries
            if isinstance(entry, Item) and entry.message.request
        ]  # fmt: skip
        answers = await store.answers(requests) if requests else {}
        loaded = await self._load(list(group))
        histories = {run_id: self._decoded(one) for run_id, one in loaded.items()}
        await self._fill(histories)
        children = await self._children(loaded)
        until = node.clock.monotonic() + SLICE_S
        for run_id in list(group):
            entries = self._unanswered(group[run_id], answers)
            one, history = loaded.get(run_id), histories.get(run_id)
            try:
                await self._one(run_id, one, history, entries, children)
            except StoreError:
                raise
            except Exception as error:
                log.exception("run %s cannot be loaded: it is set aside", run_id)
                reason = f"it cannot be loaded: {type(error).__name__}: {error}"
                self.quarantine(run_id, Trouble("refused", reason), entries)
            del group[run_id]
            if node.clock.monotonic() > until:
                await asyncio.sleep(0)
                until = node.clock.monotonic() + SLICE_S

    async def _load(self, ids: list[str]) -> dict[str, Loaded]:
        """The runs from their snapshots, but for those whose snapshot did not hold; graphs kept in the store are bound."""
        store = self.node.store
        found = await store.load([id for id in ids if id not in self.unsnapped], snapshot=True)
        whole = [id for id in ids if id in self.unsnapped]
        if whole:
            found = [*found, *await store.load(whole)]
            self.unsnapped.difference_update(whole)
        await bind_kept(store, self.node.advance.catalogue, (one.row for one in found))
        return {one.row.id: one for one in found}

    def _decoded(self, one: Loaded) -> list[tuple[int, f.AnyFact]] | PerdureError:
        if one.row.life not in {Life.LIVE, Life.QUEUED}:
            return []
        if one.damage:
            return StoreDamaged(one.damage)
        try:
            history = decode(one.facts)
        except StoreDamaged as error:
            return error
        if history and one.snapshot is None and not isinstance(history[0][1], f.RunStarted | f.RunContinued):
            return StoreDamaged(f"what is loaded of it begins with fact {history[0][0]}, which begins nothing")
        return history

    async def _fill(self, histories: dict[str, Any]) -> None:
        """Put blobs in the place of the references to them; a run that misses one of its own is damaged, alone."""
        for run_id, history in histories.items():
            hashes = set() if isinstance(history, PerdureError) else blobs_of(history)
            if hashes:
                try:
                    fill(history, await self.node.store.blobs(sorted(hashes)))
                except StoreDamaged as error:
                    histories[run_id] = error

    async def _children(self, loaded: dict[str, Loaded]) -> dict[str, RunRow]:
        ids = tuple(child for one in loaded.values() if one.row.life is Life.LIVE for child in one.row.wait.children)
        rows: dict[str, RunRow] = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            rows.update((row.id, row) for row in await self.node.store.find(Query(ids=part, limit=len(part))))
        for row in rows.values():
            if row.life.ended:
                row.outcome = await whole_outcome(self.node.store, row)
        return rows

    def _unanswered(self, entries: list[Any], answers: dict[str, tuple[str, bytes]]) -> list[Any]:
        """What has an answer already is told that answer, and changes nothing (S26)."""
        left = []
        for entry in entries:
            known = answers.get(entry.message.request) if isinstance(entry, Item) else None
            if known is not None and isinstance(entry.message, m.Start):
                if known[0] == entry.message.run:  # its own row stands there, queued or begun
                    left.append(entry)
                elif entry.reply is not None and not entry.reply.done():
                    entry.reply.set_result(known[0])
            elif known is not None:
                if entry.inbox_no:
                    self.node.advance.work.batch.inbox_done.append(entry.inbox_no)
                    self.node.wake()
                if entry.reply is not None and not entry.reply.done():
                    entry.reply.set_result(msgspec.json.decode(known[1]).get("seq", 0))
            else:
                left.append(entry)
        return left

    # --- one run -------------------------------------------------------------------------------------

    async def _one(
        self, run_id: str, one: Loaded | None, history: Any, entries: list[Any], children: dict[str, RunRow]
    ) -> None:
        node = self.node
        forced = next((entry for entry in entries if _is_forced(entry)), None)
        if forced is not None and one is not None and one.row.life is Life.LIVE and one.row.seq:
            entries.remove(forced)
            if not await self.revive.force(run_id, forced):
                self(run_id, forced)
            for entry in entries:
                self(run_id, entry)
            return
        present = node.advance.runs.get(run_id)
        if present is not None and present.life is Life.LIVE:
            node.post(Install(present, entries))
        elif one is None:
            await self._absent(run_id, entries)
        elif one.row.life.ended:
            await self._after_end(one, entries)
        elif one.row.life is Life.ATTENTION:
            await self._in_attention(one, entries)
        elif one.row.life is Life.QUEUED and not one.facts:
            self._queued(one, entries)
        else:
            self._live(one, history, entries, children)

    async def _absent(self, run_id: str, entries: list[Any]) -> None:
        """No such run: a start whose commit did not take place is made again, all else is refused.

        The id of a run that was removed stays its own (S28).
        """
        removed = await self.node.store.tombstones([run_id])  # type: ignore[attr-defined]
        for entry in entries:
            if isinstance(entry, Attempt):
                self.node.pools.forget(entry)
            elif isinstance(entry.message, m.Start) and run_id in removed:
                self._removed(entry, entry.message, removed[run_id][0])
            elif isinstance(entry.message, m.Start) and not entry.inbox_no:
                entry.asked_before = False
                self.node.post(entry)
            elif isinstance(entry.message, m.Fork):
                self.revive.fork(entry)
            else:
                self.node.refuse(entry, UnknownRun(run_id))
                self.node.wake()

    def _removed(self, item: Item, message: m.Start, input_hash: bytes) -> None:
        """A start under the id of a run that was removed: said again it is answered, else the id is in use."""
        if input_hash != message.input_hash:
            self.node.refuse(item, IdInUse(message.run, message.workflow))
        elif item.inbox_no:
            self.node.advance.work.batch.inbox_done.append(item.inbox_no)
        elif item.reply is not None and not item.reply.done():
            item.reply.set_result(message.run)
        self.node.wake()

    async def _after_end(self, one: Loaded, entries: list[Any]) -> None:
        row = one.row
        self.node.tell(Ended.of(row))
        for entry in entries:
            if isinstance(entry, Attempt):
                self.node.pools.forget(entry)
                continue
            message = entry.message
            if isinstance(message, m.Start):
                self._started(entry, message, row)
            elif isinstance(message, m.Retry):
                await self.revive.retry(entry, row)
            elif isinstance(message, m.Fork):
                self.node.refuse(entry, IdInUse(row.id, row.workflow))
            else:
                self.node.refuse(
                    entry, WrongState(f"run {row.id} has ended ({row.status}): nothing more can be asked of it")
                )
        self.node.wake()

    def _started(self, entry: Item, message: m.Start, row: RunRow) -> None:
        """A start of a run that exists: the same input is the same run (S26)."""
        node = self.node
        same = row.workflow == message.workflow and row.input_hash == message.input_hash
        if not same and not (message.parent and row.parent == message.parent):
            node.refuse(entry, IdInUse(row.id, row.workflow))
            node.wake()
            return
        if entry.inbox_no:
            node.advance.work.batch.inbox_done.append(entry.inbox_no)
        if entry.reply is not None and not entry.reply.done():
            entry.reply.set_result(row.id)
        node.wake()

    async def _in_attention(self, one: Loaded, entries: list[Any]) -> None:
        """A run that needs attention keeps its messages in the inbox, and is moved only by a person (S19)."""
        node = self.node
        node.tell(Ended.of(one.row))
        for entry in entries:
            if isinstance(entry, Attempt):
                node.pools.forget(entry)
            elif isinstance(entry.message, m.Resolve | m.Retry | m.Cancel):
                await self.revive.resume(entry, one.row)
            elif isinstance(entry.message, m.Start):
                self._started(entry, entry.message, one.row)
            else:
                self._keep(one.row, entry)

    def _keep(self, row: RunRow, entry: Item) -> None:
        """A message to a run that does not move now waits in the inbox, and is looked at again when it moves."""
        self.kept_back.add(row.id)
        if entry.inbox_no:
            self.seen.discard(entry.inbox_no)
            return
        work = self.node.advance.work
        work.batch.inbox.append(entry.message)  # type: ignore[arg-type]
        work.entries.append(entry)
        if entry.reply is not None:
            work.replies.append((entry.reply, row.seq))
        self.node.wake()

    def _queued(self, one: Loaded, entries: list[Item]) -> None:
        """A run whose start was acknowledged and not yet folded: it begins by its own row in the inbox alone."""
        row = one.row
        begins = any(isinstance(entry.message, m.Start) and entry.inbox_no for entry in entries)
        run = self._make(row) if begins else None
        if run is not None:
            self.node.post(Install(run, entries))
            return
        if begins:
            self.unserved.add(row.id)
        for entry in entries:
            if isinstance(entry.message, m.Start) and not entry.inbox_no:
                self._started(entry, entry.message, row)
            elif isinstance(entry.message, m.Retry | m.Resolve | m.Fork):
                self.node.refuse(entry, WrongState(f"run {row.id} has not begun: it is queued"))
                self.node.wake()
            else:
                self._keep(row, entry)

    def _make(self, row: RunRow) -> LiveRun | None:
        """A run in memory from its row, with nothing folded; None: no engine here serves its workflow."""
        advance = self.node.advance
        spec = advance.catalogue.workflow(row.workflow, row.version, row.definition)
        if spec is None:
            return None
        run = LiveRun(row.id, spec, make(row.id, spec, advance.catalogue, advance.limits))
        run.ref.no = row.no
        run.seq, run.head, run.generation = row.seq, row.head, row.generation
        run.parent, run.parent_key, run.input_hash = row.parent, row.parent_key, row.input_hash
        run.owner, run.variables = row.epoch, row.variables
        run.due, run.kept = None, row.definition
        if spec.graph is not None:
            plan_next(run, advance.settings)
        return run

    def _live(self, one: Loaded, history: Any, entries: list[Any], children: dict[str, RunRow]) -> None:
        row = one.row
        run = self._make(row)
        if run is None:
            self.unserved.add(row.id)
            self._not_served(row, entries)
            return
        if not self.suspects.may_carry(row.id) and not entries and row.epoch != self.node.epoch:
            return
        run.progress = dict(one.progress)
        if one.snapshot is not None and not from_snapshot(run, one, history, self.node.settings):
            self.unsnapped.add(row.id)
            self.wanted.setdefault(row.id, []).extend(entries)
            return
        try:
            if isinstance(history, PerdureError):
                raise history
            if any(isinstance(fact, f.CancelRequested) and fact.force for _, fact in history):
                self._forced(run, row, history)
            elif one.snapshot is None:
                rebuild(run.decider, history)
                check_frontier(run.decider, row.seq, row.asked_n, row.asked_h)
        except NonDeterminism as error:
            self._needs_attention(run, row, Trouble("nondeterminism", str(error), error.step), entries)
            return
        except Attention as error:
            self._needs_attention(run, row, Trouble(error.cause, str(error), error.step), entries)
            return
        except StoreDamaged as error:
            self._needs_attention(run, row, Trouble("damaged", str(error)), entries)
            return
        run.requests.update(request for _, fact in history if (request := getattr(fact, "request", "")))
        self.look_up(run, children)
        self.node.post(Install(run, entries))

    def _forced(self, run: LiveRun, row: RunRow, history: list[tuple[int, f.AnyFact]]) -> None:
        """A run that is being ended without its code: only what it owes is folded."""
        run.decider = Forced(row.id, row.workflow, self.node.advance.catalogue)
        for seq, fact in history:
            run.decider.on(fact, seq)
        run.decider.decisions.clear()
        run.decider.asked_n, run.decider.asked_h = row.asked_n, row.asked_h

    def _not_served(self, row: RunRow, entries: list[Any]) -> None:
        for entry in entries:
            if isinstance(entry, Attempt):
                self.node.pools.forget(entry)
            elif isinstance(entry.message, m.Start):
                self._started(entry, entry.message, row)
            else:
                self._keep(row, entry)  # who serves it later finds the message in the inbox

    def _needs_attention(self, run: LiveRun, row: RunRow, trouble: Trouble, entries: list[Any]) -> None:
        advance = self.node.advance
        log.warning("run %s needs attention: %s", run.id, trouble.reason)
        run.decider.drop()
        run.decider = make(run.id, run.spec, advance.catalogue, advance.limits)
        run.decider.now = row.updated_at
        run.decider.asked_n, run.decider.asked_h = row.asked_n, row.asked_h
        advance.now = self.node.clock.now_us()
        advance.attention(run, *trouble)
        self._again(run.id, entries)
        advance.seal(advance.work)
        self.node.wake()

    def quarantine(self, run_id: str, trouble: Trouble, entries: list[Any]) -> asyncio.Task[None]:
        """A run that cannot be folded or written, or is damaged, goes to attention alone; what waited follows."""
        entries.extend(self.wanted.pop(run_id, ()))
        task = self.node.loop.create_task(self._quarantined(run_id, trouble, entries))
        self.aside.add(task)
        task.add_done_callback(self.aside.discard)
        return task

    async def _quarantined(self, run_id: str, trouble: Trouble, entries: list[Any]) -> None:
        try:
            await self._quarantine(run_id, trouble, entries)
        except StoreError as error:
            log.error("run %s cannot be set aside (%s): %s", run_id, trouble.reason, error)
            self.kept_back.add(run_id)
            for waiter in (*replies(entries), *self.node.waiters.pop(run_id, ())):
                if not waiter.done():
                    waiter.set_exception(error)

    async def _quarantine(self, run_id: str, trouble: Trouble, entries: list[Any]) -> None:
        node = self.node
        found = await node.store.load([run_id])
        present = node.advance.runs.get(run_id)
        if present is not None and present.life is Life.LIVE:
            node.advance.now = node.clock.now_us()
            node.advance.attention(present, *trouble)
            node.advance.seal(node.advance.work)
            self._again(run_id, entries)
        elif found and found[0].row.life is Life.LIVE:
            run = self._make(found[0].row)
            if run is not None:
                self._needs_attention(run, found[0].row, trouble, entries)
        elif found:
            self.kept_back.add(run_id)
            log.error("run %s stays %s: %s", run_id, found[0].row.life.value, trouble.reason)
        else:
            for entry in entries:
                if isinstance(entry, Item):
                    node.refuse(entry, BatchRefused(f"run {run_id} was not started: {trouble.reason}"))
        node.wake()

    def _again(self, run_id: str, entries: list[Any]) -> None:
        """What waited for a run that needs attention now: attempts are dropped, messages are kept for it."""
        for entry in entries:
            if isinstance(entry, Attempt):
                self.node.advance.work.attempts.append(entry)
            elif isinstance(entry, Item):
                self(run_id, entry)

    def look_up(self, run: LiveRun, children: dict[str, RunRow]) -> None:
        """Every child that is waited for: one that is missing is started, one that has ended is told (F50)."""
        for child in run.decider.children.values():
            row = children.get(child.id)
            if child.detached:
                continue  # it was started in the commit that asked for it, and nobody waits for it
            if row is None:
                run.decider.commands.append(StartChild(child.key, child.id, child.workflow, child.args))
            elif row.life.ended:
                run.decider.missed.append(ended_child(row, child.key))


def _is_forced(entry: Any) -> bool:
    """Whether this asks for a run to be ended without its code."""
    return isinstance(entry, Item) and isinstance(entry.message, m.Cancel) and entry.message.force
