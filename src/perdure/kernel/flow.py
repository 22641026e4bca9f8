"""The flow decider: an async function folded fact by fact on its own deterministic loop.

The decider and the flow's loop are one object, and a step is a future: a step costs one future, one key,
one digest and one wake-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol

import msgspec

from perdure.authoring.ambient import current
from perdure.authoring.inflow import log
from perdure.errors import BadArgument, Dropped, NotDurable, PerdureError, RunFailed, StepFailed, UnknownWorkflow
from perdure.kernel.decider import MASK64, Catalogue, Decider, Intent, Trouble, restore_owed
from perdure.kernel.failures import declared, failure_of, is_a, refusal_in, text_of
from perdure.kernel.futures import ChildStep, FlowFuture, FlowTask, Step, untie
from perdure.kernel.loop import ContinueAsNew, EndlessTurn, FlowLoop
from perdure.kernel.signals import Signals
from perdure.kernel.steps import Child
from perdure.kernel.variables import Sent, Variables
from perdure.model import fact as f
from perdure.model.command import SendSignal, StartChild
from perdure.model.failure import Failure
from perdure.model.ids import child_id
from perdure.model.payload import Shape
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec


class Watch(Protocol):
    """Who interrupts a turn that takes too long."""

    def fold(self, decider: Decider, fact: f.AnyFact, seq: int, expected: tuple[f.Decision, ...] = ()) -> None:
        """Let the decider fold the fact; one that had to be interrupted is in trouble."""


class Limits(NamedTuple):
    """Bounds on what one run may ask for.

    Shape: `open` steps and children at once; `watch` bounds the time of a turn, where there is one.
    Units: `payload` bytes.
    """

    payload: int = 64 << 20
    callbacks: int = 1_000_000
    depth: int = 32
    open: int = 100_000
    watch: Watch | None = None


SIGNAL_VALUE = Shape(Any, "value of a signal")


def _salt(run_id: str) -> int:
    """What sets of this run's futures are ordered by, the same in every process (S5)."""
    return int.from_bytes(blake2b(run_id.encode(), digest_size=7).digest(), "little")


