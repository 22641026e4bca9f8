"""Crash points: a workflow is run once for every place where its engine may die, and must end alike each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import comb
from typing import Any, Literal, NamedTuple

from perdure.errors import BadCall, NeedsAttention, RunCancelled, RunFailed, UnknownRun
from perdure.model.workflow import WorkflowSpec
from perdure.testing.faults import FaultKind, SimulatedCrash
from perdure.testing.machine import Opener
from perdure.testing.world import World

Side = Literal["before", "after"]
SIDES: tuple[Side, ...] = ("before", "after")
RUN = "crashing"
# More worlds than these take longer than anybody waits; a smaller depth or workflow tells as much.
WORLDS_MAX = 20_000


class Point(NamedTuple):
    """Where an engine dies. Shape: `commit` counts from 1 over all engines of a world."""

    commit: int
    side: Side

    def __str__(self) -> str:
        return f"{self.side} commit {self.commit}"


class Ended(NamedTuple):
    """How a run came to rest. Shape: `value` is its result, or what its failure, cancel or attention says."""

    status: str
    value: Any = None

    def __str__(self) -> str:
        return f"{self.status} with {self.value!r}"


class Exploration(NamedTuple):
    """What was tried. Shape: `commits` are those of the run without crashes; `crashes` took place, by their side."""

    expected: Ended
    worlds: int
    commits: int
    crashes: Counter[str]


class CrashDifference(AssertionError):
    """A crash changed what a workflow does, or left a history that does not verify. Carries `points`."""

    def __init__(self, points: tuple[Point, ...], text: str) -> None:
        super().__init__(f"after a crash {', then '.join(map(str, points)) or '(none)'}: {text}")
        self.points = points


class Explorer:
    """Runs one workflow in many worlds, each with crashes of its own.

    Shape: `prepare` plans what clients do, in each world; `check` looks at each world when its run has ended.
    """

    def __init__(
        self, workflow: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any], *,
        serve: Iterable[Any] = (), store: str | Callable[[], Opener] = "memory:", seed: int = 0,
        prepare: Callable[[World, str], None] | None = None, check: Callable[[World, str], None] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if isinstance(store, str) and store != "memory:":
            raise BadCall(f'store={store!r}: each world needs an empty one: "memory:", or a function that makes one')
        self.workflow, self.args, self.kwargs = workflow, args, kwargs
        self.serve, self.store, self.seed = list(serve), store, seed
        self.prepare, self.check, self.settings = prepare, check, settings or {}
        self.worlds = 0
        self.crashes: Counter[str] = Counter()

    def ended(self, points: tuple[Point, ...]) -> tuple[Ended, int]:
        """Run to the end with crashes at these points: how it ended, and the number of commits in all.

        Raises: `CrashDifference` when a point was not reached, or the audit finds something.
        """
        self.worlds += 1
        opener = self.store if isinstance(self.store, str) else self.store()
        with World(opener, self.seed, serve=[*self.serve, self.workflow], **self.settings) as world:
            for point in points:
                kind: FaultKind = "crash_before" if point.side == "before" else "crash_after"
                world.store.fail_at(point.commit, kind)
            try:
                ended, crashed = self._driven(world, len(points))
            except UnknownRun:
                raise CrashDifference(points, "the start was acknowledged, and is lost") from None
            commits = world.store.commits
            if crashed < len(points):
                raise CrashDifference(points, f"only {crashed} of them took place: is the workflow deterministic?")
            self.crashes.update(fired.kind for fired in world.store.fired)
            found = world.audit_all()
            if found:
                raise CrashDifference(points, "the audit found: " + "; ".join(found[:5]))
            if self.check is not None:
                self.check(world, RUN)
        return ended, commits

    def _driven(self, world: World, most: int) -> tuple[Ended, int]:
        """Start the run and wait for its end, again after each crash.

        Raises: `UnknownRun` when its start was acknowledged, and it is not there.
        """
        if self.prepare is not None:
            self.prepare(world, RUN)
        acknowledged = False

        async def started() -> None:
            nonlocal acknowledged
            await world.engine.start(self.workflow, *self.args, id=RUN, **self.kwargs)
            acknowledged = True

        for crashed in range(most + 1):
            try:
                if not acknowledged:
                    world.play(started())
                return _ended(world), crashed
            except SimulatedCrash:
                continue
        raise AssertionError("unreachable: no more crashes take place than were planned")

    def deeper(self, points: tuple[Point, ...], commits: int) -> Iterator[tuple[Point, ...]]:
        """These points and one more, at each commit behind the last of them."""
        first = points[-1].commit + 1 if points else 1
        for commit in range(first, commits + 1):
            for side in SIDES:
                yield (*points, Point(commit, side))


def run_with_crashes(
    workflow: WorkflowSpec, *args: Any, crash_depth: int = 1, serve: Iterable[Any] = (),
    store: str | Callable[[], Opener] = "memory:", seed: int = 0,
    prepare: Callable[[World, str], None] | None = None, check: Callable[[World, str], None] | None = None,
    allow: Callable[[Ended], bool] | None = None, settings: dict[str, Any] | None = None, **kwargs: Any,
) -> Exploration:  # fmt: skip
    """Run a workflow once without crashes, then once for each side of each of its commits, with the engine killed there.

        def test_an_order_survives_every_crash():
            explored = run_with_crashes(fulfil, Order("a1", 250_000), prepare=approve)
            assert explored.crashes["crash_before"] == explored.crashes["crash_after"] == explored.commits

        def approve(world, run_id):
            world.signal_at("2h", run_id, "approval", Approval("ann", True))

    After each crash the engine starts again on what its store has, and the run must end as it did without crashes; the
    histories of all runs are audited. Time is virtual: a workflow that sleeps for days takes milliseconds.

    Shape: `crash_depth` crashes are nested: at 2 each recovery is killed at each of its commits too, and so on. `prepare(world,
           run_id)` plans what clients do; `check(world, run_id)` looks at a world when its run has ended; `allow(ended)`
           permits an end that differs (an at-most-once step without a probe needs attention); `store` is "memory:", or a
           function that gives an opener of an empty store; `settings` are an engine's.
    Raises: `CrashDifference` naming the crashes that led to it; `BadCall` when there would be too many worlds.
    """
    explorer = Explorer(
        workflow, args, kwargs, serve=serve, store=store, seed=seed, prepare=prepare, check=check, settings=settings
    )
    expected, commits = explorer.ended(())
    least = sum(comb(commits, crashes) * 2**crashes for crashes in range(1, crash_depth + 1))
    if least > WORLDS_MAX:
        raise _too_many(workflow, crash_depth)
    level: list[tuple[tuple[Point, ...], int]] = [((), commits)]
    for _ in range(crash_depth):
        following = []
        for earlier, total in level:
            for points in explorer.deeper(earlier, total):
                if explorer.worlds >= WORLDS_MAX:
                    raise _too_many(workflow, crash_depth)
                ended, reached = explorer.ended(points)
                if ended != expected and not (allow is not None and allow(ended)):
                    raise CrashDifference(points, f"the run ended {ended}, and without crashes {expected}")
                following.append((points, reached))
        level = following
    return Exploration(expected, explorer.worlds, commits, explorer.crashes)


def _too_many(workflow: WorkflowSpec, depth: int) -> BadCall:
    return BadCall(f"more than {WORLDS_MAX:,} worlds: crash_depth={depth} is too much for {workflow.name}")


def _ended(world: World) -> Ended:
    try:
        return Ended("completed", world.result(RUN))
    except RunFailed as error:
        return Ended("failed", (error.failure.type, error.failure.message))
    except RunCancelled as error:
        return Ended("cancelled", error.reason)
    except NeedsAttention as error:
        return Ended("attention", error.reason)
