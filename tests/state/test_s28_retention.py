"""Retention removes trees of runs, whole, once their root has ended long enough ago; never anything else (S28)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

import perdure
from perdure import detach, task, wait_signal, workflow
from perdure.errors import IdInUse
from perdure.model.run import RunRow
from perdure.testing.faults import FaultKind, SimulatedCrash
from perdure.testing.world import World
from tests.state import programs

KEEP_S = 60.0


@task
async def large(size: int) -> str:
    return "x" * size


@workflow
async def leaf(name: str) -> int:
    """Ends when it is told to; what its step gives is a blob."""
    got = len(await large(3_000))
    return got + await wait_signal(name, int)


@workflow
async def branch(names: list[str]) -> int:
    return sum([await leaf(name) for name in names])


@workflow
async def root(names: list[str], wait: bool) -> int:
    """Waits for its branch, or ends before it."""
    below = branch(names)
    if wait:
        return await below
    detach(below)
    return await wait_signal("end", int)


def world_with(store: str, seed: int = 0) -> World:
    return World(store, seed, serve=[root, branch, leaf], retention_s=KEEP_S, blob_min=1_024)


@pytest.fixture(params=["memory:", "sqlite:///kept.db"])
def world(request: pytest.FixtureRequest) -> World:
    with world_with(request.param) as made:
        yield made


class Watch:
    """Looks at a world after every step; none may take as long as runs are kept. Shape: `rows` are the last that were seen of each run, `removed` the ids gone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows: dict[str, RunRow] = {}
        self.removed: set[str] = set()

    def look(self) -> set[str]:
        """What is there; what has gone since the last look was allowed to go, and has gone whole."""
        there = {row.id: row for row in self.world.rows()}
        gone = self.rows.keys() - there.keys() - self.removed
        now = self.world.engine.clock.now_us()
        tombs = self.world.play(self.world.store.tombstones(sorted(gone)))
        for run in gone:
            top = self.top(run)
            assert top.ended_at is not None, f"{run} went, and its root {top.id} had not ended"
            ended_at = self.rows[run].ended_at
            assert ended_at is not None, f"{run} went alive"
            assert now - max(ended_at, top.ended_at) >= KEEP_S * 1e6, "too early"
            assert not [other for other in there if self.top(other, there).id == top.id], "its tree went in part"
            assert tombs[run] == (self.rows[run].input_hash, self.rows[run].outcome)
        self.removed |= gone
        self.rows.update(there)
        return set(there)

    def top(self, run: str, fresh: dict[str, RunRow] | None = None) -> RunRow:
        rows = {**self.rows, **(fresh or {})}
        row = rows[run]
        while row.parent:
            row = rows[row.parent]
        return row


def tree(world: World, top: str) -> set[str]:
    """A run and all below it."""
    return {row.id for row in world.rows() if top in {row.id, row.parent, _above(world, row)}}


def _above(world: World, row: RunRow) -> str:
    return world.row(row.parent).parent if row.parent else ""


def signal_leaves(world: World, top: str, name: str) -> None:
    for run in tree(world, top):
        if name in world.row(run).wait.signals:
            world.signal(run, name, 1)


def test_s28_a_tree_goes_whole_and_only_when_all_of_it_has_ended(world: World) -> None:
    """Goal: a root that ended keeps its tree while a run below it lives; then all of it goes and leaves tombstones."""
    watch = Watch(world)
    world.start(root, ["a", "b"], False, id="early")
    world.start(root, ["a"], True, id="late")
    world.advance("1s")
    early = tree(world, "early")
    assert len(early) == 3
    world.signal("early", "end", 1)
    world.advance("10m")
    assert watch.look() >= early, "two of them live on"
    signal_leaves(world, "early", "a")
    world.advance("10m")
    assert watch.look() > early, "the next leaf has begun"
    signal_leaves(world, "early", "b")
    world.advance("50s")
    assert watch.look() >= early, "the last of them ended less than a minute ago"
    world.advance("30s")
    left = watch.look()
    assert not left & early
    assert left == tree(world, "late")
    world.restart()
    signal_leaves(world, "late", "a")
    world.advance("50s")
    assert watch.look() == left, "not before its time"
    world.advance("30s")
    assert watch.look() == set()
    sizes = world.play(world.store.sizes())
    assert {name: sizes[name] for name in ("runs", "facts", "requests", "blobs", "inbox")} == dict.fromkeys(
        ("runs", "facts", "requests", "blobs", "inbox"), 0
    )
    assert sizes["tombstones"] == 7


