"""The node: one loop that folds what has arrived, commits it as one batch, and then acts on it (D3).

Batches form by themselves: what arrives while one commit is in flight is the next batch, folded once that one is
durable. When the store fails, every run that was touched is dropped from
memory, the messages are kept, and all of it is folded again once the store is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from heapq import heapify, heappop, heappush
from typing import Any

from perdure.authoring.registry import Registry
from perdure.clock import Clock
from perdure.errors import EngineStopped, PerdureError, StoreError, StoreUnavailable
from perdure.model import message as m
from perdure.model.run import Life
from perdure.runtime.admission import fold_start, queue, refused
from perdure.runtime.advance import Advance
from perdure.runtime.attempt import Attempt
from perdure.runtime.handlers import not_started
from perdure.runtime.live import Ended, LiveRun
from perdure.runtime.outage import fail, isolate
from perdure.runtime.pools import Pools
from perdure.runtime.watchdog import Watchdog
from perdure.runtime.work import Entry, Item, Probe, Tick, Work, run_of
from perdure.settings import Settings
from perdure.state.store import BatchRefused, Committed, WholeStore

log = logging.getLogger("perdure.node")
# After a failed commit: the first pause before the next try.
PAUSE_FIRST_S = 0.05
PROGRESS_EVERY_S = 1.0
# Below so many notes of when runs are due, those that are out of date are not worth sorting out.
DUES_KEPT_MIN = 1_024
# How many are looked at when one more rests: those that are due soon stay, and must not keep the others in memory.
EVICT_TRIES = 4


class Node:
    """Shape: `queue` holds what is to be folded, oldest first; `advance.runs` the runs in memory by id."""

    def __init__(self, store: WholeStore, catalogue: Registry, settings: Settings, clock: Clock, epoch: int) -> None:
        self.store, self.settings, self.clock, self.epoch = store, settings, clock, epoch
        self.loop = asyncio.get_running_loop()
        self.watchdog = Watchdog(settings.block_max_s)
        self.advance = Advance(catalogue, settings, epoch, self.watchdog)
        self.pools = Pools(settings, clock, self.post, self.watchdog)
        self.queue: deque[Entry] = deque()
        self.scheduled = False
        self.flying: Work | None = None
        self.stopping = False
        self.failed: StoreError | None = None
        self.lost: StoreError | None = None  # why nothing is written any more
        self.pause_s = PAUSE_FIRST_S
        self.suspects: set[str] = set()
        self.folding: Any = None  # what is being folded: the run to blame, should that fail
        self.dues: list[tuple[int, str]] = []
        self.dues_bound = DUES_KEPT_MIN
        self.alarm: asyncio.TimerHandle | None = None
        self.alarm_at = 0
        self.resident: OrderedDict[str, None] = OrderedDict()
        self.waiters: dict[str, list[asyncio.Future[Ended]]] = {}
        self.room: list[asyncio.Future[None]] = []
        self.kept_at = 0.0
        self.on_load: Any = None  # the loader's door: asks for a run that is not in memory
        self.on_evict: Any = None
        self.rescan: Any = None
        self.hint: Any = None  # the sweep's: there is something new in the inbox
        self.on_commit: list[Any] = []
        self.note: Callable[[], bytes] | None = None  # what the epoch's own remarks are from now on

    # --- what arrives ------------------------------------------------------------------------------

    def post(self, entry: Entry) -> None:
        """Queue something to be folded."""
        self.queue.append(entry)
        if not self.scheduled and self.flying is None and self.failed is None:
            self.scheduled = True
            self.loop.call_soon(self.cycle)

    def wake(self) -> None:
        if not self.scheduled and self.flying is None and self.failed is None and self.lost is None:
            self.scheduled = True
            self.loop.call_soon(self.cycle)

    async def ask(self, message: m.Message, *, repeated: bool = False) -> Any:
        """Queue a message and wait until what follows from it is durable.

        Raises: what the message is refused with; `StoreUnavailable` at once while the store takes no writes.
        """
        self._takes_more()
        while len(self.queue) >= self.settings.queue_max:
            waiter = self.loop.create_future()
            self.room.append(waiter)
            await waiter
            self._takes_more()
        reply = self.loop.create_future()
        item = Item(message, reply)
        item.asked_before = repeated
        self.post(item)
        return await reply

    def _takes_more(self) -> None:
        """Raises: why nothing new is taken."""
        if self.lost is not None:
            raise self.lost
        if self.stopping:
            raise EngineStopped("the engine is stopping: nothing new is taken")
        if self.failed is not None:
            raise StoreUnavailable(f"the store takes no writes now: {self.failed}")

    # --- one cycle -----------------------------------------------------------------------------------

    def cycle(self) -> None:
        """Fold what has arrived, commit, act. A plain callback of the outer loop (S5)."""
        self.scheduled = False
        if self.failed is not None or self.lost is not None:
            return
        try:
            self.fold()
            if self.flying is None and not self.advance.work.empty():
                self.commit()
        except KeyboardInterrupt:  # Ctrl-C hit a flow: no run pays for that (S25), its turn is folded again
            fail(self, StoreUnavailable("interrupted"))
            raise
        except Exception as error:
            log.exception("run %s cannot be folded: it is set aside", run_of(self.folding))
            isolate(self, run_of(self.folding), f"{type(error).__name__}: {error}")
        self._let_in()
        if self.queue and self.flying is None:
            self.wake()

    def fold(self) -> None:
        """Fold entries until the queue is empty or the batch is full."""
        advance, queue = self.advance, self.queue
        work, settings, runs = advance.work, self.settings, advance.runs
        advance.now = self.clock.now_us()
        entries, facts = work.entries, work.batch.facts
        facts_max, size_max = settings.batch_facts_max, settings.batch_bytes_max
        pending = advance.pending
        while pending or (queue and len(facts) < facts_max and work.size < size_max):
            if pending:  # what a run says to others goes into the batch of its facts, also where it was revived (S20)
                self.folding = message = pending.popleft()
                self._fold_inner(message)
                continue
            if self.suspects and not self.alone(run_of(queue[0])):
                break
            entry = queue.popleft()
            entries.append(entry)
            self.folding = entry
            if type(entry) is Attempt:
                run = runs.get(entry.run_id)
                if run is None:  # it was dropped in an outage, and waits for its reload (D3)
                    entries.pop()
                    self.on_load(entry.run_id, entry)
                    continue
                work.attempts.append(entry)
                if run.life is Life.LIVE:
                    advance.outcome(run, entry)
            else:
                self._fold_other(entry)
        advance.seal(work)

    def alone(self, run_id: str) -> bool:
        """While runs are suspected of making the store refuse, each gets a batch of its own. False: it must wait."""
        work = self.advance.work
        if work.solo and not work.empty():
            return work.solo == run_id
        work.solo = ""
        if run_id not in self.suspects:
            return True
        if not work.empty():
            return False
        work.solo = run_id
        return True

    def _fold_other(self, entry: Entry) -> None:
        if isinstance(entry, Item):
            self._fold_item(entry)
        elif isinstance(entry, Tick):
            if self.advance.runs.get(entry.run.id) is entry.run and entry.run.life is Life.LIVE:
                self.advance.tick(entry.run, self.advance.now)
        else:
            self.advance.work.entries.pop()
            self.on_load.recovery.install(entry)

    def _fold_item(self, item: Item) -> None:
        message, advance = item.message, self.advance
        if not message.at:
            message.at = advance.now
        try:
            if isinstance(message, m.Start):
                fold_start(self, item, message)
                return
            run = advance.runs.get(message.run)
            if (
                run is None
                or run.life is not Life.LIVE
                or not run.placed
                or item.asked_before
                or (isinstance(message, m.Cancel) and message.force)
                or not isinstance(message, m.Signal | m.Cancel | m.ChildDone)
            ):
                advance.work.entries.pop()
                self.on_load(message.run, item)
                return
            self.fold_into(run, item)
        except PerdureError as error:
            self.refuse(item, error)

    def fold_into(self, run: LiveRun, item: Item) -> None:
        """Fold one message into a run in memory, and note what is to be told once that is durable."""
        advance, message = self.advance, item.message
        work = advance.work
        if not advance.message(run, message):
            self.on_load.recovery.too_late(item)
            return
        if message.request:
            work.batch.answers.append((message.request, run.id, b'{"seq":%d}' % run.seq))
        if item.inbox_no:
            work.batch.inbox_done.append(item.inbox_no)
        if item.reply is not None:
            work.replies.append((item.reply, run.seq))

    def refuse(self, item: Item, error: PerdureError) -> None:
        """A message that cannot be folded: its sender is told, its inbox row goes with the next commit."""
        if item.inbox_no:
            self.take_off(item)
            if item.message.request:
                self.advance.work.batch.answers.append((item.message.request, item.message.run, b'{"refused":true}'))
            # A detached child may outlive the run that started it; nobody need hear of that.
            level = logging.DEBUG if isinstance(item.message, m.ChildDone) else logging.WARNING
            log.log(level, "message %s to run %s refused: %s", type(item.message).__name__, item.message.run, error)
        if item.reply is not None:
            self.advance.work.replies.append((item.reply, error))

    def take_off(self, item: Item) -> None:
        """A row of the inbox goes with the next commit; should that fail, it is looked at again."""
        work = self.advance.work
        work.batch.inbox_done.append(item.inbox_no)
        if not work.entries or work.entries[-1] is not item:
            work.entries.append(item)

    def _fold_inner(self, message: m.Message) -> None:
        """A message from one run to another of this node: folded in the same batch."""
        advance, solo = self.advance, self.advance.work.solo
        if isinstance(message, m.Start):
            if message.run not in advance.runs:
                try:
                    if solo:
                        queue(self, Item(message), message)
                        return
                    started = advance.start(message)
                    advance.work.starts[started.id] = (started, Item(message))
                except PerdureError as error:
                    advance.send(not_started(message, error))
            return
        run = advance.runs.get(message.run)
        # A run has children only when its id is its own; whoever else writes to it waits until its row is there.
        if (
            run is not None
            and run.life is Life.LIVE
            and (run.placed or run.parent or isinstance(message, m.ChildDone))
            and (not solo or message.run == solo)
        ):
            self.fold_into(run, Item(message))
        elif run is None or not run.life.ended:
            advance.keep(message)

    # --- commit, then act ----------------------------------------------------------------------------

    def commit(self) -> None:
        """Hand the batch to the store; act at once when it is durable, or when it becomes so."""
        advance = self.advance
        work, advance.work = advance.work, Work()
        self._progress(work)
        work.batch.clock = advance.now
        if self.note is not None:
            work.batch.note, self.note = self.note(), None
        try:
            answer = self.store.commit(work.batch)
        except Exception as error:  # noqa: BLE001 - nothing of the batch may be lost, whatever its writing met
            known = error if isinstance(error, StoreError) else BatchRefused(f"{type(error).__name__}: {error}")
            fail(self, known, work)
            return
        if isinstance(answer, Committed):
            self.act(work, answer)
        else:
            self.flying = work
            asyncio.ensure_future(answer).add_done_callback(self._landed)

    def _landed(self, answer: asyncio.Future[Committed]) -> None:
        """A commit in a thread is over."""
        work, self.flying = self.flying, None
        assert work is not None
        error = answer.exception() if not answer.cancelled() else StoreUnavailable("the commit was given up")
        if error is None:
            self.act(work, answer.result())
            self.wake()
        elif isinstance(error, StoreError):
            fail(self, error, work)
        else:
            fail(self, StoreUnavailable(str(error)), work)

    def act(self, work: Work, committed: Committed) -> None:
        """The batch is durable: tell callers, begin attempts, let go of what has ended."""
        self.pause_s = PAUSE_FIRST_S
        if work.batch.facts:
            self.suspects.discard(work.solo)
        if committed.refused:
            refused(self, work, committed.refused)
        work.tell()
        forget = self.pools.forget
        for attempt in work.attempts:
            forget(attempt)
        for run_id, key in work.abandons:
            self.pools.abandon(run_id, key)
        self._begin(work)
        for run in work.runs:
            if run.batch is work:
                run.batch = None
            if run.life is Life.LIVE:
                self._rest(run)
            else:
                self._left(run)
        for run_id in work.loads:
            self.on_load(run_id, None)
        for told in self.on_commit:
            told(work)
        self._set_alarm()

    def _let_in(self) -> None:
        """Callers that waited for room in the queue may go on."""
        if self.room and len(self.queue) < self.settings.queue_max:
            for waiter in self.room:
                if not waiter.done():
                    waiter.set_result(None)
            self.room.clear()

    def _begin(self, work: Work) -> None:
        if self.stopping:
            return
        runs, epoch, pools = self.advance.runs, self.epoch, self.pools
        running = pools.running
        attempts = []
        for run, steps in work.begins:
            if runs.get(run.id) is not run:
                continue
            for wanted in steps:
                probing = isinstance(wanted, Probe)
                step: Any = wanted.step if isinstance(wanted, Probe) else wanted
                if step.key not in run.decider.open or (not probing and step.due is not None):
                    continue
                if isinstance(wanted, Probe) and wanted.number != step.attempt:
                    continue  # what was in doubt is known by now
                there = running.get((run.id, step.key))
                if (
                    there is not None
                    and there.number == step.attempt
                    and there.epoch == epoch
                    and not there.left
                    and (there.probing or not probing)
                ):
                    there.step = step  # it still runs from before a reload (S14)
                    continue
                attempt = Attempt(run.id, step, epoch, run.progress.get(step.key) if run.progress else None, pools)
                if isinstance(wanted, Probe):
                    attempt.probing, attempt.after = True, wanted.after
                attempts.append(attempt)
        if attempts:
            pools.begin(attempts)

    def _rest(self, run: LiveRun) -> None:
        """A run that lives on: note when it is due; it may leave memory when it only waits."""
        if run.due is not None:
            heappush(self.dues, (run.due, run.id))
            if len(self.dues) > self.dues_bound:
                self._sort_dues()
        wait = run.wait
        if wait.open:
            self.resident.pop(run.id, None)
        else:
            self.resident[run.id] = None
            self.resident.move_to_end(run.id)
            for _ in range(EVICT_TRIES):
                if len(self.resident) <= self.settings.runs_resident_max:
                    break
                self._evict()

    def _evict(self) -> None:
        """Let the run that was used least recently leave memory (S10)."""
        run_id, _ = self.resident.popitem(last=False)
        run = self.advance.runs.get(run_id)
        if run is None or run.batch is not None or run in self.advance.work.runs or run.wait.open:
            return
        now = self.advance.now
        if run.due is not None and run.due - now < 100 * (200 + 20 * run.seq):
            self.resident[run_id] = None
            return
        del self.advance.runs[run_id]
        run.decider.drop()
        self.on_load.left(run_id)
        self.on_evict(run)

    def _left(self, run: LiveRun) -> None:
        """A run that ended or needs attention leaves memory; those who wait for it are told."""
        if self.advance.runs.get(run.id) is run:
            del self.advance.runs[run.id]
        self.resident.pop(run.id, None)
        run.decider.drop()
        self.on_load.left(run.id)
        self.on_load.aside.runs.discard(run.id)
        if run.id in self.waiters:
            self.tell(run.ended())

    def tell(self, ended: Ended) -> None:
        """Those who wait for the run's end are told; what is told is durable."""
        for waiter in self.waiters.pop(ended.id, ()):
            if not waiter.done():
                waiter.set_result(ended)

    # --- time ----------------------------------------------------------------------------------------

    def _sort_dues(self) -> None:
        """Forget the times at which nobody is due any more: a run notes one with every commit."""
        runs = self.advance.runs.items()
        self.dues = [(run.due, run_id) for run_id, run in runs if run.due is not None]
        heapify(self.dues)
        self.dues_bound = max(DUES_KEPT_MIN, 2 * len(self.dues))

    def _set_alarm(self) -> None:
        """Wake when the earliest run is due."""
        dues = self.dues
        while dues:
            due, run_id = dues[0]
            run = self.advance.runs.get(run_id)
            if run is not None and run.due == due:
                break
            heappop(dues)
        if not dues:
            return
        due = dues[0][0]
        if self.alarm is not None:
            if self.alarm_at <= due:
                return
            self.alarm.cancel()
        self.alarm_at = due
        delay = max(0.0, (due - self.clock.now_us()) / 1e6)
        self.alarm = self.loop.call_later(min(delay, 3600.0), self.ring)

    def ring(self) -> None:
        """Queue a tick for every run that is due now."""
        self.alarm = None
        now, dues, runs = self.clock.now_us(), self.dues, self.advance.runs
        while dues and dues[0][0] <= now:
            due, run_id = heappop(dues)
            run = runs.get(run_id)
            if run is not None and run.due == due and run.life is Life.LIVE:
                run.due = None
                self.post(Tick(run))
        self._set_alarm()

    def keep_progress(self) -> None:
        """Write what attempts told of their progress in a batch of its own, when none went that it could ride in."""
        if self.pools.said and self.failed is None and self.flying is None:
            self._progress(self.advance.work)
            self.wake()

    def _progress(self, work: Work) -> None:
        """Add what attempts told of their progress, at most once a second."""
        said = self.pools.said
        now = self.clock.monotonic()
        if not said or now - self.kept_at < PROGRESS_EVERY_S:
            return
        self.kept_at = now
        for run_id, key in list(said):
            value = said.pop((run_id, key))  # other threads go on telling meanwhile
            attempt = self.pools.running.get((run_id, key))
            if attempt is not None and not (attempt.done or attempt.left):
                self.advance.progressed(work, run_id, attempt, value)

    async def settled(self) -> None:
        """Wait until nothing is queued and nothing is in flight."""
        while self.queue or self.flying is not None or not self.advance.work.empty():
            if self.lost is not None or self.failed is not None:
                return
            self.wake()
            await asyncio.sleep(0)


async def done(answer: Committed | Awaitable[Committed]) -> Committed:
    """A commit's answer, whether it is there at once or later."""
    return answer if isinstance(answer, Committed) else await answer
