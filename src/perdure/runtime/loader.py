"""Bringing runs back into memory: from a snapshot, then the store, then rebuilt from history.

Loads go in bounded groups beside the queue, never in front of it (S15). What waited for a run, and the timers
that are due, are folded in the order of their times (S11).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
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
from perdure.runtime.aside import Aside
from perdure.runtime.attempt import Attempt
from perdure.runtime.live import Ended, LiveRun
from perdure.runtime.outage import let_go, lose
from perdure.runtime.reading import read
from perdure.runtime.recovery import Recovery, ended_child, from_snapshot, rebuild
from perdure.runtime.replay import Attention, check_frontier, forced, make
from perdure.runtime.revive import Revive
from perdure.runtime.snapshots import plan_next
from perdure.runtime.work import Install, Item
from perdure.state.store import Loaded

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
        self.seen: set[int] = set()  # inbox rows that are being folded: the sweep's
        self.unserved: set[str] = set()
        self.unsnapped: set[str] = set()
        self.group: dict[str, list[Any]] = {}  # what is being read now
        self.stale: set[str] = set()  # what of it has moved since
        self.moving = False  # whether something waits for what is not durable yet
        self.joining: dict[str, Install] = {}  # what was read, and is not folded yet
        self.aside = Aside(self)
        self.suspects: Suspects
        self.recovery = Recovery(self)
        self.revive = Revive(self)
        node.on_load = self

    def __call__(self, run_id: str, entry: Any) -> None:
        """Ask for a run, with something that waits for it."""
        if not self.node.territory.owns(run_id):
            if entry is not None and self.node.elsewhere is not None:
                self.node.elsewhere(entry)
            return
        waiting = self.wanted.setdefault(run_id, [])
        if entry is not None:
            waiting.append(entry)
        self.retry()

    def left(self, run_id: str) -> None:
        """A run has left memory: what was read of it before is out of date."""
        install = self.joining.pop(run_id, None)
        if install is not None:
            install.stale = True
        if run_id in self.group:
            self.stale.add(run_id)
        self.aside.moving.discard(run_id)

    def join(self, run: LiveRun, entries: list[Any]) -> None:
        """Let a run that was read from the store join those in memory."""
        install = Install(run, entries, fresh=True)
        self.joining[run.id] = install
        self.node.post(install)

    def waiting(self) -> Iterator[Any]:
        """All that waits for a run to be read."""
        for entries in (*self.wanted.values(), *self.group.values()):
            yield from entries

    def drop(self) -> None:
        """What was read and has not joined leaves memory."""
        for install in self.joining.values():
            install.run.decider.drop()
        self.joining.clear()

    def retry(self) -> None:
        """Go on loading, when there is something to load and the store takes calls."""
        if self.wanted and self.task is None and self.node.failed is None and self.node.lost is None:
            self.task = self.node.loop.create_task(self._work(), name="perdure-loader")

    async def _work(self) -> None:
        try:
            while self.wanted and self.node.lost is None and self.node.failed is None:
                group = self.group = {}
                self.stale.clear()
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
                if self.moving:  # they are looked at again once what is written of them now is durable
                    self.moving = False
                    await self.node.landing()
                # What has been loaded begins, and new work goes on, before the next group is loaded (S15).
                await asyncio.sleep(0)
            if self.node.lost is not None:  # what was being loaded meanwhile is told too
                let_go(self.node, self.node.lost)
        finally:
            self.task = None

    async def _group(self, group: dict[str, list[Any]]) -> None:
        store, node = self.node.store, self.node
        requests = [
            entry.message.request for entries in group.values() for entry in entries
            if isinstance(entry, Item) and entry.message.request
        ]  # fmt: skip
        answers = await store.answers(requests) if requests else {}
        loaded, histories, children = await read(store, node.advance.catalogue, list(group), self.unsnapped)
        until = node.clock.monotonic() + SLICE_S
        for run_id in list(group):
            entries = self._unanswered(group[run_id], answers)
            one, history = loaded.get(run_id), histories.get(run_id)
            try:
                if run_id in self.stale:
                    self.wanted.setdefault(run_id, []).extend(entries)
                else:
                    await self._one(run_id, one, history, entries, children)
            except StoreDamaged as error:  # what it needs lies on a damaged place: the others do not
                self.aside.quarantine(run_id, Trouble("damaged", str(error)), entries)
            except StoreError:
                raise
            except Exception as error:
                log.exception("run %s cannot be loaded: it is set aside", run_id)
                reason = f"it cannot be loaded: {type(error).__name__}: {error}"
                self.aside.quarantine(run_id, Trouble("not_recorded", reason), entries)
            del group[run_id]
            if node.clock.monotonic() > until:
                await asyncio.sleep(0)
                until = node.clock.monotonic() + SLICE_S

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
                    self.node.take_off(entry)
                    self.node.wake()
                if entry.reply is not None and not entry.reply.done():
                    entry.reply.set_result(msgspec.json.decode(known[1]).get("seq", 0))
            else:
                left.append(entry)
        return left

    # --- one run -------------------------------------------------------------------------------------

    async def _one(
        self,
        run_id: str,
        one: Loaded | None,
        history: Any,
        entries: list[Any],
        children: dict[str, RunRow | StoreDamaged],
    ) -> None:
        node = self.node
        if run_id in self.aside.given_up:
            self.aside.give_up(run_id, entries, self.aside.given_up[run_id])
            return
        present, joining = node.advance.runs.get(run_id), self.joining.get(run_id)
        if run_id in self.aside.moving or (present is not None and not present.placed):
            self.later(run_id, entries)
            return
        forced = next((entry for entry in entries if _is_forced(entry)), None)
        if forced is not None and one is not None and one.row.life is Life.LIVE and one.row.seq:
            ended = await self.revive.force(run_id, forced)
            self.later(run_id, [entry for entry in entries if entry is not forced or not ended])
            return
        if present is not None and present.life is Life.LIVE:
            node.post(Install(present, entries))
        elif joining is not None:
            joining.items.extend(entries)
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

    def later(self, run_id: str, entries: list[Any]) -> None:
        """It is looked at again: it moves, and what it will be is not durable yet."""
        self.moving = True
        for entry in entries:
            self(run_id, entry)

    async def _absent(self, run_id: str, entries: list[Any]) -> None:
        """No such run: a start whose commit did not take place is made again, all else is refused.

        The id of a run that was removed stays its own (S28).
        """
        removed = await self.node.store.tombstones([run_id])
        for entry in entries:
            if isinstance(entry, Attempt):
                self.node.pools.forget(entry)
            elif isinstance(entry.message, m.Start) and run_id in removed:
                self._removed(entry, entry.message, removed[run_id][0])
            elif isinstance(entry.message, m.Start) and not entry.inbox_no:
                entry.asked_before = False
                self.node.post(entry)
            elif isinstance(entry.message, m.Fork):
                await self.revive.fork(entry)
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
            node.take_off(entry)
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
                self.keep(one.row, entry)

    def keep(self, row: RunRow, entry: Item) -> None:
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
        run = self.make(row) if begins else None
        if run is not None:
            self.join(run, entries)
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
                self.keep(row, entry)

    def make(self, row: RunRow) -> LiveRun | None:
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

    def _live(self, one: Loaded, history: Any, entries: list[Any], children: dict[str, RunRow | StoreDamaged]) -> None:
        row = one.row
        run = self.make(row)
        if run is None:
            self.unserved.add(row.id)
            self._not_served(row, entries)
            return
        if row.wait.open and not self.suspects.may_carry(row.id) and row.epoch != self.node.epoch:
            self._not_served(row, entries)
            return
        run.progress = dict(one.progress)
        if one.snapshot is not None and not from_snapshot(run, one, history, self.node.settings):
            self.unsnapped.add(row.id)
            self.wanted.setdefault(row.id, []).extend(entries)
            return
        try:
            if isinstance(history, PerdureError):
                raise history
            if forced(history):
                self.forced(run, row, history)
            elif one.snapshot is None:
                rebuild(run.decider, history)
                check_frontier(run.decider, row.seq, row.asked_n, row.asked_h)
            self.look_up(run, children)
        except NonDeterminism as error:
            self.aside.needs_attention(run, row, Trouble("nondeterminism", str(error), error.step), entries)
            return
        except Attention as error:
            self.aside.needs_attention(run, row, Trouble(error.cause, str(error), error.step), entries)
            return
        except StoreDamaged as error:
            self.aside.needs_attention(run, row, Trouble("damaged", str(error)), entries)
            return
        run.requests.update(request for _, fact in history if (request := getattr(fact, "request", "")))
        run.decider.release(row.updated_at)  # a retry that was due when the row was written may have begun
        self.join(run, entries)

    def forced(self, run: LiveRun, row: RunRow, history: Iterable[tuple[int, f.AnyFact]]) -> None:
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
                self.keep(row, entry)  # who serves it later finds the message in the inbox

    def look_up(self, run: LiveRun, children: dict[str, RunRow | StoreDamaged]) -> None:
        """Every child that is waited for: one that is missing is started, one that has ended is told (F50).

        Raises: `StoreDamaged` where the result of one cannot be read.
        """
        for child in run.decider.children.values():
            row = children.get(child.id)
            if child.detached:
                continue  # it was started in the commit that asked for it, and nobody waits for it
            if row is None:
                run.decider.commands.append(StartChild(child.key, child.id, child.workflow, child.args))
            elif isinstance(row, StoreDamaged):
                raise StoreDamaged(f"the result of its child {child.id} cannot be read: {row}")
            elif row.life.ended:
                run.decider.missed.append(ended_child(row, child.key))


def _is_forced(entry: Any) -> bool:
    """Whether this asks for a run to be ended without its code."""
    return isinstance(entry, Item) and isinstance(entry.message, m.Cancel) and entry.message.force
