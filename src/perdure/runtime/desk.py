"""What may be asked of runs, alike for an engine and for a client of its store: start, look, signal, cancel…"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Literal

import msgspec

from perdure.clock import Clock
from perdure.errors import (
    BadCall,
    IdInUse,
    NeedsAttention,
    RunCancelled,
    RunFailed,
    UnknownRun,
    UnknownWorkflow,
    WrongState,
)
from perdure.kernel.audit_report import AuditReport
from perdure.kernel.flow import SIGNAL_VALUE, Watch
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.duration import Duration, duration_us
from perdure.model.failure import Failure
from perdure.model.graph import GraphDefinition
from perdure.model.ids import check_id, child_id, drawn_id
from perdure.model.payload import Shape, blob_hash, canonical, input_hash, is_blob
from perdure.model.run import STATUSES, Life, Outcome, RunRow, Status, WorkflowState
from perdure.model.text import check_signal_name, check_text
from perdure.model.workflow import WorkflowSpec
from perdure.monitoring.why import Why
from perdure.runtime.definitions import definition_of
from perdure.runtime.inspect import state_of
from perdure.runtime.live import Ended
from perdure.runtime.verify import verify_run
from perdure.runtime.ways import ways_out
from perdure.runtime.why import Explaining
from perdure.settings import Settings
from perdure.state.store import Query, WholeStore

PAGE = 200


class Handle:
    """A run, by its id. No I/O until something is asked; every call tells if there is no such run."""

    def __init__(self, desk: Desk, id: str, result: Shape | None = None) -> None:
        self.id = id
        self._desk, self._result = desk, result

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def signal(self, name: str, value: Any = None, *, request_id: str | None = None) -> None:
        """Send a signal; durable when this returns. Said twice with one request id, it counts once."""
        await self._desk.signal(self.id, name, value, request_id=request_id)

    async def cancel(self, reason: str = "", *, force: bool = False, request_id: str | None = None) -> None:
        """Ask the run to end; durable when this returns.

        `force` ends it without its code, compensating from its facts.
        """
        await self._desk.cancel(self.id, reason, force=force, request_id=request_id)

    async def result(self, timeout: Duration | None = None) -> Any:
        """Wait for the run's end.

        Raises: `RunFailed`, `RunCancelled`, `NeedsAttention`; `ResultTimeout` when it goes on; `UnknownRun`.
        """
        return await self._desk.result(self.id, timeout, self._result)

    async def state(self) -> WorkflowState:
        """Variables, history, metadata, timestamp."""
        return await self._desk.state(self.id)

    async def why(self) -> Why:
        """What the run waits for, and since when: signals, timers, steps, children, an engine, a person."""
        return await self._desk.why(self.id)

    async def status(self) -> Status:
        return (await self._desk.row(self.id)).status


class Desk(Explaining):
    """Shape: `catalogue` are the workflows known here, for typed results and starts by name; `watch` interrupts code that
    blocks while it is replayed, where there is a loop to be kept free.
    """

    watch: Watch | None = None

    def __init__(self, store: WholeStore, settings: Settings, clock: Clock, catalogue: Any) -> None:
        self.store, self.settings, self.clock, self.catalogue = store, settings, clock, catalogue

    # --- to be filled in -----------------------------------------------------------------------------

    async def send(self, message: m.Message, *, repeated: bool = False) -> Any:
        """Make the message durable and let it be folded."""
        raise NotImplementedError

    async def wait_end(self, run_id: str, timeout_us: int | None) -> Ended:
        """Wait until the run has ended or needs attention. Raises: `ResultTimeout`, `UnknownRun`."""
        raise NotImplementedError

    # --- starting --------------------------------------------------------------------------------------

    async def start(
        self, workflow: WorkflowSpec | str, *args: Any, id: str | None = None, tags: Mapping[str, str] | None = None,
        request_id: str | None = None, input: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> Handle:  # fmt: skip
        """Start a run; durable when this returns. With an id, the same id and input give the same run.

        Shape: `input` gives the parameters by name instead of as arguments.
        Raises: `BadArgument`, `IdInUse`, `UnknownWorkflow`; nothing was written.
        """
        spec = self._spec(workflow)
        raw = encoded_input(spec, args, kwargs, by_name=input, limit=self.settings.payload_max)
        if id is not None:
            check_id(id)
        if request_id is not None:
            check_id(request_id, "request id")
        message = m.Start(
            run=id or self._draw(spec.name), workflow=spec.name, version=spec.version,
            definition=spec.definition_hash,
            input=msgspec.Raw(raw), input_hash=input_hash(raw), tags=_tags(tags), seed=self.clock.chance() >> 65,
            drawn=id is None, source=spec.source, request=request_id or "",
        )  # fmt: skip
        if request_id is not None:
            known = (await self.store.answers([request_id])).get(request_id)
            if known is not None:
                return Handle(self, known[0], spec.result)
        run_id = await self._begin(message, spec)
        return Handle(self, str(run_id), spec.result)

    async def _begin(self, message: m.Start, spec: WorkflowSpec) -> Any:  # noqa: ARG002 - a client says what it starts
        return await self.send(message)

    def _draw(self, name: str) -> str:
        """An id for a new run."""
        return drawn_id(name, self.clock.chance())

    def _spec(self, workflow: WorkflowSpec | str) -> WorkflowSpec:
        if isinstance(workflow, str):
            found: WorkflowSpec | None = self.catalogue.workflow(workflow, "")
            if found is None:
                raise UnknownWorkflow(workflow)
            return found
        if not isinstance(workflow, WorkflowSpec):
            raise BadCall(f"start() takes a workflow, not {workflow!r}: decorate it with @workflow or @graph")
        return workflow

    # --- looking -----------------------------------------------------------------------------------------

    def get(self, id: str) -> Handle:
        """The handle of a run by its id."""
        return Handle(self, check_id(id))

    async def row(self, run_id: str) -> RunRow:
        """Raises: `UnknownRun`."""
        rows = await self.store.find(Query(ids=(check_id(run_id),), limit=1))
        if not rows:
            raise UnknownRun(run_id)
        return rows[0]

    async def runs(
        self, *, status: Status | Iterable[Status] | None = None, workflow: str | None = None,
        tags: Mapping[str, str] | None = None, limit: int | None = 100,
    ) -> AsyncIterator[RunRow]:  # fmt: skip
        """Runs, the newest first. Raises: `BadCall` for a status that does not exist."""
        wanted = (status,) if isinstance(status, str) else None if status is None else tuple(status)
        for one in wanted or ():
            if one not in STATUSES:
                raise BadCall(f"status {one!r}: one of {', '.join(STATUSES)}")
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise BadCall(f"limit {limit!r}: a number of runs, or None for all")
        after, left = None, limit if limit is not None else 1 << 62
        while left > 0:
            page = await self.store.find(
                Query(status=wanted, workflow=workflow, tags=tags, after=after, limit=min(PAGE, left))
            )
            for row in page:
                yield row
            left -= len(page)
            if len(page) < PAGE or not page:
                return
            after = page[-1]

    async def state(self, run_id: str) -> WorkflowState:
        """Raises: `UnknownRun`."""
        return await state_of(self.store, check_id(run_id))

    async def definition(self, run_id: str) -> GraphDefinition | None:
        """The graph that the run is of, as the store keeps it; None for a flow's. Raises: `UnknownRun`."""
        return await definition_of(self.store, (await self.row(run_id)).definition)

    async def verify(self, run_id: str) -> AuditReport:
        """Check the four conditions over the run's history, replaying its code where that is known here."""
        return await verify_run(self.store, self.catalogue, self.settings, check_id(run_id), watch=self.watch)

    async def result(self, run_id: str, timeout: Duration | None = None, shape: Shape | None = None) -> Any:
        """See `Handle.result`."""
        limit = None if timeout is None else duration_us(timeout, "timeout")
        return await self._outcome(await self.wait_end(check_id(run_id), limit), shape)

    async def _outcome(self, ended: Ended, shape: Shape | None) -> Any:
        outcome = msgspec.json.decode(ended.outcome or b"{}", type=Outcome)
        if ended.life is Life.COMPLETED:
            raw = bytes(outcome.result)
            if is_blob(raw):
                raw = (await self.store.blobs([blob_hash(raw)]))[blob_hash(raw)]
            if shape is None:
                spec = self.catalogue.workflow(ended.workflow, ended.version, ended.definition)
                shape = spec.result if spec is not None else Shape(Any, "result")
            return shape.decode(raw)
        if ended.life is Life.FAILED:
            raise RunFailed(ended.id, outcome.failure or Failure("perdure.RunFailed", "it failed"))
        if ended.life is Life.CANCELLED:
            raise RunCancelled(ended.id, outcome.reason or "")
        raise NeedsAttention(ended.id, outcome.reason or "", ways_out(ended.id, outcome))

    # --- asking for change ---------------------------------------------------------------------------------

    async def signal(self, run_id: str, name: str, value: Any = None, *, request_id: str | None = None) -> None:
        """See `Handle.signal`. Raises: `UnknownRun`, `WrongState` when the run has ended."""
        raw = SIGNAL_VALUE.encode(value, self.settings.payload_max)
        check_signal_name(name)
        await self._ask(m.Signal(run=check_id(run_id), name=name, value=msgspec.Raw(raw)), request_id)

    async def cancel(
        self, run_id: str, reason: str = "", *, force: bool = False, request_id: str | None = None
    ) -> None:
        """See `Handle.cancel`."""
        await self._ask(m.Cancel(run=check_id(run_id), reason=check_text(reason, "reason"), force=force), request_id)

    async def retry(self, run_id: str, *, by: str = "", why: str = "", request_id: str | None = None) -> Handle:
        """The same run, next generation: what succeeded and was not compensated is kept.

        Resumes one that needs attention.
        """
        message = m.Retry(run=check_id(run_id), by=check_text(by, "by"), why=check_text(why, "why"))
        await self._ask(message, request_id)
        return Handle(self, run_id)

    async def resolve(
        self, run_id: str, step: str, how: Literal["result", "fail", "retry"], result: Any = None, *, by: str = "",
        request_id: str | None = None,
    ) -> None:  # fmt: skip
        """A person's word on a step of a run that needs attention."""
        if how not in {"result", "fail", "retry"}:
            raise BadCall(f'how={how!r}: "result", "fail" or "retry"')
        raw = (
            msgspec.Raw(canonical(SIGNAL_VALUE.encode(result, self.settings.payload_max)))
            if how == "result"
            else f.NULL
        )
        step, by = check_text(step, "step"), check_text(by, "by")
        await self._ask(m.Resolve(run=check_id(run_id), step=step, how=how, result=raw, by=by), request_id)

    async def fork(self, run_id: str, at: int, *, id: str | None = None, request_id: str | None = None) -> Handle:
        """A new run with the first `at` facts of this one. Said twice with one request id, it is made once."""
        if request_id is not None:
            known = (await self.store.answers([check_id(request_id, "request id")])).get(request_id)
            if known is not None:
                return Handle(self, known[0])
        origin = await self.row(run_id)
        if not isinstance(at, int) or not 1 <= at <= origin.seq:
            raise WrongState(f"run {run_id} has {origin.seq} facts: it cannot be forked at {at}")
        if id is not None:
            new = check_id(id)
        elif request_id is not None:  # asked again before it is answered, it names the same run
            new = child_id(run_id, 0, request_id, origin.workflow)
        else:
            new = drawn_id(origin.workflow, self.clock.chance())
        if id is not None and await self.store.find(Query(ids=(new,), limit=1)):
            raise IdInUse(new, origin.workflow)
        await self._ask(m.Fork(run=new, origin=run_id, upto=at, drawn=id is None and request_id is None), request_id)
        return Handle(self, new)

    async def _ask(self, message: m.Message, request_id: str | None) -> Any:
        message.request = (
            check_id(request_id, "request id") if request_id is not None else f"r-{self.clock.chance():032x}"
        )
        return await self.send(message, repeated=request_id is not None)


def encoded_input(
    spec: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any], *, by_name: Mapping[str, Any] | None, limit: int
) -> bytes:
    """The input of a run, from arguments or by the parameters' names. Raises: `BadCall` and its kin."""
    if by_name is None:
        return spec.signature.pack(args, kwargs, limit)[0]
    if args or kwargs:
        raise BadCall(f"{spec.name}: give its arguments, or input= with all of them by name, not both")
    if not isinstance(by_name, Mapping):
        raise BadCall(f"{spec.name}: input= takes a mapping of its parameters by name, not {str(by_name)[:60]!r}")
    return spec.signature.from_names(dict(by_name), limit)


def _tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    if tags is not None and not isinstance(tags, Mapping):
        raise BadCall(f"tags={str(tags)[:60]!r}: a mapping of texts to texts")
    for key, value in (tags or {}).items():
        if not check_text(key, "tag's name", 100):
            raise BadCall("tag's name '': 1 to 100 characters")
        check_text(value, f"tag {key!r}", 500)
    return dict(tags or {})
