"""Clients in other processes beside an engine, beside none, and while it is killed again and again (S26, D4, F10)."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

import perdure
from perdure import RunCancelled
from perdure.model import fact as f
from tests.crash.harness import SIGKILLED, Program, audited, requests_of, until
from tests.crash.programs import waits
from tests.crash.witness import notes

pytestmark = pytest.mark.crash
ADDRESS = "sqlite:///storm.db"


@pytest.fixture(autouse=True)
def _witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITNESS", str(tmp_path))


class Storm:
    """Clients at work, an engine that is killed when they got so much further, and a client now and then.

    The next engine waits for the lock already, or comes only after a while.
    """

    def __init__(self, clients: int, seed: int) -> None:
        self.names = [f"c{number}" for number in range(clients)]
        self.chance = random.Random(seed)
        self.engines_killed = self.clients_killed = 0

    def client(self, name: str) -> Program:
        return Program("client", ADDRESS, name)

    def blow(self, engine_deaths: int, client_deaths: int) -> None:
        with ExitStack() as programs:
            coming = programs.enter_context(Program("server", ADDRESS))
            working = {name: programs.enter_context(self.client(name)) for name in self.names}
            while self.engines_killed < engine_deaths:
                engine = coming
                engine.hears("ready")
                coming = programs.enter_context(Program("server", ADDRESS))
                coming.hears("waiting for the engine", stderr=True)
                self.further(working, self.chance.randint(1, 12))
                self.engines_killed += engine.kill() == SIGKILLED
                if self.clients_killed < client_deaths:
                    name = self.chance.choice(sorted(working))
                    if working[name].kill() == SIGKILLED:
                        self.clients_killed += 1
                    working[name] = programs.enter_context(self.client(name))
                if self.chance.random() < 0.3:  # beside no engine at all
                    coming.kill()
                    coming = programs.enter_context(Program("server", ADDRESS))

            coming.kill()
            Path("enough").touch()
            for program in working.values():
                assert program.ends() == 0, program.said

    @staticmethod
    def further(working: dict[str, Program], count: int) -> None:
        """Wait until so much more was acknowledged, or the clients are done."""
        before = len(notes("acks"))

        def come() -> bool:
            return len(notes("acks")) >= before + count or all(p.process.poll() is not None for p in working.values())

        until(come, f"{count} more acknowledgements")


async def settled(storm: Storm) -> None:
    """With a living engine all of it ends; then nothing acknowledged is missing, and nothing is there twice."""
    acks = notes("acks")
    begun = {words[1]: words[2] for words in acks if words[0] == "start"}
    asked = {words[1] for words in acks if words[0] == "ask"}
    async with perdure.open(ADDRESS, workflows=[waits]) as engine:
        for request, run in begun.items():
            if int(request.split("-")[1]) % 4 == 3:
                with pytest.raises(RunCancelled, match="enough"):
                    await engine.get(run).result("60s")
            else:
                assert await engine.get(run).result("60s") == [10, 20], request
        of = Counter([row.tags["of"] async for row in engine.runs(limit=None)])
    assert len(begun) >= 4 * storm.engines_killed
    assert of == {request.removesuffix("-start"): 1 for request in begun}
    histories = await audited(ADDRESS, waits)
    consumed: Counter[str] = sum((requests_of(history) for history in histories.values()), Counter())
    assert set(consumed.values()) == {1}
    assert asked | set(begun) == set(consumed), asked ^ set(consumed)
    cancels = [fact for history in histories.values() for fact in history if isinstance(fact, f.CancelRequested)]
    assert len(cancels) == sum(request.endswith("cancel") for request in asked)


async def test_s26_f10_what_was_acknowledged_is_never_lost_and_never_doubled() -> None:
    """Goal: starts, signals and cancels of clients that die and repeat themselves count once, whatever the engine does."""
    storm = Storm(clients=2, seed=1)
    storm.blow(engine_deaths=6, client_deaths=2)
    assert storm.engines_killed == 6
    assert storm.clients_killed == 2
    await settled(storm)


@pytest.mark.torture
@pytest.mark.timeout(1800)
async def test_s26_f10_a_long_storm() -> None:
    """Goal: the same, for hundreds of kills."""
    storm = Storm(clients=4, seed=2)
    storm.blow(engine_deaths=200, client_deaths=60)
    assert (storm.engines_killed, storm.clients_killed) == (200, 60)
    await settled(storm)
