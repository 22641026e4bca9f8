"""Which runs leave memory: those that only wait, the one used least recently first, and not for a nap (S10)."""

from __future__ import annotations

import asyncio

from perdure import task, wait_signal, workflow
from perdure.testing import World

DAY_S = 86_400.0


@task
async def works(seconds: float) -> None:
    await asyncio.sleep(seconds)  # work


@workflow
async def hears(times: int) -> int:
    return sum([await wait_signal("n", int) for _ in range(times)])


@workflow
async def naps(seconds: float) -> str:
    await asyncio.sleep(seconds)  # durable
    return "awake"


@workflow
async def busy(seconds: float) -> str:
    await works(seconds)
    return "done"


def there(world: World) -> set[str]:
    return set(world.engine.node.advance.runs)


def test_s10_the_one_that_was_used_least_recently_leaves_first() -> None:
    """Goal: it is the use that counts, and not when a run began."""
    with World("memory:", runs_resident_max=2, serve=[hears]) as world:
        for name in "ab":
            world.start(hears, 2, id=name)
        world.signal("a", "n", 1)
        assert there(world) == {"a", "b"}
        world.start(hears, 2, id="c")
        assert there(world) == {"a", "c"}
        world.signal("b", "n", 1)
        world.run_to_rest()
        assert there(world) == {"b", "c"}
        for name in "ab":
            world.signal(name, "n", 2)
            assert world.result(name) == 3
        assert world.audit_all() == []


def test_s10_a_sleep_that_is_not_worth_a_replay_is_slept_in_memory() -> None:
    """Goal: only a sleep of more than a hundred times what the replay costs is slept elsewhere."""
    with World("memory:", runs_resident_max=0, serve=[naps]) as world:
        world.start(naps, 0.005, id="nap")
        world.start(naps, DAY_S, id="night")
        assert there(world) == {"nap"}
        assert [world.result(name) for name in ("nap", "night")] == ["awake", "awake"]
        assert world.audit_all() == []


def test_s10_a_run_with_an_attempt_in_flight_stays() -> None:
    """Goal: no attempt's outcome waits for a load, however long it takes."""
    with World("memory:", runs_resident_max=0, serve=[busy, hears]) as world:
        world.start(busy, DAY_S, id="busy")
        for name in "abc":
            world.start(hears, 1, id=name)
        world.advance(DAY_S / 2)
        assert there(world) == {"busy"}
        assert world.result("busy") == "done"
        assert world.audit_all() == []
