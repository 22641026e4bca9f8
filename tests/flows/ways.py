"""Running one scenario in several ways (live, through crashes, out of memory and back) to compare what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from perdure.errors import NeedsAttention, RunCancelled, RunFailed
from perdure.model import fact as f
from perdure.model.workflow import WorkflowSpec
from perdure.runtime.desk import Handle
from perdure.testing.faults import FaultKind, SimulatedCrash
from perdure.testing.world import World

Script = Callable[[World, Handle], None]
COMMITS_MAX = 400


class Case(NamedTuple):
    """A run to be made. Shape: `script` plans what is said to it."""

    workflow: WorkflowSpec
    args: tuple[Any, ...] = ()
    script: Script | None = None


class Seen(NamedTuple):
    """What came of a run. Shape: `steps` are its recorded ends, in the order of their keys."""

    status: str
    outcome: str
    variables: bytes
    steps: tuple[str, ...]


def begun(world: World, case: Case, id: str = "the-run") -> Handle:
    """Start the case's run, and plan its script."""
    world.serve(case.workflow)
    handle = world.start(case.workflow, *case.args, id=id)
    if case.script is not None:
        case.script(world, handle)
    return handle


def ended(world: World, run: str = "the-run") -> str:
    """Let the run come to its end; how that was, as a reader would compare it."""
    try:
        return f"result {msgspec.json.encode(world.result(run)).decode()}"
    except RunFailed as error:
        return f"failed {error.failure.summary()}"
    except RunCancelled as error:
        return f"cancelled {error.reason}"
    except NeedsAttention as error:
        return f"attention {error.reason}"


def seen(world: World, outcome: str, run: str = "the-run") -> Seen:
    """The run as it ended, after its audit (which replays its code and compares every digest)."""
    world.run_to_rest()
    wrong = world.audit_all()
    assert not wrong, wrong
    row = world.row(run)
    ends = sorted(_said(fact) for fact in world.history(run) if _is_end(fact))
    return Seen(row.status, outcome, bytes(row.variables), tuple(ends))


def _is_end(fact: f.AnyFact) -> bool:
    return isinstance(fact, f.StepCompleted | f.ChildEnded) or (
        isinstance(fact, f.AttemptFailed) and fact.retry_at is None
    )


def _said(fact: Any) -> str:
    if isinstance(fact, f.AttemptFailed):
        return f"{fact.key} failed {fact.failure.type}"
    return f"{fact.key} {bytes(fact.result).decode()}"


def live(case: Case, **settings: Any) -> tuple[Seen, int]:
    """The run without any fault, and the number of commits that its world made until it ended."""
    with World("memory:", **settings) as world:
        begun(world, case)
        outcome = ended(world)
        commits = world.store.commits
        return seen(world, outcome), commits


def crashed(case: Case, commit: int, kind: FaultKind, **settings: Any) -> Seen | None:
    """The run on a machine that dies beside one commit and starts again; None when that commit was not reached."""
    with World("memory:", **settings) as world:
        world.serve(case.workflow)
        world.store.fail_at(commit, kind)
        outcome = _through(world, case)
        if not world.store.fired:
            return None
        return seen(world, outcome)


def _through(world: World, case: Case) -> str:
    """Say what a caller says who asks again after each crash."""
    said = False
    while True:
        try:
            if not said:
                handle = world.start(case.workflow, *case.args, id="the-run")
                said = True
                if case.script is not None:
                    case.script(world, handle)
            return ended(world)
        except SimulatedCrash:
            continue


def crashes(case: Case, commits: int, kinds: tuple[FaultKind, ...] = ("crash_before", "crash_after")) -> list[Seen]:
    """What came of the run for a death before and after each of its commits."""
    assert commits < COMMITS_MAX
    found = [crashed(case, commit, kind) for commit in range(1, commits + 1) for kind in kinds]
    came = [one for one in found if one is not None]
    assert len(came) >= commits, "the planned deaths took place"
    return came


def evicted(case: Case) -> tuple[Seen, int]:
    """The run in a world that keeps nothing in memory which only waits; with how often it left."""
    with World("memory:", runs_resident_max=0) as world:
        left = 0
        sweep = world.engine.sweep
        evict = sweep.evicted

        def counted(run: Any) -> None:
            nonlocal left
            left += 1
            evict(run)

        world.engine.node.on_evict = counted
        begun(world, case)
        outcome = ended(world)
        return seen(world, outcome), left
