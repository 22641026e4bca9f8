"""Random programs and graphs under random deaths and store faults, with clients that say everything twice.

Each seed is one life of a machine, the same whatever the interpreter's hashes. When no more faults come, every run ends or says what it waits for, nothing that was
acknowledged is missing or doubled, nothing was done twice that may be done once, and every history verifies.
`PERDURE_TORTURE_SEED` and `PERDURE_TORTURE_S` choose where the long variant begins, and how long it goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from perdure.errors import StoreDamaged
from perdure.testing.programs import OPERATIONS, effects, perform
from tests.simulation.dislikes import Spins
from tests.simulation.driver import CRASHES, FAULTS, OUTAGES, Simulation, alone, kinds

# How often, beside each thing that a client does, the store begins to refuse what a run writes, or takes all again.
REFUSALS = 0.4
# Tells what some lives wrote, batch by batch.
TOLD = """
from tests.simulation.test_random_programs import REFUSALS, Simulation, live_in
for seed, refusals in (34, 0.0), (34, REFUSALS), (135, 0.0), (135, REFUSALS):
    with Simulation(seed, refusals=refusals) as simulation:
        store = simulation.world.store
        refuse = store.refuse
        store.refuse = lambda batch: (print([(ref.id, seq) for ref, seq, *_ in batch.facts]), refuse(batch))
        live_in(simulation, 4)
"""

pytestmark = pytest.mark.simulation

RUNS = 4
SEED, SECONDS = int(os.environ.get("PERDURE_TORTURE_SEED", "10000")), float(os.environ.get("PERDURE_TORTURE_S", "600"))


class Figures(NamedTuple):
    """What some lives did, all together."""

    done: Counter[str]
    fired: Counter[str]
    kinds: Counter[str]


def live(seed: int, store: str = "memory:", runs: int = RUNS, refusals: float = 0.0) -> Figures:
    """One life with everything: deaths, outages, cancels, retries."""
    with Simulation(seed, store=store, refusals=refusals) as simulation:
        try:
            live_in(simulation, runs)
        except (Exception, Spins) as error:
            error.add_note(f"seed {seed} over {store}")
            raise
        return Figures(Counter(simulation.done), simulation.fired, kinds(simulation.witness.starts))


def live_in(simulation: Simulation, runs: int) -> None:
    simulation.begin(runs)
    simulation.send_signals()
    simulation.disturb(runs)
    simulation.end()
    simulation.check()


def something_was_done(lives: list[Figures]) -> None:
    """X1: every kind of operation, of what clients ask and of fault took place, often."""
    done, fired, drawn = Counter[str](), Counter[str](), Counter[str]()
    for one in lives:
        done += one.done
        fired += one.fired
        drawn += one.kinds
    assert set(fired) == set(FAULTS)
    assert set(drawn) == set(OPERATIONS) | {"again", "graph"}
    asked = {"start", "signal", "cancel", "forced cancel", "retry", "said twice", "asked again"}
    assert asked | {"client of another process", "killed", "stopped", "crash", "restart after a lost store"} <= set(
        done
    )
    assert min(*fired.values(), *drawn.values(), *(done[kind] for kind in asked)) >= len(lives) / 10
    refused = done["cancel after the end"] + done["signal after the end"] + done["retry refused"]
    assert refused < 0.5 * sum(done[kind] for kind in asked)


@pytest.mark.parametrize("first", [0, 50, 100, 150])
def test_nothing_is_lost_whatever_fails(first: int) -> None:
    """Goal: fifty lives in memory: programs and graphs, deaths, outages, lost stores, cancels, retries, doubled messages."""
    something_was_done([live(seed) for seed in range(first, first + 50)])


def test_nothing_is_lost_whatever_fails_over_sqlite(tmp_path: Path) -> None:
    """Goal: the same over the store that users have."""
    something_was_done([live(seed, f"sqlite:///{tmp_path / f'{seed}.db'}") for seed in range(300, 330)])


@pytest.mark.parametrize("first", [400, 450, 500, 550])
def test_nothing_is_lost_where_the_store_refuses_single_runs(first: int) -> None:
    """Goal: fifty lives with all of that, and a store that refuses what some runs write, for a while or for good: they
    alone need attention, or are given up until the next start; the others go on, and so do they when it takes all again.
    """
    lives = [live(seed, refusals=REFUSALS) for seed in range(first, first + 50)]
    something_was_done(lives)
    done = sum((one.done for one in lives), Counter[str]())
    assert min(done["disliked"], done["refused"]) > 100
    assert min(done["told of a refusal"], done["not_recorded let go on"]) > 5


@pytest.mark.slow
def test_a_life_is_the_same_whatever_the_interpreters_hashes() -> None:
    """Goal: a seed that fails is to fail again: no order that the store sees depends on a set of strings."""
    told = {_told(hashes) for hashes in ("0", "1", "2")}
    assert len(told) == 1
    assert len(told.pop().splitlines()) > 20


def _told(hashes: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", TOLD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("faults", [CRASHES, OUTAGES], ids=["deaths", "outages"])
def test_a_run_ends_as_without_faults(faults: tuple[str, ...]) -> None:
    """Goal: where only machines fail, and no person steps in, every run has the status and result that it has alone."""
    fired: Counter[str] = Counter()
    compared = 0
    for seed in range(1000, 1040):
        with Simulation(seed, faults=faults) as simulation:  # type: ignore[arg-type]
            simulation.begin(RUNS)
            simulation.send_signals()
            simulation.end()
            simulation.check()
            fired += simulation.fired
            for run, (workflow, argument) in simulation.witness.starts.items():
                assert simulation.outcomes()[run] == alone(workflow, argument), (seed, run)
                compared += 1
    assert set(fired) == set(faults)
    assert compared == 40 * RUNS


def test_the_check_sees_what_is_wrong() -> None:
    """Goal: the harness is not blind: a lost start, a lost signal, a doubled effect, a changed fact are each found."""
    with Simulation(1, faults=()) as simulation:
        simulation.clients.start("waits", perform, [["once", 3], ["signal", "go"]])
        simulation.end()
        simulation.check()
        simulation.witness.signals["never-said"] = "waits"
        with pytest.raises(AssertionError, match="never-said to waits counts 0 times"):
            simulation.check()
        simulation.witness.signals.clear()
        simulation.witness.starts["never-begun"] = (perform, [])
        with pytest.raises(AssertionError, match="start of never-begun was acknowledged and is lost"):
            simulation.check()
        del simulation.witness.starts["never-begun"]
        effects["send_once", "waits:1:send_once#1"] += 1
        with pytest.raises(AssertionError, match="was done 2 times, and probed 0 times"):
            simulation.check()
        effects["send_once", "waits:1:send_once#1"] -= 1
        facts = simulation.world.store.inner._runs["waits"].facts
        facts[0] = (1, facts[0][1].replace(b"go", b"no"), facts[0][2])
        with pytest.raises((AssertionError, StoreDamaged), match=r"chain|hash"):
            simulation.check()


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_torture(tmp_path: Path) -> None:
    """Goal: as many lives as the time allows, larger ones, a tenth of them over SQLite; the seed of a failure is told."""
    until, seed, lives = time.monotonic() + SECONDS, SEED, []
    while time.monotonic() < until:
        store = f"sqlite:///{tmp_path / f'{seed}.db'}" if seed % 10 == 0 else "memory:"
        lives.append(live(seed, store, runs=3 + seed % 8, refusals=REFUSALS if seed % 2 else 0.0))
        seed += 1
    something_was_done(lives)
    print(f"{len(lives)} lives from seed {SEED}")
