"""S15, F08: what kills its engine at every start is found by halves, alone, and nobody else is condemned for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perdure import NeedsAttention
from perdure.kernel.suspicion import judge
from perdure.model import fact as f
from perdure.state.memory import MemoryStore
from perdure.testing import SimulatedCrash, World
from tests.simulation import flows

STARTS_MAX = 60


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    flows.BEGUN.clear()
    yield
    flows.POISON.clear()


def _until_calm(world: World, act: Callable[[], Any]) -> int:
    """Do it, again after each death; how many deaths there were."""
    for deaths in range(STARTS_MAX):
        try:
            act()
            return deaths
        except SimulatedCrash:
            continue
    raise AssertionError("the engine dies at each start")


def _begun(count: int, poison: int, workflow: Any = flows.lives_dangerously) -> World:
    """A world in which so many runs were started; then one of them turns poisonous."""
    world = World(serve=[workflow, flows.two_steps])
    for n in range(count):
        world.start(workflow, n, id=f"r{n:03}")
    flows.POISON.add(f"r{poison:03}")
    return world


@pytest.mark.simulation
@pytest.mark.parametrize("count, poison", [(2, 0), (2, 1), (7, 3), (64, 0), (64, 40), (64, 63)])
def test_s15_a_poison_step_is_found_by_halves_and_nobody_else_is_condemned(count: int, poison: int) -> None:
    """Goal: after so many deaths as halving takes, and three alone, it needs attention; all others complete."""
    with _begun(count, poison) as world:
        world.die()
        deaths = _until_calm(world, lambda: world.advance("4h"))
        rows = {row.id: row for row in world.rows()}
        bad = f"r{poison:03}"
        assert [run for run, row in rows.items() if row.status == "attention"] == [bad]
        assert all(row.status == "completed" for run, row in rows.items() if run != bad)
        with pytest.raises(NeedsAttention, match="begun alone in three starts"):
            world.result(bad)
        assert deaths <= 2 + count.bit_length() + 3
        assert world.run(flows.two_steps, 2) == 4
        assert world.audit_all() == []


@pytest.mark.simulation
def test_s15_two_poison_steps_are_found_one_after_the_other() -> None:
    """Goal: what is found is set aside, and then the other is looked for."""
    with _begun(16, 3) as world:
        flows.POISON.add("r012")
        world.die()
        _until_calm(world, lambda: world.advance("4h"))
        assert {row.id for row in world.rows() if row.status == "attention"} == {"r003", "r012"}
        assert sum(row.status == "completed" for row in world.rows()) == 14
        assert world.audit_all() == []


@pytest.mark.simulation
def test_s15_a_poison_retry_is_found_too() -> None:
    """Goal: an attempt that kills and is not the first one is due at the death as well, and is accused."""
    world = _begun(4, 2, flows.dies_in_a_retry)
    with world:
        _until_calm(world, lambda: world.advance("4h"))
        assert {row.id for row in world.rows() if row.status == "attention"} == {"r002"}
        assert sum(row.status == "completed" for row in world.rows()) == 3
        assert world.audit_all() == []


@pytest.mark.simulation
def test_s15_the_innocent_are_not_held_up_for_ever() -> None:
    """Goal: those kept back go on as soon as those carried first have lived for a minute; new work is never kept back."""
    with _begun(8, 7) as world:
        world.die()
        deaths = 0
        while deaths < 3:  # two accuse nobody; then the suspects are carried in halves
            try:
                world.advance("4h")
            except SimulatedCrash:
                deaths += 1
        world.restart(kill=False) if world._engine else None
        flows.POISON.clear()
        assert world.run(flows.two_steps, 2) == 4
        world.advance("2m")
        running = {run for run, _ in world.engine.node.pools.running}
        assert running == {f"r{n:03}" for n in range(8)}
        world.advance("2h")
        assert all(row.status == "completed" for row in world.rows())
        assert world.audit_all() == []


@pytest.mark.simulation
def test_s15_a_message_to_one_that_is_kept_back_is_kept_for_it() -> None:
    """Goal: a cancel reaches a suspect that waits for its turn, and does not carry it before."""
    with _begun(8, 0) as world:
        world.die()
        deaths = 0
        while deaths < 2:
            try:
                world.advance("4h")
            except SimulatedCrash:
                deaths += 1
        flows.POISON.clear()
        flows.BEGUN.clear()
        assert world.engine.suspects.verdict.back == {"r004", "r005", "r006", "r007"}
        world.advance("1s")
        world.cancel("r006", "not this one")
        world.advance("1s")
        assert flows.BEGUN.keys() == {"r000", "r001", "r002", "r003"}
        world.advance("4h")
        assert world.status("r006") == "cancelled"
        assert flows.BEGUN.keys() <= {f"r{n:03}" for n in range(8)} - {"r006"}
        assert sum(row.status == "completed" for row in world.rows()) == 7
        assert world.audit_all() == []


@pytest.mark.simulation
def test_s15_a_few_impatient_kills_condemn_nobody() -> None:
    """Goal: a person who kills the engine again and again, of a run that is alone, with some patience between."""
    with World(serve=[flows.lives_dangerously]) as world:
        world.start(flows.lives_dangerously, 5, id="r")
        for _ in range(2):
            world.restart()
            world.advance("5s")
        world.restart()
        world.advance("90s")  # a minute of life ends the row
        for _ in range(3):
            world.restart()
            world.advance("5s")
        assert world.result("r") == 5
        assert world.audit_all() == []


@pytest.mark.simulation
def test_s15_outcomes_end_the_row() -> None:
    """Goal: deaths between which steps were recorded accuse nobody, however many there are."""
    with World(serve=[flows.two_steps, flows.lives_dangerously]) as world:
        world.start(flows.lives_dangerously, 5, id="slow")
        for n in range(12):
            world.start(flows.two_steps, n, id=f"quick-{n}")
            world.restart()
            world.advance("10s")
        recovered = [fact for fact in world.history("slow") if isinstance(fact, f.RunRecovered)]
        assert len(recovered) >= 2
        world.advance("2h")
        assert {row.status for row in world.rows() if row.id != "slow"} == {"completed"}


def test_s15_a_person_lets_it_go_on() -> None:
    """Goal: once its step is mended, a retry makes the condemned run complete, its first attempt not counted as failed."""
    with _begun(2, 1) as world:
        world.die()
        _until_calm(world, lambda: world.advance("4h"))
        assert world.status("r001") == "attention"
        flows.POISON.clear()
        world.play(world.engine.retry("r001", by="ann"))
        assert world.result("r001") == 1
        assert not any(isinstance(fact, f.AttemptFailed) for fact in world.history("r001"))
        assert world.audit_all() == []


@pytest.mark.parametrize("where", ["first", "last", "row"])
def test_f08_a_malformed_row_is_set_aside_at_every_start_and_others_go_on(where: str) -> None:
    """Goal: what cannot be read never stops the engine, nor its neighbours, however often it starts."""
    disk = MemoryStore()

    async def opened(_: object) -> MemoryStore:
        return disk

    with World(opened, serve=[flows.hears, flows.two_steps]) as world:
        world.start(flows.hears, 3, id="good")
        world.start(flows.hears, 3, id="bad")
        world.signal("bad", "n", 1)
        _damage(disk, where)
        for start in range(5):
            world.restart()
            world.advance("5s")
            world.signal("bad", "n", 2, request_id=f"again-{start}") if where != "row" else None
            assert world.run(flows.two_steps, 3, id=f"new-{start}") == 6
        for n in range(3):
            world.signal("good", "n", n)
        assert world.result("good") == [0, 1, 2]
        if where != "row":
            with pytest.raises(NeedsAttention, match="fact"):
                world.result("bad")


def _damage(disk: MemoryStore, where: str) -> None:
    run = disk._runs["bad"]
    if where == "row":
        run.row.version = "no-such-version"
    else:
        at = 0 if where == "first" else -1
        seq, _, digest = run.facts[at]
        run.facts[at] = (seq, b'["nonsense",{', digest)


def test_s15_the_rule_of_halves() -> None:
    """Goal: the judgement itself: who is kept back and who is condemned after which deaths, newest first."""
    four = ("a", "b", "c", "d")
    assert judge([]).back == judge([(four, False)]).back == frozenset()
    assert judge([(four, False), (four, False)]).back == {"c", "d"}
    assert judge([(("a", "b"), False), (four, False), (four, False)]).back == {"b", "c", "d"}
    released = [(("a", "b", "d"), False), (("c", "d"), False), (four, False), (four, False)]
    assert judge(released).back == {"a", "b", "c"}
    assert judge([(("e", "f"), False), *released]).back == frozenset()
    assert judge([(("e", "f"), False), (("e", "f"), False), *released]).back == {"f"}
    alone = [(("a",), False)] * 3
    assert judge([*alone[:2], (four, False)]).condemned == frozenset()
    assert judge([*alone, (four, False)]).condemned == {"a"}
    assert judge([(four, True), *alone]).condemned == frozenset()
    assert judge([*alone[:2], (("a",), True), *alone]).condemned == frozenset()
