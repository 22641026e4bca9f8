"""The one door through which a run changes: fold a message, decide, gather facts and commands.

Nothing here is shown to anyone: the node commits what was gathered, then acts on it.
"""

from __future__ import annotations

import logging
import platform
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.errors import IdInUse, UnknownWorkflow
from perdure.kernel import attempt as attempts
from perdure.kernel.decider import Decider
from perdure.kernel.flow import Limits
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.command import Abandon, CancelChild, SendSignal, StartChild
from perdure.model.failure import Failure
from perdure.model.payload import blob_ref
from perdure.model.run import Life, Outcome, Wait
from perdure.runtime import definitions, length, snapshots
from perdure.runtime.handlers import HANDLERS
from perdure.runtime.live import LiveRun
from perdure.runtime.replay import make
from perdure.runtime.work import Probe, Work
from perdure.state.blobs import blob_hash_of
from perdure.state.store import NewRun, Progress, Ref
from perdure.version import VERSION

if TYPE_CHECKING:
    from perdure.authoring.registry import Registry
    from perdure.runtime.attempt import Attempt
    from perdure.runtime.watchdog import Watchdog
    from perdure.settings import Settings

log = logging.getLogger("perdure.advance")
PYTHON = platform.python_version()
encode_json = msgspec.json.Encoder().encode
# Waits that hold nothing but a number of open steps, and their encodings: most commits write one of few.
_STEPS_ONLY: dict[int, tuple[Wait, bytes]] = {}
STEPS_ONLY_KEPT = 1_000
# Generations that may begin in one commit of a run: more is an endless loop.
CONTINUES_MAX = 1_000
_STALLED = (
    "it waits for nothing that can happen: no step, timer, signal or child run; wait_signal(...) waits for a person"
)
_NOT_DECLARED = "its outcome is unknown: an exception that it does not declare left it"