def test_s28_an_id_that_was_removed_is_still_in_use(world: World) -> None:
    """Goal: a start that is said again after its run has gone is answered, and begins nothing; other input is refused."""
    world.start(root, [], True, id="gone")
    assert world.result("gone") == 0
    world.advance("2m")
    assert world.rows() == []
    assert world.start(root, [], True, id="gone").id == "gone"
    with pytest.raises(IdInUse):
        world.start(root, ["other"], True, id="gone")
    assert world.rows() == []


def test_s28_each_step_of_random_trees_is_looked_at() -> None:
    """Goal: whatever ends, is cancelled or retried when, and whenever the engine dies, nothing goes too early or in part."""
    removed = 0
    for seed in range(25):
        chance = Random(seed)
        with world_with("memory:", seed) as world:
            watch = Watch(world)
            assert world.engine
            for step in range(30):
                _something(world, chance, step)
                world.advance(f"{chance.choice((1, 20, 45))}s")
                watch.look()
            for _ in range(4):
                world.advance("45s")
                watch.look()
            assert world.audit_all() == []
            removed += len(watch.removed)
    assert removed > 150


def _something(world: World, chance: Random, step: int) -> None:
    """Start a tree, let a run end, cancel one or retry one, or kill the engine."""
    rows = world.rows()
    live = [row for row in rows if not row.life.ended]
    kind = chance.choice(["start", "signal", "signal", "cancel", "retry", "kill"])
    if kind == "start" or not live:
        world.start(root, ["a"] * chance.randint(0, 2), chance.random() < 0.5, id=f"tree-{step}")
    elif kind == "signal":
        for row in chance.sample(live, min(2, len(live))):
            for name in row.wait.signals:
                world.signal(row.id, name, 1)
    elif kind == "cancel":
        world.cancel(chance.choice(live).id)
    elif kind == "retry" and any(row.status == "cancelled" for row in rows):
        world.play(world.engine.retry(chance.choice([row.id for row in rows if row.status == "cancelled"])))
    elif kind == "kill":
        world.restart()


@pytest.mark.parametrize("side", ["crash_before", "crash_after"])
def test_s28_a_death_beside_any_commit_leaves_a_tree_whole_or_gone(side: FaultKind) -> None:
    """Goal: the commit that removes a tree is like any other: it takes place or not."""
    number = 0
    while True:
        number += 1
        with world_with("memory:") as world:
            world.store.fail_at(number, side)
            watch = Watch(world)
            again(world, lambda world=world: world.start(root, ["a"], False, id="old"))
            again(world, lambda world=world: world.advance("1s"))
            again(world, lambda world=world: world.signal("old", "end", 1, request_id="end"))
            again(world, lambda world=world: signal_leaves(world, "old", "a"))
            for _ in range(8):
                again(world, lambda world=world: world.advance("20s"))
                watch.look()
            assert world.rows() == []
            assert len(watch.removed) == 3
            if not world.store.fired:
                break
    assert number >= 8


def again(world: World, act: Callable[[], object]) -> None:
    """Do it, and once more when the engine died of it."""
    try:
        act()
    except SimulatedCrash:
        act()


async def test_s28_it_is_off_unless_it_is_set(tmp_path: Path) -> None:
    """Goal: nobody's history goes by itself."""
    async with perdure.open("sqlite:///s.db", [programs.waits], sweep_every_s=0.01) as engine:
        assert engine.settings.retention_s == 0
        run = await engine.start(programs.waits, 1)
        await run.signal("go", 1)
        await run.result("60s")
        await engine.sweep._retention()
        await engine.node.settled()
        assert [row.id async for row in engine.runs()] == [run.id]
