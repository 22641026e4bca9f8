"""What is done once a batch is durable: callers are told, attempts begin, runs rest or leave memory (D3)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from perdure.model.run import Life
from perdure.runtime.admission import refused
from perdure.runtime.attempt import Attempt
from perdure.runtime.hold import Hold
from perdure.runtime.outage import reread
from perdure.runtime.work import Probe

if TYPE_CHECKING:
    from perdure.runtime.live import LiveRun
    from perdure.runtime.node import Node
    from perdure.runtime.work import Work
    from perdure.state.store import Committed

log = logging.getLogger("perdure.node")
# How many are looked at when one more rests: those that are due soon stay, and must not keep the others in memory.
EVICT_TRIES = 4


def act(node: Node, work: Work, committed: Committed) -> None:
    """The batch is durable. Whatever goes wrong in what follows, what is durable is told, and its runs go on."""
    node.pause_s = 0.0
    if work.batch.facts:
        node.suspects.discard(work.solo)
    try:
        if committed.refused:
            refused(node, work, committed.refused)
        _act(node, work)
    except Exception:
        log.exception("what follows from a commit was not done: its runs are read again")
        work.tell()
        reread(node, work)


def _act(node: Node, work: Work) -> None:
    work.tell()
    pools = node.pools
    for attempt in work.attempts:
        pools.forget(attempt)
    for run_id, key in work.abandons:
        pools.abandon(run_id, key)
    if work.begins and not node.stopping:
        _begin(node, work)
    ahead = node.advance.work.runs
    for run in work.runs:
        if run in ahead:  # it was folded further meanwhile: what became of it is told when that is durable too
            continue
        run.batch = None
        if run.life is Life.LIVE:
            _rest(node, run)
        else:
            _leave(node, run)
    for run_id in work.loads:
        node.on_load(run_id, None)
    for told in node.on_commit:
        told(work)
    node.dues.set_alarm()


def _begin(node: Node, work: Work) -> None:
    """Begin the attempts that are still asked for, but for those that run already."""
    runs, epoch, pools = node.advance.runs, node.epoch, node.pools
    running = pools.running
    attempts = []
    wanted: Any
    step: Any
    known: Any
    for run, steps in work.begins:
        if runs.get(run.id) is not run or run.life is not Life.LIVE or not node.territory.begins(run.id):
            continue
        asked, progress = run.decider.open, run.progress
        for wanted in steps:
            probing = type(wanted) is Probe
            step = wanted.step if probing else wanted
            known = asked.get(step.key)
            if known is not step:
                continue
            if wanted.number != step.attempt if probing else step.due is not None:
                continue  # what was in doubt is known by now, or the step waits for a retry
            there = running.get((run.id, step.key))
            if there is not None and there.number == step.attempt and not there.left and (there.probing or not probing):
                there.step = step  # it still runs from before a reload (S14)
                continue
            attempt = Attempt(run.id, step, epoch, progress.get(step.key) if progress else None, pools)
            if probing:
                attempt.probing, attempt.after = True, wanted.after
            elif step.spec.transaction:
                attempt.hold = Hold(run.decider.seed)
            attempts.append(attempt)
    if attempts:
        pools.begin(attempts)


def _rest(node: Node, run: LiveRun) -> None:
    """A run that lives on: note when it is due; it may leave memory when it only waits."""
    if run.due is not None:
        node.dues.note(run.due, run.id)
    resident = node.resident
    if run.wait.open:
        resident.pop(run.id, None)
        return
    resident[run.id] = None
    resident.move_to_end(run.id)
    for _ in range(EVICT_TRIES):
        if len(resident) <= node.settings.runs_resident_max:
            break
        _evict(node)


def _evict(node: Node) -> None:
    """Let the run that was used least recently leave memory (S10)."""
    advance = node.advance
    run_id, _ = node.resident.popitem(last=False)
    run = advance.runs.get(run_id)
    if run is None or run.batch is not None or run in advance.work.runs or run.wait.open:
        return
    if run.due is not None and run.due - advance.now < 100 * (200 + 20 * run.seq):
        node.resident[run_id] = None
        return
    del advance.runs[run_id]
    run.decider.drop()
    node.on_load.left(run_id)
    node.on_evict(run)


def _leave(node: Node, run: LiveRun) -> None:
    """A run that ended or needs attention leaves memory; those who wait for it are told."""
    if node.advance.runs.get(run.id) is run:
        del node.advance.runs[run.id]
    node.resident.pop(run.id, None)
    run.decider.drop()
    node.on_load.left(run.id)
    node.on_load.aside.runs.discard(run.id)
    if run.id in node.waiters:
        node.tell(run.ended())