class Advance:
    """Folds messages into runs and gathers the next commit in `work`.

    Shape: `late` counts outcomes, of attempts and children, that came when nobody waited for them any more.
    """

    def __init__(self, catalogue: Registry, settings: Settings, epoch: int, watchdog: Watchdog) -> None:
        self.catalogue, self.settings, self.epoch, self.watchdog = catalogue, settings, epoch, watchdog
        self.limits = Limits(
            settings.payload_max, settings.turn_callbacks_max, settings.children_depth_max, watch=watchdog
        )
        self.runs: dict[str, LiveRun] = {}
        self.work = Work()
        self.pending: deque[m.Message] = deque()
        self.now = 0
        self.late = 0

    # --- writing -----------------------------------------------------------------------------------

    def write(self, run: LiveRun, fact: f.AnyFact) -> None:
        """Add a fact to the run's history, as part of the next commit."""
        body = f.encode_fact(fact)
        if len(body) > self.settings.blob_min:
            body = self._with_blobs(run, fact)
        run.head = head = f.chain(run.head, body)
        run.seq += 1
        work = self.work
        work.batch.facts.append((run.ref, run.seq, body, head))
        work.size += len(body)
        work.runs[run] = None

    def _with_blobs(self, run: LiveRun, fact: f.AnyFact) -> bytes:
        """The fact's body with large values moved to blobs."""
        changes: dict[str, msgspec.Raw] = {}
        for name in ("result", "input", "value", "args"):
            raw = getattr(fact, name, None)
            if isinstance(raw, msgspec.Raw) and len(bytes(raw)) > self.settings.blob_min:
                data = bytes(raw)
                digest = blob_hash_of(data)
                self.work.batch.blobs.append((run.ref, digest, data))
                self.work.size += len(data)
                changes[name] = msgspec.Raw(blob_ref(digest, len(data)))
        return f.encode_fact(msgspec.structs.replace(fact, **changes))

    def record(self, run: LiveRun, fact: f.AnyFact) -> None:
        """One turn: write the fact, fold it, write what the run decided, note what it wants."""
        self._turn(run, fact)
        continued = self._follow(run)
        if continued is not None:
            self._continue(run, continued)
        if run.seq >= run.look_at and type(fact) is not f.RunResumed:
            length.look(self, run)

    def _turn(self, run: LiveRun, fact: f.AnyFact) -> None:
        self.write(run, fact)
        self.watchdog.fold(run.decider, fact, run.seq)

    def _follow(self, run: LiveRun) -> f.RunContinued | None:
        """What a turn led to: trouble, decisions, commands. Gives a continuation for its caller to begin."""
        decider = run.decider
        if decider.trouble is not None:
            self.attention(run, *decider.trouble)
            return None
        if decider.decisions:
            decisions, decider.decisions = decider.decisions, []
            for fact in decisions:
                if isinstance(fact, f.RunContinued):
                    return fact
                self.write(run, fact)
                if isinstance(fact, f.ENDS):
                    self._ended(run, fact)
        if decider.commands:
            self._command(run)
        return None

    def _continue(self, run: LiveRun, fact: f.RunContinued) -> None:
        """Begin the next generation in the same commit, and those that follow on it at once, up to a bound."""
        following: f.RunContinued | None = fact
        for _ in range(CONTINUES_MAX):
            if following is None:
                return
            self._command(run)
            self._forget_progress(run)
            run.decider.drop()
            run.look_at = 0
            run.generation = following.generation
            run.definition = run.spec.definition_hash
            run.decider = make(run.id, run.spec, self.catalogue, self.limits)
            self.work.batch.restart.append((run.ref, run.seq + 1))
            self._turn(run, following)
            following = self._follow(run)
        if following is not None:
            reason = f"it continued as new {CONTINUES_MAX} times in a row and waited for nothing: an endless loop?"
            self.attention(run, "endless_turn", reason)

    def attention(self, run: LiveRun, cause: f.Cause, reason: str, step: str = "") -> None:
        """The run cannot go on by itself: say so in its history, and let it leave memory."""
        asked = run.decider
        self.write(
            run,
            f.AttentionSet(self.at(run), asked.asked_n, asked.asked_h, cause, reason, step, run.spec.definition_hash),
        )
        run.life = Life.ATTENTION
        run.outcome = encode_json(Outcome(reason=reason, cause=cause, step=step or None))
        for key in list(asked.open):
            self.work.abandons.append((run.id, key))

    def progressed(self, work: Work, run_id: str, attempt: Attempt, value: bytes) -> None:
        """How far an attempt is: kept in the store, and given to the next attempt."""
        work.batch.progress.append(Progress(run_id, attempt.key, attempt.number, self.now, value))
        run = self.runs.get(run_id)
        if run is not None:
            run.progress[attempt.key] = value

    def _forget_progress(self, run: LiveRun) -> None:
        if run.progress:
            run.progress.clear()
            self.work.batch.progress_done.append(run.id)

    def _ended(self, run: LiveRun, fact: f.AnyFact) -> None:
        self._forget_progress(run)
        result, failure = f.NULL, None
        status: Any
        if isinstance(fact, f.RunCompleted):
            run.life, status, result = Life.COMPLETED, "completed", fact.result
            run.outcome = encode_json(Outcome(result=self._kept(fact.result)))
        elif isinstance(fact, f.RunFailed):
            run.life, status, failure = Life.FAILED, "failed", fact.failure
            run.outcome = encode_json(Outcome(failure=failure))
        else:
            assert isinstance(fact, f.RunCancelled)
            run.life, status = Life.CANCELLED, "cancelled"
            failure = Failure("perdure.RunCancelled", fact.reason, "cancelled")
            run.outcome = encode_json(Outcome(reason=fact.reason))
        if run.parent:
            self.send(
                m.ChildDone(
                    run=run.parent, at=self.now, key=run.parent_key, child=run.id, status=status, result=result,
                    failure=failure,
                    request=f"{run.id}:{run.generation}:ended",
                )
            )  # fmt: skip

    def _kept(self, raw: msgspec.Raw) -> msgspec.Raw:
        """The result as the run's row keeps it: a reference when it is large."""
        size = len(bytes(raw))
        return raw if size <= self.settings.blob_min else msgspec.Raw(blob_ref(blob_hash_of(bytes(raw)), size))

    def _command(self, run: LiveRun) -> None:
        decider = run.decider
        commands, decider.commands = decider.commands, []
        for command in commands:
            if isinstance(command, Abandon):
                self.work.abandons.append((run.id, command.key))
            elif isinstance(command, StartChild):
                self.pending.append(self.child_start(run, command))
            elif isinstance(command, CancelChild):
                self.send(
                    m.Cancel(
                        run=command.child,
                        at=self.now,
                        request=f"{run.id}:{command.child}:cancel",
                        reason=command.reason,
                    )
                )
            elif isinstance(command, SendSignal):
                self.send(
                    m.Signal(
                        run=command.run,
                        at=self.now,
                        request=command.ordinal,
                        name=command.name,
                        value=msgspec.Raw(command.value),
                    )
                )

    def child_start(self, run: LiveRun, command: StartChild) -> m.Start:
        """The message that starts a child; its id is derived, so that sending it twice is sending it once."""
        from_parent = run.decider
        seed = (
            int.from_bytes(f.chain(from_parent.seed.to_bytes(8, "little"), command.child.encode())[:8], "little") >> 1
        )
        return m.Start(
            run=command.child, at=self.now, workflow=command.workflow.name, version=command.workflow.version,
            definition=command.workflow.definition_hash, input=msgspec.Raw(command.input), input_hash=b"", seed=seed,
            parent=run.id, parent_key=command.key, depth=from_parent.depth + 1,
        )  # fmt: skip

    def send(self, message: m.Message) -> None:
        """To another run: folded in this batch when it is in memory, else an inbox row in this commit."""
        target = self.runs.get(message.run)
        if target is not None and target.life is Life.LIVE:
            self.pending.append(message)
        else:
            self.keep(message)

    def keep(self, message: m.Message) -> None:
        """A row of the inbox, folded when its run is in memory."""
        self.work.batch.inbox.append(message)  # type: ignore[arg-type]
        self.work.loads[message.run] = None

    def at(self, run: LiveRun, time: int = 0) -> int:
        """The time of a fact: the engine's, or a message's own, never below that of the run's last fact."""
        return max(time or self.now, run.decider.now)

    # --- messages ------------------------------------------------------------------------------------

    def start(self, message: m.Start, row_exists: LiveRun | None = None) -> LiveRun:
        """Begin a run. Raises: `UnknownWorkflow`, `IdInUse`; nothing was written."""
        present = self.runs.get(message.run)
        if present is not None and row_exists is None:
            if message.parent and present.parent == message.parent:
                return present
            if present.input_hash != message.input_hash or present.spec.name != message.workflow:
                raise IdInUse(message.run, present.spec.name)
            return present
        spec = self.catalogue.workflow(message.workflow, message.version, message.definition)
        if spec is None:
            raise UnknownWorkflow(message.workflow, message.version)
        run = row_exists or LiveRun(message.run, spec, make(message.run, spec, self.catalogue, self.limits))
        run.parent, run.parent_key, run.input_hash = message.parent, message.parent_key, message.input_hash
        run.owner = self.epoch
        self.runs[run.id] = run
        if row_exists is None:
            self.work.batch.starts.append(self.new_run(message, run.ref))
        self.record(
            run,
            f.RunStarted(
                self.now, 0, 0, spec.name, spec.version, spec.definition_hash, message.input, message.seed, PYTHON,
                VERSION,
                message.parent, message.parent_key, message.request, message.source, message.depth,
            ),
        )  # fmt: skip
        return run

    def new_run(self, message: m.Start, ref: Ref | None = None) -> NewRun:
        """The first row of the run that a message starts."""
        return NewRun(
            ref=ref or Ref(message.run), workflow=message.workflow, version=message.version,
            definition=message.definition, input_hash=message.input_hash, tags=message.tags, parent=message.parent,
            parent_key=message.parent_key, source=message.source, request=message.request, created_at=self.now,
            drawn=message.drawn,
        )  # fmt: skip

    def outcome(self, run: LiveRun, attempt: Attempt) -> None:
        """An attempt ended: record it if it is still wanted, else drop it and count."""
        # No attempt outlives its node, which has one epoch: S14's late outcomes of another epoch reach no node.
        assert attempt.epoch == self.epoch
        decider = run.decider
        step = decider.open.get(attempt.key)
        if step is None or step.attempt != attempt.number or step.due is not None:
            self.late += 1
            log.info("late, and dropped: attempt %d of step %s of run %s", attempt.number, attempt.key, run.id)
            return
        failure = attempt.failure
        if failure is None:
            assert attempt.result is not None
            undo = step.spec.compensate
            self.record(
                run,
                f.StepCompleted(
                    self.at(run), decider.asked_n, decider.asked_h, attempt.key, attempt.number, attempt.epoch,
                    step.asked_seq,
                    step.ask, msgspec.Raw(attempt.result), attempt.worker, attempt.started,
                    f.NULL if undo is None else msgspec.Raw(step.args),
                ),
            )  # fmt: skip
        elif step.spec.at_most_once:
            self._unknown(run, step, attempt, failure)
        else:
            self._failed(run, step, attempt, failure)

    def _failed(self, run: LiveRun, step: Any, attempt: Attempt, failure: Failure) -> None:
        decider = run.decider
        at = self.at(run)
        retry = attempts.retry_at(step, failure, at, decider.seed, allowed=attempt.allowed)
        if retry is None:
            failure = attempts.final(step, failure)
        self._attempt_failed(run, step, attempt, failure, retry)

    def _attempt_failed(self, run: LiveRun, step: Any, attempt: Attempt, failure: Failure, retry: int | None) -> None:
        decider = run.decider
        if attempt.progress_new is not None:
            self.progressed(self.work, run.id, attempt, attempt.progress_new)
        self.record(
            run,
            f.AttemptFailed(
                self.at(run), decider.asked_n, decider.asked_h, attempt.key, attempt.number, attempt.epoch,
                step.asked_seq,
                step.ask, failure, retry, attempt.worker, attempt.started,
                f.NULL if step.spec.compensate is None else msgspec.Raw(step.args),
            ),
        )  # fmt: skip

    def _unknown(self, run: LiveRun, step: Any, attempt: Attempt, failure: Failure) -> None:
        """An at-most-once step ended in a way that tells nothing: its probe decides, else a person (S16)."""
        if attempt.declared and not attempt.probing:
            self._attempt_failed(run, step, attempt, attempts.final(step, failure), None)
        elif attempt.probing and failure.type == "perdure.errors.NotDone":
            self._not_done(run, step, attempt, failure)
        elif step.spec.probe is not None and not attempt.probing:
            self.begin_probe(run, step, attempt)
        else:
            why = _NOT_DECLARED if failure.kind == "error" else "its outcome is unknown"
            self.attention(run, "outcome_unknown", f"step {step.key}: {why}: {failure.summary()}", step.key)

    def _not_done(self, run: LiveRun, step: Any, probe: Attempt, failure: Failure) -> None:
        """The probe says that there was no effect: after a crash the attempt is made again, else its policy counts it."""
        after = probe.after
        if after is None or after.failure is None:
            self._attempt_failed(run, step, probe, failure, self.at(run))
        else:
            self._failed(run, step, after, msgspec.structs.replace(after.failure, kind="error"))

    def begin_probe(self, run: LiveRun, step: Any, after: Attempt | None = None) -> None:
        """Ask the task's probe what became of an attempt that nobody saw end, or that ended in doubt."""
        run.decider.fresh.pop(step.key, None)  # after a reload it is due again, and is not begun beside its probe
        self.work.begins.append((run, [Probe(step, after)]))
        self.work.runs[run] = None

    def tick(self, run: LiveRun, until: int) -> None:
        """Fire the timers that are due, one fact each, in order; release the retries that are due."""
        while run.life is Life.LIVE:
            timer = run.decider.next_timer()
            if timer is None or timer[0] > until:
                break
            decider = run.decider
            self.record(run, f.TimerFired(self.at(run, timer[0]), decider.asked_n, decider.asked_h, timer[1], timer[0]))
        if run.life is Life.LIVE and run.decider.retries:
            run.decider.release(until)
            self.work.runs[run] = None

    def message(self, run: LiveRun, message: m.Message) -> bool:
        """Fold one message; the timers that were due before it come first (S11). False: they have ended the run."""
        due = run.decider.timer_due()
        if due is not None and due < (message.at or self.now):
            self.tick(run, (message.at or self.now) - 1)
            if run.life is not Life.LIVE:
                return False
        if message.request:
            if message.request in run.requests:
                return True
            run.requests.add(message.request)
        HANDLERS[type(message)](self, run, message)
        return True

    # --- what a commit says of each run -----------------------------------------------------------------

    def seal(self, run: LiveRun, work: Work) -> None:
        """Add the last word on a run's row, and the attempts that begin once this is durable: when all is folded."""
        decider = run.decider
        if decider.fresh and run.life is Life.LIVE:
            self._begins(run, decider)
        wait = self._wait(run, decider) if run.life is Life.LIVE else b""
        if wait and run.wait.idle:
            self.attention(run, "stalled", _STALLED)
        if run.life is not Life.LIVE:
            run.due, wait = None, b"[]"
        if run.spec.graph is not None:
            self._seal_graph(run, work)
        work.batch.updates.append(self._row(run, wait, self.now))
        run.batch = work
        run.owner = self.epoch

    def _seal_graph(self, run: LiveRun, work: Work) -> None:
        """Keep the definition of a run that is new or moved by another one; take its snapshot when that is due."""
        if run.kept != run.definition:
            work.size += definitions.keep(work.batch, run.ref, run.spec)
            run.kept = run.definition
            snapshots.plan_next(run, self.settings)
        if run.life.ended:
            if run.snapped:
                snapshots.drop(run, work)
        elif 0 < run.snapshot_at <= run.seq and run.life is Life.LIVE:
            snapshots.write(run, work, self.settings)

    def _row(self, run: LiveRun, wait: bytes, now: int) -> Any:
        decider = run.decider
        variables = getattr(decider, "variables", None)
        if variables is not None and variables.values:
            run.variables = encode_json(variables.values)
        life = run.life
        ended = life is not Life.LIVE and life.ended
        return (
            run.ref, life.value, run.seq, run.head, decider.asked_n, decider.asked_h, run.generation, self.epoch,
            run.due,
            wait, run.variables, run.outcome, run.definition, now, decider.now if ended else None,
        )  # fmt: skip

    def _wait(self, run: LiveRun, decider: Decider) -> bytes:
        if decider.only_steps():
            count = len(decider.open)
            known = _STEPS_ONLY.get(count)
            if known is None:
                wait = Wait(open=count)
                known = wait, encode_json(wait)
                if count < STEPS_ONLY_KEPT:
                    _STEPS_ONLY[count] = known
            run.wait, run.due = known[0], None
            return known[1]
        wait = decider.wait()
        run.wait = wait
        run.due = wait.due
        return encode_json(wait)

    def _begins(self, run: LiveRun, decider: Decider) -> None:
        steps = decider.begin()
        for step in steps:
            if step.spec.at_most_once or step.key in run.marked:
                step.intent = self.epoch
                decider.now = self.at(run)  # as on replay: no later fact may be older
                self.write(
                    run,
                    f.IntentRecorded(
                        decider.now, decider.asked_n, decider.asked_h, step.key, step.attempt, self.epoch, step.ask
                    ),
                )
        self.work.begins.append((run, [*steps]))
