"""One small handler for each message to a run in memory: what it records, and when it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.errors import PerdureError, WrongState
from perdure.kernel.failures import type_name
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.failure import Failure
from perdure.runtime.live import LiveRun

if TYPE_CHECKING:
    from perdure.runtime.advance import Advance


def signal(advance: Advance, run: LiveRun, message: m.Signal) -> None:
    decider = run.decider
    advance.record(
        run,
        f.SignalReceived(
            advance.at(run, message.at), decider.asked_n, decider.asked_h, message.name, message.value, message.request
        ),
    )


def cancel(advance: Advance, run: LiveRun, message: m.Cancel) -> None:
    decider = run.decider
    if decider.cancelled is not None and not message.force:
        return
    advance.record(
        run,
        f.CancelRequested(
            advance.at(run, message.at),
            decider.asked_n,
            decider.asked_h,
            message.reason,
            message.request,
            message.force,
        ),
    )


def child_done(advance: Advance, run: LiveRun, message: m.ChildDone) -> None:
    decider = run.decider
    child = decider.children.get(message.key)
    if child is None or child.id != message.child or child.detached:
        advance.late += 1
        return
    advance.record(
        run,
        f.ChildEnded(
            advance.at(run, message.at), decider.asked_n, decider.asked_h, message.key, message.child, message.status,
            child.asked_seq, child.ask, message.result, message.failure,
            f.NULL if child.workflow.compensate is None else msgspec.Raw(child.args),
        ),
    )  # fmt: skip


def resolve(advance: Advance, run: LiveRun, message: m.Resolve) -> None:
    """Raises: `WrongState` when the step is not open."""
    decider = run.decider
    step = decider.open.get(message.step)
    if step is None:
        raise WrongState(
            f"run {run.id} has no open step {message.step!r}; open are: {', '.join(decider.open) or 'none'}"
        )
    if message.how == "result":
        step.spec.result.decode(message.result)
    failure = (
        Failure("perdure.Resolved", f"failed by {message.by or 'hand'}", step=message.step)
        if message.how == "fail"
        else None
    )
    advance.work.abandons.append((run.id, message.step))
    advance.record(
        run,
        f.StepResolved(
            advance.at(run, message.at), decider.asked_n, decider.asked_h, message.step, message.how, message.result,
            failure,
            message.by, message.request,
        ),
    )  # fmt: skip


def not_started(start: m.Start, error: PerdureError) -> m.ChildDone:
    """What a parent is told of a child that could not be started."""
    failure = Failure(type_name(type(error)), str(error), "refused")
    return m.ChildDone(
        run=start.parent, at=start.at, key=start.parent_key, child=start.run, status="failed", failure=failure,
        request=f"{start.run}:0:ended",
    )  # fmt: skip


HANDLERS: Mapping[type[m.Message], Callable[[Advance, LiveRun, Any], None]] = {
    m.Signal: signal,
    m.Cancel: cancel,
    m.ChildDone: child_done,
    m.Resolve: resolve,
}
