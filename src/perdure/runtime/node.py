"""The node: one loop that folds what has arrived, commits it as one batch, and then acts on it (D3).

Batches form by themselves: what arrives while one commit is in flight is the next batch. Folding runs ahead of the
commit in flight where it needs nothing of the store (S30); acting never does. When the store fails, every run that was
touched is dropped from memory, the messages are kept, and all of it is folded again once the store is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from perdure.authoring.registry import Registry
from perdure.clock import Clock
from perdure.errors import EngineStopped, PerdureError, StoreError, StoreUnavailable
from perdure.model import message as m
from perdure.model.run import Life
from perdure.runtime.acting import act
from perdure.runtime.admission import fold_start, queue
from perdure.runtime.advance import Advance
from perdure.runtime.attempt import Attempt
from perdure.runtime.dues import Dues
from perdure.runtime.handlers import not_started
from perdure.runtime.live import Ended, LiveRun
from perdure.runtime.outage import fail, isolate
from perdure.runtime.pools import Pools
from perdure.runtime.territory import Territory
from perdure.runtime.watchdog import Watchdog
from perdure.runtime.work import Entry, Install, Item, Tick, Work, run_of
from perdure.settings import Settings
from perdure.state.store import BatchRefused, Committed, WholeStore

log = logging.getLogger("perdure.node")
PROGRESS_EVERY_S = 1.0


class Node:
    """Shape: `queue` holds what is to be folded, oldest first; `advance.runs` the runs in memory by id."""

    def __init__(self, store: WholeStore, catalogue: Registry, settings: Settings, clock: Clock, epoch: int) -> None:
        self.store, self.settings, self.clock, self.epoch = store, settings, clock, epoch
        self.loop = asyncio.get_running_loop()
        self.watchdog = Watchdog(settings.block_max_s)
        self.advance = Advance(catalogue, settings, epoch, self.watchdog)
        self.pools = Pools(settings, clock, self.post, self.watchdog)
        self.pools.transactions.own = getattr(store, "database", None)
        self.queue: deque[Entry] = deque()
        self.scheduled = False
        self.flying: Work | None = None
        self.flight: asyncio.Future[Committed] | None = None
        # What must be done once `flying` has landed, before more is folded.
        self.halted: Callable[[], None] | None = None
        self.stopping = False
        self.failed: StoreError | None = None
        self.lost: StoreError | None = None  # why nothing is written any more
        self.pause_s = 0.0
        self.suspects: set[str] = set()
        self.folding: Any = None  # what is being folded: the run to blame, should that fail
        self.dues = Dues(self.advance.runs, clock, self.post)
        self.resident: OrderedDict[str, None] = OrderedDict()
        self.waiters: dict[str, list[asyncio.Future[Ended]]] = {}
        self.room: list[asyncio.Future[None]] = []
        self.kept_at = 0.0
        self.territory = Territory()
        self.elsewhere: Callable[[Any], None] | None = None  # takes what is for runs of other nodes
        self.on_load: Any = None  # the loader's door: asks for a run that is not in memory
        self.on_evict: Any = None
        self.rescan: Any = None
        self.hint: Any = None  # the sweep's: there is something new in the inbox
        self.on_commit: list[Any] = []
        self.note: Callable[[], bytes] | None = None  # what the epoch's own remarks are
        self.note_due = False  # whether the next commit writes them

    # --- what arrives ------------------------------------------------------------------------------

    def post(self, entry: Entry) -> None:
        """Queue something to be folded."""
        self.queue.append(entry)
        if not self.scheduled and self.failed is None:
            self.scheduled = True
            self.loop.call_soon(self.cycle)

    def wake(self) -> None:
        """Let a cycle follow."""
        if not self.scheduled and self.failed is None and self.lost is None:
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
        if self.failed is not None or self.lost is not None or self.halted is not None:
            return
        try:
            self.fold()
            if self.flying is None and (self.note_due or not self.advance.work.empty()):
                self.commit()
        except KeyboardInterrupt:  # Ctrl-C hit a flow: no run pays for that (S25), its turn is folded again
            self._halt(lambda: fail(self, StoreUnavailable("interrupted")))
            raise
        except Exception as error:
            log.exception("run %s cannot be folded: it is set aside", run_of(self.folding))
            blamed, reason = run_of(self.folding), f"{type(error).__name__}: {error}"
            self._halt(lambda: isolate(self, blamed, reason))
        self._let_in()
        if self.queue and self.flying is None:
            self.wake()

    def _halt(self, then: Callable[[], None]) -> None:
        """What was folded is to be dropped: at once, or when the commit in flight, which may hold the same runs, is over."""
        if self.flying is None:
            then()
        else:
            self.halted = then

    def fold(self) -> None:
        """Fold entries until the queue is empty or the batch is full."""
        advance, queue = self.advance, self.queue
        work, settings, runs = advance.work, self.settings, advance.runs
        advance.now = self.clock.now_us()
        entries, facts = work.entries, work.batch.facts
        facts_max, size_max = settings.batch_facts_max, settings.batch_bytes_max
        pending, ahead = advance.pending, self.flying is not None
        while pending or (queue and len(facts) < facts_max and work.size < size_max):
            if pending:  # what a run says to others goes into the batch of its facts, also where it was revived (S20)
                self.folding = message = pending.popleft()
                self._fold_inner(message)
                continue
            if ahead and not self._ahead(queue[0]):
                break
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

    def _ahead(self, entry: Entry) -> bool:
        """Whether this can be folded beside the commit in flight: what asks the store for a run waits until it is over."""
        if self.suspects:
            return False
        if isinstance(entry, Item):
            message, run = entry.message, self.advance.runs.get(entry.message.run)
            if isinstance(message, m.Start):
                asked = entry.inbox_no or entry.asked_before or message.run in self.advance.work.starts
                return run is None and not asked
            return self._takes(run, entry)
        return not isinstance(entry, Install) and run_of(entry) in self.advance.runs

    @staticmethod
    def _takes(run: LiveRun | None, item: Item) -> bool:
        """Whether the message can be folded into the run as it is in memory."""
        message = item.message
        return (
            run is not None
            and run.life is Life.LIVE
            and run.placed
            and not item.asked_before
            and not (isinstance(message, m.Cancel) and message.force)
            and isinstance(message, m.Signal | m.Cancel | m.ChildDone)
        )

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
            if run is not None and self._takes(run, item):
                self.fold_into(run, item)
            else:
                advance.work.entries.pop()
                self.on_load(message.run, item)
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
                    if solo or not self.territory.owns(message.run):
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
        self._seal()
        work, advance.work = advance.work, Work()
        self._progress(work)
        work.batch.clock = advance.now
        if self.note_due and self.note is not None:
            work.batch.note, self.note_due = self.note(), False
        try:
            answer = self.store.commit(work.batch)
        except Exception as error:  # noqa: BLE001 - nothing of the batch may be lost, whatever its writing met
            known = error if isinstance(error, StoreError) else BatchRefused(f"{type(error).__name__}: {error}")
            fail(self, known, work)
            return
        if isinstance(answer, Committed):
            act(self, work, answer)
        else:
            self.flying, self.flight = work, asyncio.ensure_future(answer)
            self.flight.add_done_callback(self._landed)

    def _seal(self) -> None:
        """The last word of the batch on each of its runs."""
        work, seal = self.advance.work, self.advance.seal
        for run in work.runs:
            self.folding = run
            seal(run, work)

    def _landed(self, answer: asyncio.Future[Committed]) -> None:
        """A commit in a thread is over."""
        work, self.flying, self.flight = self.flying, None, None
        assert work is not None
        then, self.halted = self.halted, None
        error = answer.exception() if not answer.cancelled() else StoreUnavailable("the commit was given up")
        if error is None:
            act(self, work, answer.result())
            if then is not None:
                then()
            self.wake()
        elif isinstance(error, StoreError):
            fail(self, error, work)
        else:
            fail(self, StoreUnavailable(str(error)), work)

    def _let_in(self) -> None:
        """Callers that waited for room in the queue may go on."""
        if self.room and len(self.queue) < self.settings.queue_max:
            for waiter in self.room:
                if not waiter.done():
                    waiter.set_result(None)
            self.room.clear()

    def tell(self, ended: Ended) -> None:
        """Those who wait for the run's end are told; what is told is durable."""
        for waiter in self.waiters.pop(ended.id, ()):
            if not waiter.done():
                waiter.set_result(ended)

    # --- progress ------------------------------------------------------------------------------------

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
        while self.queue or self.flying is not None or self.note_due or not self.advance.work.empty():
            if self.lost is not None or self.failed is not None:
                return
            self.wake()
            await self.landing()

    async def landing(self) -> None:
        """Wait until the commit in flight is over; where there is none, until others had their turn."""
        if self.flight is None:
            await asyncio.sleep(0)
        else:
            await asyncio.wait([self.flight])


async def done(answer: Committed | Awaitable[Committed]) -> Committed:
    """A commit's answer, whether it is there at once or later."""
    return answer if isinstance(answer, Committed) else await answer