class Flow(Decider, FlowLoop):
    """One generation of a flow run."""

    shape: ClassVar[str] = "flow"

    def __init__(self, run_id: str, spec: WorkflowSpec, catalogue: Catalogue, limits: Limits = Limits()) -> None:  # noqa: B008
        Decider.__init__(self, run_id, spec, catalogue)
        self.start_loop(_salt(run_id))
        self.limits = limits
        self.variables: Variables = Variables(limits.payload)
        self.root: FlowTask | None = None
        self._context = Context()
        self._outcome: Intent | None = None
        self._result = b"null"
        self._signals = Signals()
        self._patches: set[str] = set()
        self._bare_counts: dict[str, int] = {}
        self._failed: list[asyncio.Future[Any]] = []
        self.journal: dict[str, int] | None = None

    # --- facts -------------------------------------------------------------------------------------

    def _on_started(self, fact: f.RunStarted) -> None:
        self.seed, self.depth = fact.seed, fact.depth
        self._begin(fact.input)

    def _on_continued(self, fact: f.RunContinued) -> None:
        self.seed, self.generation, self.steps_generation = fact.seed, fact.generation, fact.generation
        self.depth, self.first = fact.depth, self.seq
        for name, value in fact.signals:
            self._signals.keep(name, value)
        self.variables.values = msgspec.json.decode(fact.variables)
        self.owed, missing = restore_owed(fact.owed, self.catalogue)
        if missing is not None:
            self.trouble = Trouble("refused", f"task {missing}, whose effect may have to be undone, is not served here")
            return
        self._begin(fact.input)

    def _begin(self, raw: msgspec.Raw) -> None:
        context = self._context
        context.run(current.set, self)
        if self.order_of != self.run_id:
            self.start_loop(_salt(self.order_of))
        try:
            values = self.spec.signature.unpack(raw)
        except BadArgument as error:
            self.trouble = Trouble(
                "nondeterminism", f"the recorded input does not fit {self.spec.signature.describe()}: {error}"
            )
            return
        assert self.spec.fn is not None
        coro = self.spec.signature.call(self.spec.fn, values)
        self.root = FlowTask(coro, self, "", context)
        self._turn()

    def _on_retried(self, fact: f.RunRetried) -> None:
        self.steps_generation = fact.generation
        self._make_again(fact.generation)

    def _make_again(self, generation: int) -> None:
        """Steps without a kept result are made again, as steps of this generation (S21)."""
        for step in self.open.values():
            step.generation, step.asked_at = generation, self.now
            step.forgiven = step.attempt - 1
            step.due = None
            step.intent = 0
            self.fresh[step.key] = step
        for child in self.children.values():
            if not child.detached:
                child.id = child.target.id = child_id(self.run_id, generation, child.key, child.workflow.name)
                self.commands.append(StartChild(child.key, child.id, child.workflow, child.args))

    def _on_completed(self, fact: f.StepCompleted) -> None:
        Decider._on_completed(self, fact)
        self._turn()

    def _on_failed(self, fact: f.AttemptFailed) -> None:
        Decider._on_failed(self, fact)
        if fact.retry_at is None:
            self._turn()

    def _on_resolved(self, fact: f.StepResolved) -> None:
        Decider._on_resolved(self, fact)
        self._turn()

    def _on_child_ended(self, fact: f.ChildEnded) -> None:
        Decider._on_child_ended(self, fact)
        self._turn()

    def _on_timer(self, fact: f.TimerFired) -> None:
        timer = self.top_timer()
        assert timer is not None
        assert timer.key == fact.key, "a timer fires in its turn"
        self.fire(timer)
        self._turn()

    def _on_signal(self, fact: f.SignalReceived) -> None:
        if self._signals.arrive(fact.name, fact.value):
            self._turn()

    def _on_cancel(self, fact: f.CancelRequested) -> None:
        if self.cancelled is not None or self.ended:
            return
        self.cancelled = fact.reason
        if self.root is not None and not self.root.done():
            self.root.cancel()
            self._turn()
        elif self._outcome is not None and self._outcome.kind == "completed":
            self._outcome = Intent("cancelled", reason=fact.reason)
            self._after()

    # --- turns -------------------------------------------------------------------------------------

    def _turn(self) -> None:
        try:
            self.drain(self.limits.callbacks)
            root = self.root
            if root is not None and root.done():
                self._after()
        except EndlessTurn:
            self.trouble = Trouble(
                "endless_turn",
                f"one turn ran more than {self.limits.callbacks:,} callbacks: an endless loop in the flow's code?",
            )

    def _after(self) -> None:
        """The main task has returned: let the others clean up, wait for what was called, then end (S17, S18)."""
        if self.intent is not None or self.ended:
            return
        if self._outcome is None:
            self._outcome = self._root_outcome()
            if self.trouble is not None:
                return
            for task in list(self.live_tasks()):
                task.cancel()
            self.drain(self.limits.callbacks)
        if not self.live_tasks() and self.open_generators():
            self.create_task(self.shutdown_asyncgens(), context=self._context)
            self.drain(self.limits.callbacks)
        if self.live_tasks():
            return
        outcome = self._outcome
        if outcome.kind != "completed":
            self.settle(outcome)
        elif not self.open and not any(not child.detached for child in self.children.values()):
            failure = self._unawaited()
            if failure is not None:
                self.settle(Intent("failed", failure))
            else:
                self.finish(f.RunCompleted(self.now, self.asked_n, self.asked_h, msgspec.Raw(self._result)))

    def _root_outcome(self) -> Intent:
        assert self.root is not None
        if self.root.cancelled():
            if self.cancelled is not None:
                return Intent("cancelled", reason=self.cancelled)
            return Intent("failed", Failure("asyncio.CancelledError", "the flow cancelled itself", kind="cancelled"))
        error = self.root.exception()
        if error is None:
            return self._returned(self.root.result())
        if is_a(error, ContinueAsNew):
            return Intent("continued", input=error.input)
        if (refused := refusal_in(error)) is not None:
            self.trouble = Trouble("refused", str(refused))
        elif is_a(error, RuntimeError) and "attached to a different loop" in text_of(error):
            self.trouble = Trouble("refused", str(NotDurable("a future of another event loop", "a @task")))
        return Intent("failed", failure_of(error))

    def _returned(self, value: Any) -> Intent:
        try:
            self._result = self.spec.result.round(value, self.limits.payload)[0]
        except PerdureError as error:
            return Intent("failed", failure_of(error))
        return Intent("completed")

    def _unawaited(self) -> Failure | None:
        """The failure of a step or child that nobody awaited."""
        for future in self._failed:
            if getattr(future, "_log_traceback", False):
                return failure_of(future.exception())
        return None

    def _continued(self, intent: Intent) -> f.RunContinued:
        return f.RunContinued(
            self.now,
            self.asked_n,
            self.asked_h,
            msgspec.Raw(intent.input),
            self.steps_generation + 1,
            self.chance() & MASK64 >> 1,
            self._signals.unread(),
            [owed for owed, _, _ in self.owed],
            msgspec.Raw(msgspec.json.encode(self.variables.values)),
            self.spec.definition_hash,
            self.depth,
        )

    # --- what becomes of steps -----------------------------------------------------------------------

    def _deliver(self, step: Step, result: msgspec.Raw) -> None:
        if not step.done():
            try:
                value = step.spec.result.decode(result)
            except BadArgument as error:
                self.trouble = Trouble(
                    "nondeterminism", f"the recorded result does not fit any more: {error}", step.key
                )
                return
            step.set_result(value)

    def _deliver_failure(self, step: Step, failure: Failure) -> None:
        if not step.done():
            step.set_exception(declared(step.spec, failure) or StepFailed(step.key, failure))
            self._failed.append(step)

    def _deliver_child(self, child: Child, fact: f.ChildEnded) -> None:
        target: ChildStep = child.target
        if target.done():
            return
        if fact.status == "completed":
            try:
                value = child.workflow.result.decode(fact.result)
            except BadArgument as error:
                self.trouble = Trouble(
                    "nondeterminism", f"the child's result does not fit any more: {error}", child.key
                )
                return
            target.set_result(value)
        else:
            failure = fact.failure or Failure("perdure.RunCancelled", "the child run was cancelled", kind="cancelled")
            target.set_exception(RunFailed(fact.child, failure))
            self._failed.append(target)

    # --- what flow code asks for ---------------------------------------------------------------------

    def call_task(self, task: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        if self.dropped:
            raise Dropped
        raw, values = task.signature.pack(args, kwargs, self.limits.payload)
        if len(self.open) >= self.limits.open:
            self._too_many(task.name)
        scope = self.scope()
        name = task.name
        count = scope.counts.get(name, 0) + 1
        scope.counts[name] = count
        key = f"{scope.scope}{name}#{count}"
        step = Step(self, key, task, raw, values, ask=self._asked(b"task", key, raw))
        if self.journal is not None:
            self.journal[key] = self.seq
        self.open[key] = step
        self.fresh[key] = step
        return step

    def map_task(self, task: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Step]:
        items, *rest = args
        return [self.call_task(task, (item, *rest), kwargs) for item in items]

    def call_workflow(self, workflow: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ChildStep:
        if self.dropped:
            raise Dropped
        if self.catalogue.workflow(workflow.name, workflow.version) is None:
            raise UnknownWorkflow(workflow.name, workflow.version)
        if self.depth >= self.limits.depth:
            raise BadArgument(
                f"{workflow.name}: runs within runs are {self.limits.depth} deep already (setting children_depth_max)"
            )
        raw, _ = workflow.signature.pack(args, kwargs, self.limits.payload)
        if len(self.children) >= self.limits.open:
            self._too_many(workflow.name)
        key = self._key(workflow.name)
        ask = self._asked(b"child", key, raw)
        if self.journal is not None:
            self.journal[key] = self.seq
        child = Child(
            key,
            child_id(self.run_id, self.steps_generation, key, workflow.name),
            workflow,
            raw,
            ask=ask,
            asked_seq=self.seq,
        )
        child.target = ChildStep(self, key, child.id)
        self.children[key] = child
        self.commands.append(StartChild(key, child.id, workflow, raw))
        return child.target  # type: ignore[no-any-return]

    def _too_many(self, name: str) -> NoReturn:
        raise BadArgument(
            f"{name}: {self.limits.open:,} of this run are open already: wait for some before more are called"
        )

    def detach(self, child: Any) -> None:
        found = self.children.get(child.key) if isinstance(child, ChildStep) else None
        if found is None:
            raise BadArgument("detach() takes a child run that was called in this flow and has not ended")
        found.detached = True
        if not found.target.done():
            found.target.set_exception(BadArgument(f"{found.key} is detached: this run does not wait for it any more"))
            found.target.exception()  # nobody need await it

    def wait_signal(self, name: str, type: Any, timeout_us: int | None) -> Awaitable[Any]:
        if self.dropped:
            raise Dropped
        return self._wait_signal(name, Shape(type, f"signal {name!r}"), timeout_us)

    async def _wait_signal(self, name: str, shape: Shape, timeout_us: int | None) -> Any:
        key = self._key(f"signal:{name}")
        self._asked(b"signal", key, b"")
        unread = self._signals.take(name)
        if unread is not None:
            return shape.decode(unread)
        waiter = FlowFuture(self)
        self._signals.await_next(name, waiter)
        try:
            async with asyncio.timeout(None if timeout_us is None else timeout_us / 1_000_000):
                return shape.decode(await waiter)
        finally:
            self._signals.leave(name, waiter)

    def signal_run(self, run_id: str, name: str, value: Any) -> Sent:
        if self.dropped:
            raise Dropped
        raw = SIGNAL_VALUE.encode(value, self.limits.payload)
        key = self._key(f"send:{name}")
        self._asked(b"send", f"{key}>{run_id}", raw)
        self.commands.append(SendSignal(run_id, name, raw, f"{self.run_id}:{self.steps_generation}:{key}"))
        return Sent()

    def patched(self, id: str) -> bool:
        if id in self._patches:
            return True
        taken = self.live or any(isinstance(fact, f.PatchTaken) and fact.id == id for fact in self.expected)
        if taken:
            self._patches.add(id)
            self.decisions.append(f.PatchTaken(self.now, self.asked_n, self.asked_h, id))
        return taken

    def continue_as_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        raise ContinueAsNew(self.spec.signature.pack(args, kwargs, self.limits.payload)[0])

    def now_us(self) -> int:
        return self.now

    def chance(self) -> int:
        if self.dropped:
            raise Dropped
        task = asyncio.current_task(self) if self.root is not None and not self.root.done() else None
        if isinstance(task, FlowTask):
            count = task.counts[""] = task.counts.get("", 0) + 1
            label = f"{self.seed}\0{task.scope}\0{count}"
        else:
            label = f"{self.seed}\0next"
        return int.from_bytes(blake2b(label.encode(), digest_size=16).digest(), "little")

    def refuse(self, what: str) -> NoReturn:
        raise NotDurable(what, "it in a graph, or in a task")

    def _key(self, name: str) -> str:
        scope = self.scope()
        count = scope.counts[name] = scope.counts.get(name, 0) + 1
        return f"{scope.scope}{name}#{count}"

    # --- the loop's side -------------------------------------------------------------------------------

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that reaches nobody: told as asyncio does, once, and not on replay."""
        if self.live and not self.dropped:
            log.error("run %s: %s", self.run_id, context.get("message"), exc_info=context.get("exception"))

    def _time_us(self) -> int:
        return self.now

    def _timer_key(self, due: int) -> str:
        task = asyncio.current_task(self)
        counts, scope = (task.counts, task.scope) if isinstance(task, FlowTask) else (self._bare_counts, "callback.")
        count = counts["timer"] = counts.get("timer", 0) + 1
        key = f"{scope}timer#{count}"
        self._asked(b"timer", key, b"%d" % (due - self.now))
        return key

    def next_timer(self) -> tuple[int, str] | None:
        timer = self.top_timer()
        return None if timer is None else (timer.due, timer.key)

    def only_steps(self) -> bool:
        return (
            not self._timers
            and not self._signals.awaited()
            and not self.retries
            and not self.children
            and self.intent is None
        )

    def _signals_wanted(self) -> tuple[str, ...]:
        return self._signals.wanted()

    def drop(self) -> None:
        if self.dropped:
            return
        self.dropped = self.variables.closed = True
        tasks = [task for task in (self.root, *self._tasks) if task is not None and not task.done()]
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.close_coroutine(task.get_coro())
        self.close_generators()
        for task in tasks:
            untie(task._fut_waiter)  # type: ignore[attr-defined]
            untie(task)
        for future in (*self.open.values(), *(child.target for child in self.children.values())):
            untie(future)
        for future in self._failed:
            future._log_traceback = False
        self.root = None
        self._context = Context()  # the old one names this flow
        self._ready.clear()
        self._timers.clear()
        self._tasks.clear()
        self._signals = Signals()
        self._failed.clear()
        self.open.clear()
        self.fresh.clear()
        self.children.clear()

    _fold: ClassVar[dict[type[f.Fact], Callable[[Any, Any], None]]] = {
        **Decider._fold,
        f.RunStarted: _on_started,
        f.RunContinued: _on_continued,
        f.RunRetried: _on_retried,
        f.StepCompleted: _on_completed,
        f.AttemptFailed: _on_failed,
        f.StepResolved: _on_resolved,
        f.ChildEnded: _on_child_ended,
        f.TimerFired: _on_timer,
        f.SignalReceived: _on_signal,
        f.CancelRequested: _on_cancel,
    }
