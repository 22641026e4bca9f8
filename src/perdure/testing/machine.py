"""One machine with an engine and a store: it starts, stops, dies, and lets time pass."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from perdure.authoring.registry import Registry
from perdure.errors import PerdureError
from perdure.model.duration import Duration, duration_us
from perdure.model.run import Life, RunRow
from perdure.runtime.doubt import doubt_over, walls_seen
from perdure.runtime.engine import Engine
from perdure.runtime.suspects import first_note
from perdure.settings import Settings
from perdure.state.memory import MemoryStore
from perdure.state.sqlite import SqliteStore
from perdure.state.store import Query
from perdure.testing.clock import SimulatedClock
from perdure.testing.faults import FaultyStore, SimulatedCrash
from perdure.testing.grave import bury
from perdure.testing.loop import VirtualLoop
from perdure.testing.threads import SimulatedThreads

T = TypeVar("T")
Opener = Callable[["Machine"], Awaitable[Any]]
# What differs from an engine's own defaults: nothing here should depend on how busy the real machine is.
DEFAULTS: dict[str, Any] = {
    "block_max_s": 60.0, "gc_threshold": 0, "stop_grace_s": 1.0, "lock_wait_s": 0.0, "audit_open": False
}  # fmt: skip


class AtRest(PerdureError):
    """Nothing can happen in the world any more, and what was waited for has not."""


class Planned(NamedTuple):
    """Something to be done at a time. Shape: `act` is repeated after a crash that left it without an answer."""

    at_ns: int
    act: Callable[[Engine], Awaitable[Any]]


class Machine:
    """What runs an engine on virtual time, over a store that outlives it.

    Shape: `store` is "memory:", a "sqlite:///…" address, or a function that opens a store and is called anew after each
           restart. `threads="simulated"` makes sync attempts one by one; "real" uses the engine's own pool, and real
           time. `settings` are an engine's.
    """

    def __init__(
        self, store: str | Opener = "memory:", seed: int = 0, *, serve: Iterable[Any] = (),
        threads: str = "simulated", **settings: Any,
    ) -> None:  # fmt: skip
        self.clock = SimulatedClock(seed)
        self.random = random.Random(seed)  # noqa: S311 - a seed's chance is to be repeated
        self.settings = Settings.from_environment({}, **{**DEFAULTS, **settings})
        self.served: list[Any] = list(serve)
        self.store = FaultyStore(None)
        self.starts = 0
        self._open = store if callable(store) else _opener(store)
        self._threads = threads
        self._engine: Engine | None = None
        self._plan: list[Planned] = []
        self._loop = self._made_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- its engine ----------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine that runs now; one is started when there is none."""
        if self._engine is None:
            self._drive(self._begin())
        assert self._engine is not None
        return self._engine

    @property
    def loop(self) -> VirtualLoop:
        return self._loop

    def _made_loop(self) -> VirtualLoop:
        loop = VirtualLoop(self.clock)
        loop.away, loop.hint_us = self._away, self._hint_us
        loop.written = lambda: self.store.commits + self.store.landed
        return loop

    def _away(self) -> bool:
        """Whether something is under way that only real time brings to an end."""
        engine = self._engine
        if engine is None:
            return False
        node = engine.node
        return bool(
            (node.pools.threads.busy and not isinstance(node.pools.threads, SimulatedThreads))
            or any(a.spec.pool == "process" and not (a.done or a.left) for a in node.pools.running.values())
        )

    def _hint_us(self) -> int | None:
        """How long until the sweep finds a run that is due. Units: microseconds."""
        engine = self._engine
        if engine is None or engine.node.failed is not None:
            return None
        if engine.sweep.doubted:
            return 0
        if engine.sweep.next_due is None:
            return None
        left = engine.sweep.next_due - engine.clock.now_us()
        return max(0, left)

    async def _begin(self) -> Engine:
        self.store.inner = await self._open(self)
        self.store.dead = False
        self.starts += 1
        registry = Registry(self.served)
        note = msgspec.json.encode(first_note(registry.names(), self.clock))
        epoch, earlier, persisted = await self.store.inner.claim("simulated", self.starts, self.clock.wall_us(), note)
        clock = self.clock.engine_clock(persisted, walls_seen(self.clock.sighting(), persisted, earlier, places=()))
        await doubt_over(clock)
        engine = Engine(self.store, self.settings, clock, registry, epoch=epoch, earlier=earlier)
        if self._threads == "simulated":
            engine.node.pools.threads = SimulatedThreads(engine.node.pools, self.random)
        await engine.begin()
        for planned in self._plan:
            self._arm(engine, planned)
        self._engine = engine
        return engine

    def restart(self, *, kill: bool = True, serve: Iterable[Any] | None = None, away: Duration | None = None) -> None:
        """End the engine and start it again: `kill` drops all that is in memory, as SIGKILL would; else it stops cleanly.

        Shape: `serve` replaces what is served (a deploy); `away` is how long nothing runs.
        """
        if kill:
            self.die()
        else:
            self.stop()
        if serve is not None:
            self.served = list(serve)
        if away is not None:
            self.clock.advance(away)
        assert self.engine is not None

    def die(self) -> None:
        """The engine's process ends, as by SIGKILL; what the store has is kept."""
        engine, self._engine = self._engine, None
        loop, self._loop = self._loop, self._made_loop()
        bury(loop, engine)
        if self.store.inner is not None:
            self._drive(self.store.inner.close())

    def stop(self) -> None:
        """The engine stops cleanly."""
        engine = self._engine
        if engine is not None:
            self._drive(engine.stop())
            self._engine = None

    def close(self) -> None:
        """End the world: the engine is dropped, whatever it did."""
        self.die()
        self._loop.close()

    # --- driving -------------------------------------------------------------------------------------

    def play(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the world, on its loop and its time, beside the engine.

        Raises: `AtRest` when it waits for what can never happen; `SimulatedCrash` when a planned crash took place.
        """
        try:
            assert self.engine is not None
        except SimulatedCrash:  # at its very start
            scenario.close()
            raise
        return self._drive(scenario)

    def _drive(self, scenario: Coroutine[Any, Any, T]) -> T:
        guarded = self._guarded(scenario)
        try:
            return self._loop.run_until_complete(guarded)
        except SimulatedCrash:
            scenario.close()
            self.die()
            raise

    async def _guarded(self, scenario: Coroutine[Any, Any, T]) -> T:
        task = self._loop.create_task(scenario)
        rest: asyncio.Future[Any] = self._loop.rest()
        await asyncio.wait([task, rest], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                return task.result()
            raise AtRest(f"nothing can happen any more: {await self._why()}")
        rest.cancel()
        return task.result()

    async def _why(self) -> str:
        rows = await self.store.find(Query(life=(Life.LIVE, Life.QUEUED), limit=5))
        said = [f"run {row.id} of {row.workflow} is {row.status}, waits for {_waits(row)}" for row in rows]
        return "; ".join(said) or "no run is open"

    # --- what users do -------------------------------------------------------------------------------

    def serve(self, *workflows: Any) -> None:
        """Serve more workflows."""
        for one in workflows:
            if not any(one is other for other in self.served):
                self.served.append(one)
                if self._engine is not None:
                    self._engine.catalogue.serve(one)

    # --- what is to happen later, and time ---------------------------------------------------------

    def at(self, delay: Duration, act: Callable[[Engine], Awaitable[Any]]) -> None:
        """Do something with the engine when this time has passed. An error that perdure raises is its answer."""
        planned = Planned(self.clock.mono_ns + duration_us(delay, "delay") * 1000, act)
        self._plan.append(planned)
        if self._engine is not None:
            self._arm(self._engine, planned)

    def _arm(self, engine: Engine, planned: Planned) -> None:
        self._loop.call_at(planned.at_ns / 1e9, self._act, engine, planned)

    def _act(self, engine: Engine, planned: Planned) -> None:
        self._loop.create_task(self._acted(engine, planned))

    async def _acted(self, engine: Engine, planned: Planned) -> None:
        with contextlib.suppress(PerdureError):
            await planned.act(engine)
        if planned in self._plan:
            self._plan.remove(planned)

    # --- time ----------------------------------------------------------------------------------------

    def advance(self, duration: Duration) -> None:
        """Let this much time pass, with all that happens in it."""
        self.play(asyncio.sleep(duration_us(duration, "advance") / 1e6))

    def run_to_rest(self) -> Self:
        """Let time pass until nothing can happen any more without somebody from outside."""
        assert self.engine is not None
        self._drive(self._rested())
        return self

    async def _rested(self) -> None:
        await self._loop.rest()


def _waits(row: RunRow) -> str:
    wait = row.wait
    waits = [f"signal {name!r}" for name in wait.signals] + [f"child {child}" for child in wait.children]
    waits += [f"{wait.open} steps"] if wait.open else []
    return ", ".join(waits) or "nothing"


def _opener(address: str) -> Opener:
    if address == "memory:":
        return _Memory()
    path = address.removeprefix("sqlite:///")

    async def opened(machine: Machine) -> Any:
        return await SqliteStore.open_engine(path, machine.settings, machine.clock)

    return opened


class _Memory:
    """One memory store that outlives its engines, as a disk does."""

    def __init__(self) -> None:
        self.disk: MemoryStore | None = None

    async def __call__(self, _: Machine) -> MemoryStore:
        if self.disk is None:
            self.disk = MemoryStore()
        return self.disk
