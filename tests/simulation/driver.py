"""A seeded life of an engine: random runs, random clients, random faults; and what must hold when it is over."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgspec

from perdure.errors import UnknownRun, WrongState
from perdure.model import fact as f
from perdure.model.run import Life, Outcome, RunRow
from perdure.testing import World, programs
from perdure.testing.faults import FaultKind
from perdure.testing.graphs import draw_graph
from perdure.testing.programs import SIGNAL, draw_program, perform, signals_of
from tests.simulation.clients import Clients

CRASHES: tuple[FaultKind, ...] = ("crash_before", "crash_after")
OUTAGES: tuple[FaultKind, ...] = ("unavailable", "unknown_lost", "unknown_kept")
FAULTS: tuple[FaultKind, ...] = (*CRASHES, *OUTAGES, "lost")


class Simulation:
    """Shape: `faults` are the kinds that may happen, at most `faults_max` of them; `done` counts operations by kind."""

    def __init__(
        self, seed: int, *, faults: tuple[FaultKind, ...] = FAULTS, faults_max: int = 12, store: Any = "memory:",
        restarts: bool = True, refusals: float = 0.0,
    ) -> None:  # fmt: skip
        self.seed, self.random = seed, Random(seed)
        self.faults, self.left, self.restarts = faults, faults_max, restarts
        self.refusals = refusals
        self.chance = self.random.choice((0.05, 0.2, 0.5))
        random = self.random
        self.world = World(
            store, seed, serve=[perform], runs_resident_max=random.choice((0, 1, 2_000)),
            batch_facts_max=random.choice((1, 3, 4_096)), queue_max=random.choice((16, 100_000)),
            snapshot_facts=random.choice((10, 1_000)), audit_open=random.random() < 0.3,
            runs_live_max=random.choice((2, 100_000)),
        )  # fmt: skip
        self.clients = Clients(self.world, seed, random)
        self.witness, self.done = self.clients.witness, self.clients.done
        self.dislikes = self.clients.dislikes
        self.world.store.choose = self._chosen
        flights = random.choice(((0,), (0, 0.01), (0, 0.001, 1), (0, 2, 60)))  # seconds in a thread (S30)
        self.world.store.flight = lambda: self.random.choice(flights)

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

    def stumble(self) -> None:
        """Time passes, or the engine is killed, stopped, away."""
        if self.refusals and self.random.random() < self.refusals:
            self.dislike()
        chance = self.random.random()
        if not self.restarts or chance < 0.8:
            self.clients.let_pass(self.random.choice((0, 0.001, 0.01, 1, 30, 3600)))
        elif chance < 0.9:
            self.done["killed"] += 1
            if self.random.random() < 0.3:
                self.world.clock.reboot()
            self.clients.survive(lambda: self.world.restart(away=self.random.choice((None, "1s", "2d"))))
        else:
            self.done["stopped"] += 1
            self.clients.survive(lambda: self.world.restart(kill=False))

    # --- a life --------------------------------------------------------------------------------------

    def begin(self, count: int) -> None:
        """Start runs at random, with time between them."""
        for number in range(count):
            if self.random.random() < 0.7:
                self.clients.start(f"flow-{number}", perform, draw_program(self.random))
            else:
                graph = draw_graph(self.random, name=f"graph_{number}")
                self.clients.start(f"graph-{number}", graph, self.random.randint(0, 9))
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
            self.clients.signal(run, name)
            self.stumble()

    def disturb(self, count: int) -> None:
        """Cancel and retry at random."""
        runs = list(self.witness.starts)
        for _ in range(count):
            run = self.random.choice(runs)
            act = self.random.choice(
                (
                    self.clients.cancel,
                    self.clients.cancel,
                    self.clients.retry,
                    self.clients.retry,
                    self.force,
                    self.any_signal,
                )
            )
            act(run)
            self.stumble()

    def dislike(self) -> None:
        """The store begins to refuse what a run writes, be it one that has yet to start or a child, or takes all again."""
        if self.dislikes.runs and self.random.random() < 0.5:
            self.dislikes.lift()
            return
        known = [row.id for row in self.clients.survive(self.world.rows) if not row.life.ended]
        self.dislikes.add(self.random.choice([*known, f"flow-{len(self.witness.starts)}"]))

    def force(self, run: str) -> None:
        self.clients.cancel(run, force=True)

    def any_signal(self, run: str) -> None:
        self.clients.signal(run, self.random.choice(programs.SIGNALS))

    def end(self) -> None:
        """No more faults: what is left must come to rest by itself (L3)."""
        self.left = 0
        self.dislikes.lift()
        if self.refusals:  # what was given up is so until the next start
            self.clients.survive(self.world.restart)
        for _ in range(2):  # the first may find the store lost, and be over at once
            self.clients.survive(self.world.run_to_rest)
        for row in self.clients.survive(self.world.rows):
            # Three deaths in a minute condemn a run that was carried alone (S15), a store refuses what a run writes
            # (D3): a person lets it go on (S19).
            cause = msgspec.json.decode(row.outcome or b"{}", type=Outcome).cause
            if row.life is Life.ATTENTION and cause in {"suspect", "not_recorded"}:
                self.clients.retry(row.id)
                self.done[f"{cause} let go on"] += 1
                self.clients.survive(self.world.run_to_rest)

    # --- what must hold --------------------------------------------------------------------------------

    def check(self, *, ended: bool = False) -> None:
        """Nothing acknowledged is lost, every run has ended or says what it waits for, every history verifies."""
        rows = {row.id: row for row in self.world.rows()}
        for run in self.witness.starts:
            assert run in rows, f"start of {run} was acknowledged and is lost"
        for row in rows.values():
            if ended:
                assert row.life.ended, f"{row.id} is {row.status}, waits for {row.wait}"
            elif not row.life.ended and row.status != "attention":
                assert row.wait.signals or row.wait.children, f"{row.id} is {row.status} and nothing will ever wake it"
        for run in rows:
            blamed = [fact for fact in self.world.history(run) if isinstance(fact, f.AttentionSet)]
            assert run in self.dislikes.guilty or all(fact.cause != "not_recorded" for fact in blamed), (
                f"{run}: {blamed}"
            )
        self._check_messages(rows)
        self._check_effects()
        found = self.world.audit_all()
        assert not found, found[:5]

    def _check_messages(self, rows: dict[str, RunRow]) -> None:
        """Each that was acknowledged counts once, unless it came to a run that had ended, which says so."""
        world = self.world
        waiting = {message.message.request for message in world.play(world.store.inbox(0, 10_000))}
        said = self.witness.signals | self.witness.retries
        answers = world.play(world.store.answers(list(said)))
        facts = {run: world.history(run) for run in rows}
        for request, run in said.items():
            times = [getattr(fact, "request", "") for fact in facts[run]].count(request)
            told_later = request in waiting or answers.get(request) == (run, b'{"refused":true}')
            assert times == 1 or (times == 0 and told_later), f"{request} to {run} counts {times} times"
        for run in self.witness.cancels.values():
            heard = any(isinstance(fact, f.CancelRequested) for fact in facts[run])
            assert heard or rows[run].life.ended or rows[run].status == "attention", f"cancel of {run} is lost"

    def _check_effects(self) -> None:
        """What may be done at most once was done again only after its probe had said that nothing was done (S16)."""
        for (kind, key), times in programs.effects.items():
            if kind in {"send_once", "send_unsure"}:
                probed = programs.effects["probe", key]
                assert times <= 1 + probed, f"{kind} {key} was done {times} times, and probed {probed} times"

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
