"""A seeded life of an engine: random runs, random clients, random faults; and what must hold when it is over.

What clients were told is kept here, outside of any engine and any store: the witness (reliability, section 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from perdure import PerdureError
from perdure.errors import EngineStopped, StoreLost, StoreUnavailable, UnknownRun, WrongState
from perdure.model import fact as f
from perdure.model.run import Life
from perdure.runtime.client import Client
from perdure.runtime.desk import Desk
from perdure.testing import SimulatedCrash, World, programs
from perdure.testing.faults import FaultKind
from perdure.testing.graphs import draw_graph
from perdure.testing.programs import SIGNAL, Program, draw_program, perform, signals_of

CRASHES: tuple[FaultKind, ...] = ("crash_before", "crash_after")
OUTAGES: tuple[FaultKind, ...] = ("unavailable", "unknown_lost", "unknown_kept")
FAULTS: tuple[FaultKind, ...] = (*CRASHES, *OUTAGES, "lost")
# What an answer cannot be had for now: the client says it again, with the same request id.
AGAIN = (StoreUnavailable, EngineStopped)
TRIES_MAX = 200


class Witness:
    """What was acknowledged, by request id. Shape: `starts` maps run ids to (workflow, argument)."""

    def __init__(self) -> None:
        self.starts: dict[str, tuple[Any, Any]] = {}
        self.signals: dict[str, str] = {}
        self.cancels: dict[str, str] = {}
        self.retries: dict[str, str] = {}


class Simulation:
    """Shape: `faults` are the kinds that may happen, at most `faults_max` of them; `done` counts operations by kind."""

    def __init__(
        self, seed: int, *, faults: tuple[FaultKind, ...] = FAULTS, faults_max: int = 12, store: Any = "memory:",
        restarts: bool = True,
    ) -> None:  # fmt: skip
        self.seed, self.random = seed, Random(seed)
        self.faults, self.left, self.restarts = faults, faults_max, restarts
        self.chance = self.random.choice((0.05, 0.2, 0.5))
        random = self.random
        self.world = World(
            store, seed, serve=[perform], runs_resident_max=random.choice((0, 1, 2_000)),
            batch_facts_max=random.choice((1, 3, 4_096)), queue_max=random.choice((16, 100_000)),
            snapshot_facts=random.choice((10, 1_000)), audit_open=random.random() < 0.3,
            runs_live_max=random.choice((2, 100_000)),
        )  # fmt: skip
        self.witness = Witness()
        self.done: Counter[str] = Counter()
        self.world.store.choose = self._chosen

    def __enter__(self) -> Simulation:  # noqa: PYI034
        programs.effects.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()

    def _chosen(self, _: int) -> FaultKind | None:
        if self.left <= 0 or not self.faults or self.random.random() > self.chance:
            return None
        self.left -= 1
        return self.random.choice(self.faults)

    @property
    def fired(self) -> Counter[str]:
        return Counter(fired.kind for fired in self.world.store.fired)

    # --- clients -------------------------------------------------------------------------------------

    def survive(self, act: Callable[[], Any]) -> Any:
        """Do something in the world, again after each death of its engine, until there is an answer."""
        for _ in range(TRIES_MAX):
            try:
                if self.world.engine.node.lost is None:
                    return act()
                self.done["restart after a lost store"] += 1
                self.world.restart()
            except SimulatedCrash:
                self.done["crash"] += 1
            except StoreLost:
                continue
        raise AssertionError("the world never came to an answer")

    def say(self, ask: Callable[[Desk], Awaitable[Any]]) -> Any:
        """Ask an engine or its store until it is acknowledged, and sometimes once more with the same request id."""
        answer = self._said(ask)
        while self.random.random() < 0.25:
            self.done["said twice"] += 1
            assert self._said(ask) == answer
        return answer

    def _said(self, ask: Callable[[Desk], Awaitable[Any]]) -> Any:
        for _ in range(TRIES_MAX):
            try:
                return self.survive(lambda: self.world.play(self._asked(self.world.engine, ask)))
            except AGAIN:
                self.done["asked again"] += 1
                self.let_pass(self.random.choice((0.1, 1, 5)))
        raise AssertionError("the store never came back")

    async def _asked(self, engine: Desk, ask: Callable[[Desk], Awaitable[Any]]) -> Any:
        if self.random.random() < 0.4:
            self.done["client of another process"] += 1
            world = self.world
            answer = await ask(Client(world.store, world.settings, world.clock, engine.catalogue))  # type: ignore[arg-type]
        else:
            answer = await ask(engine)
        return getattr(answer, "id", answer)

    def request(self, kind: str) -> str:
        self.done[kind] += 1
        return f"{kind}-{self.seed}-{self.done[kind]}"

    def start(self, run: str, workflow: Any, argument: Any) -> None:
        self.done["start"] += 1
        self.world.serve(workflow)
        request = self.request("start") if self.random.random() < 0.5 else None
        told = self.say(lambda desk: desk.start(workflow, argument, id=run, request_id=request))
        assert told == run
        self.witness.starts[run] = (workflow, argument)

    def signal(self, run: str, name: str) -> None:
        request = self.request("signal")
        try:
            self.say(lambda desk: desk.signal(run, name, SIGNAL, request_id=request))
        except WrongState:
            self.done["signal after the end"] += 1
        else:
            self.witness.signals[request] = run

    def cancel(self, run: str, *, force: bool = False) -> None:
        request = self.request("forced cancel" if force else "cancel").replace(" ", "-")
        try:
            self.say(lambda desk: desk.cancel(run, "enough", force=force, request_id=request))
        except WrongState:
            self.done["cancel after the end"] += 1
        else:
            self.witness.cancels[request] = run

    def retry(self, run: str) -> None:
        request = self.request("retry")
        try:
            self.say(lambda desk: desk.retry(run, why="again", request_id=request))
        except WrongState:
            self.done["retry refused"] += 1
        else:
            self.witness.retries[request] = run

    def let_pass(self, seconds: float) -> None:
        self.survive(lambda: self.world.advance(f"{seconds}s"))

    def stumble(self) -> None:
        """Time passes, or the engine is killed, stopped, away."""
        chance = self.random.random()
        if not self.restarts or chance < 0.8:
            self.let_pass(self.random.choice((0, 0.001, 0.01, 1, 30, 3600)))
        elif chance < 0.9:
            self.done["killed"] += 1
            self.survive(lambda: self.world.restart(away=self.random.choice((None, "1s", "2d"))))
        else:
            self.done["stopped"] += 1
            self.survive(lambda: self.world.restart(kill=False))

    # --- a life --------------------------------------------------------------------------------------

    def begin(self, count: int) -> None:
        """Start runs at random, with time between them."""
        for number in range(count):
            if self.random.random() < 0.7:
                self.start(f"flow-{number}", perform, draw_program(self.random))
            else:
                graph = draw_graph(self.random, name=f"graph_{number}")
                self.start(f"graph-{number}", graph, self.random.randint(0, 9))
            self.stumble()

    def send_signals(self) -> None:
        """Send every signal that the programs take, in any order."""
        wanted = [
            (run, name)
            for run, (workflow, argument) in self.witness.starts.items() if workflow is perform
            for name in signals_of(argument)
        ]  # fmt: skip
        self.random.shuffle(wanted)
        for run, name in wanted:
            self.signal(run, name)
            self.stumble()

    def disturb(self, count: int) -> None:
        """Cancel and retry at random."""
        runs = list(self.witness.starts)
        for _ in range(count):
            run = self.random.choice(runs)
            act = self.random.choice((self.cancel, self.cancel, self.retry, self.retry, self.force, self.any_signal))
            act(run)
            self.stumble()

    def force(self, run: str) -> None:
        self.cancel(run, force=True)

    def any_signal(self, run: str) -> None:
        self.signal(run, self.random.choice(programs.SIGNALS))

    def end(self) -> None:
        """No more faults: what is left must come to rest by itself (L3)."""
        self.left = 0
        for _ in range(2):  # the first may find the store lost, and be over at once
            self.survive(self.world.run_to_rest)
        for row in self.survive(self.world.rows):
            # Three deaths in a minute condemn a run that was carried alone; a person lets it go on (S15, S19).
            if row.life is Life.ATTENTION and b'"cause":"suspect"' in (row.outcome or b""):
                self.retry(row.id)
                self.done["suspect let go on"] += 1
                self.survive(self.world.run_to_rest)

    # --- what must hold --------------------------------------------------------------------------------

    def check(self, *, ended: bool) -> None:
        """Nothing acknowledged is lost, every run has ended or says what it waits for, every history verifies."""
        rows = {row.id: row for row in self.world.rows()}
        for run in self.witness.starts:
            assert run in rows, f"start of {run} was acknowledged and is lost"
        for row in rows.values():
            if ended:
                assert row.life.ended, f"{row.id} is {row.status}, waits for {row.wait}"
            elif not row.life.ended and row.status != "attention":
                assert row.wait.signals or row.wait.children, f"{row.id} is {row.status} and nothing will ever wake it"
        self._check_messages(rows)
        found = self.world.audit_all()
        assert not found, found[:5]

    def _check_messages(self, rows: dict[str, Any]) -> None:
        waiting = {message.message.request for message in self.world.play(self.world.store.inbox(0, 10_000))}
        facts = {run: self.world.history(run) for run in rows}
        for request, run in (self.witness.signals | self.witness.retries).items():
            times = [getattr(fact, "request", "") for fact in facts[run]].count(request)
            over = rows[run].life.ended or request in waiting
            assert times == 1 or (times == 0 and over), f"{request} to {run} counts {times} times"
        for run in self.witness.cancels.values():
            heard = any(isinstance(fact, f.CancelRequested) for fact in facts[run])
            assert heard or rows[run].life.ended or rows[run].status == "attention", f"cancel of {run} is lost"

    def outcomes(self) -> dict[str, tuple[str, Any]]:
        """Status of each run that a client started, with its result where it has one."""
        return {run: outcome(self.world, run) for run in self.witness.starts}


def outcome(world: World, run: str) -> tuple[str, Any]:
    status = world.status(run)
    return status, world.result(run) if status == "completed" else None


def alone(workflow: Any, argument: Any) -> tuple[str, Any]:
    """What comes of a run in a world without faults and neighbours."""
    with World() as world:
        world.start(workflow, argument, id="alone")
        if workflow is perform:
            for name in signals_of(argument):
                try:
                    world.signal("alone", name, SIGNAL)
                except (WrongState, UnknownRun):
                    break
        world.run_to_rest()
        return outcome(world, "alone")


def kinds(starts: dict[str, tuple[Any, Any]]) -> Counter[str]:
    """The operations of all programs that were started, by kind."""
    found: Counter[str] = Counter()
    for workflow, argument in starts.values():
        found.update(programs.kinds_of(argument) if workflow is perform else ["graph"])
    return found


__all__ = ["FAULTS", "OUTAGES", "PerdureError", "Program", "Simulation", "Witness", "alone", "kinds", "outcome"]
