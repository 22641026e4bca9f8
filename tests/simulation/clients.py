"""What clients ask of an engine that may die, be away, or lose its store; and what they were told.

What was acknowledged is kept here, outside of any engine and any store: the witness (reliability, section 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from perdure.errors import EngineStopped, StoreLost, StoreUnavailable, WrongState
from perdure.runtime.client import Client
from perdure.runtime.desk import Desk
from perdure.state.store import BatchRefused
from perdure.testing import SimulatedCrash, World
from perdure.testing.programs import SIGNAL
from tests.simulation.dislikes import Dislikes

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


class Clients:
    """Several of them, by chance within the engine's process or in another. Shape: `done` counts operations by kind."""

    def __init__(self, world: World, seed: int, random: Random) -> None:
        self.world, self.seed, self.random = world, seed, random
        self.witness = Witness()
        self.done: Counter[str] = Counter()
        self.dislikes = Dislikes(random, self.done)
        world.store.refuse = self.dislikes

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
            except BatchRefused as error:
                self._refused(error)
        raise AssertionError("the store never came back")

    def _refused(self, error: BatchRefused) -> None:
        """The engine may have given the run up, until it is started again; the store may take all by then."""
        self.done["told of a refusal"] += 1
        assert any(run in str(error) for run in self.dislikes.guilty), error
        if self.random.random() < 0.5:
            self.dislikes.lift()
        self.survive(self.world.restart)

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
