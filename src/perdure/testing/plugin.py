"""A pytest plugin: the simulated world, its clock, crash points and empty stores as fixtures.

    def test_a_reminder_comes_after_three_days(perdure_world):
        assert perdure_world.run(remind, "ann") == "reminded"            # takes no time

    def test_an_order_survives_every_crash(perdure_crashes):
        perdure_crashes(fulfil, Order("a1", 100))

Installed with perdure; `--perdure-seed N` draws another chance for all worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perdure.testing.clock import SimulatedClock
from perdure.testing.crashes import Exploration, run_with_crashes
from perdure.testing.world import World

STORES = ("memory", "sqlite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the seed."""
    group = parser.getgroup("perdure", "durable workflows in a simulated world")
    group.addoption(
        "--perdure-seed", type=int, default=0, metavar="N", help="the seed of simulated worlds (default: 0)"
    )


@pytest.fixture
def perdure_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this session's simulated worlds."""
    return int(request.config.getoption("--perdure-seed"))


@pytest.fixture
def perdure_world(perdure_seed: int) -> Iterator[World]:
    """A simulated world over a store in memory: the real engine, on virtual time."""
    with World(seed=perdure_seed) as world:
        yield world


@pytest.fixture
def perdure_clock(perdure_world: World) -> SimulatedClock:
    """The clock of `perdure_world`: time that moves only when it is told to."""
    return perdure_world.clock


@pytest.fixture
def perdure_crashes(perdure_seed: int) -> Callable[..., Exploration]:
    """`run_with_crashes` with the session's seed."""
    return partial(run_with_crashes, seed=perdure_seed)


@pytest.fixture(params=STORES)
def perdure_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store, for `perdure.open` or `World`; the test runs once for each kind of store."""
    kind: Any = request.param
    return "memory:" if kind == "memory" else f"sqlite:///{tmp_path / 'perdure.db'}"
