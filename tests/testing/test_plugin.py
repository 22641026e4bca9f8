"""The pytest plugin as a user's project sees it: installed with the package, fixtures by name, one seed for all."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PROGRAMS = """
import asyncio
import perdure

@perdure.task
async def greet(name: str) -> str:
    return f"Hello, {name}"

@perdure.workflow
async def remind(name: str) -> str:
    said = await greet(name)
    await asyncio.sleep(3 * 86_400)
    return said

@perdure.workflow
async def luck() -> float:
    return perdure.random()
"""

USERS = """
import perdure
from programs import greet, luck, remind

def test_world_and_clock(perdure_world, perdure_clock):
    wall = perdure_clock.wall_us()
    assert perdure_world.run(remind, "Ada") == "Hello, Ada"
    assert perdure_clock is perdure_world.clock
    assert perdure_clock.wall_us() - wall >= 3 * 86_400_000_000

def test_worlds_are_apart(perdure_world):
    assert perdure_world.rows() == []

def test_crashes(perdure_crashes):
    explored = perdure_crashes(remind, "Ada")
    assert explored.crashes["crash_before"] == explored.crashes["crash_after"] == explored.commits

async def opened(address):
    async with perdure.open(address, workflows=[luck]) as engine:
        handle = await engine.start(luck)
        return await handle.result()

def test_store(perdure_store):
    import asyncio
    assert perdure_store == "memory:" or perdure_store.startswith("sqlite:///")
    assert 0 <= asyncio.run(opened(perdure_store)) < 1

def test_seed(perdure_world, perdure_seed):
    print(f"seed {perdure_seed} luck {perdure_world.run(luck)}")
"""


def _project(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.makepyfile(programs=PROGRAMS, test_users=USERS)


def test_the_fixtures_work_in_a_project_of_their_own(pytester: pytest.Pytester) -> None:
    """Goal: nothing but the installation is needed; each test has a world of its own, each kind of store its test."""
    _project(pytester)
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=6)


def test_the_seed_is_an_option(pytester: pytest.Pytester) -> None:
    """Goal: another seed draws another chance, the same seed the same."""
    _project(pytester)

    def luck(seed: int) -> str:
        result = pytester.runpytest_inprocess("-q", "-s", "-k", "test_seed", f"--perdure-seed={seed}", "-p", "no:xdist")
        result.assert_outcomes(passed=1, deselected=5)
        (line,) = [line for line in result.outlines if f"seed {seed} luck" in line]
        return line.rpartition("luck ")[2]

    assert luck(7) == luck(7)
    assert luck(7) != luck(8)
