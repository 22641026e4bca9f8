"""The ways back of a flow: retry, resume, fork and force, and what is owed meanwhile (S16, S17, S19-S22, F78, F80)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure import NeedsAttention, PerdureError, RunCancelled, RunFailed, workflow
from perdure.errors import WrongState
from perdure.model import message as m
from perdure.model.fact import SignalReceived
from perdure.runtime.client import Client
from perdure.runtime.node import done
from perdure.state.store import Batch
from perdure.testing import World
from tests.flows import reviving as flows
from tests.flows.reviving import BROKEN, LOG


@pytest.fixture
def world() -> Iterator[World]:
    LOG.clear()
    BROKEN.clear()
    with World("memory:") as made:
        yield made


def clean(world: World) -> None:
    assert world.audit_all() == []


def test_a_retry_makes_a_failed_child_again(world: World) -> None:
    """Goal: the child that failed a run is another child in the next generation (S20, S21)."""
    BROKEN.add("shaky")
    with pytest.raises(RunFailed):
        world.run(flows.parent, 4, id="p")
    BROKEN.clear()
    world.play(world.engine.retry("p"))
    assert world.result("p") == 4
    clean(world)


@pytest.mark.parametrize("crash", [False, True])
def test_f80_a_failed_compensation_goes_on_in_reverse_order_after_a_retry(world: World, crash: bool) -> None:
    """Goal: attention, then the rest of the compensations, though the machine dies once they were resumed (S17, S19)."""
    BROKEN.update({"shaky", "undo_b"})
    with pytest.raises(NeedsAttention):
        world.run(flows.saga, 1, id="s")
    assert not [one for one in LOG if one.startswith("undo")]
    BROKEN.clear()
    if crash:
        world.store.fail_next("crash_after")
        with pytest.raises(SystemExit):
            world.play(world.engine.retry("s"))
        assert world.store.fired
    else:
        world.play(world.engine.retry("s"))
    with pytest.raises(RunFailed):
        world.result("s")
    assert [one for one in LOG if one.startswith("undo")] == ["undo b 1", "undo a 1"]
    clean(world)


def test_a_retry_never_undoes_an_earlier_generation_twice(world: World) -> None:
    """Goal: what an earlier generation did is refunded once, whatever is retried afterwards (S17, S21)."""
    BROKEN.add("shaky")
    with pytest.raises(RunFailed):
        world.run(flows.over_generations, 1, id="g")
    assert LOG.count("undo a 1") == 1
    try:
        world.play(world.engine.retry("g"))
        world.result("g")
    except PerdureError:
        pass
    assert LOG.count("undo a 1") == 1


WAYS = {"retry": RunFailed, "resolve": RunFailed, "force": RunCancelled}


def _other_process(world: World) -> Client:
    return Client(world.store, world.settings, world.clock, world.engine.catalogue)  # type: ignore[arg-type]


@pytest.mark.parametrize("sender", ["engine", "client"])
@pytest.mark.parametrize("way", WAYS)
def test_a_cancel_does_not_try_a_failed_compensation_of_a_failing_run_again(
    world: World, way: str, sender: str
) -> None:
    """Goal: the first plain cancel of a run that was failing is refused and names the ways out; these alone move it (S19)."""
    BROKEN.update({"shaky", "undo_a"})
    with pytest.raises(NeedsAttention):
        world.run(flows.saga, 1, id="s")
    told, log = world.history("s"), list(LOG)
    assert log[-1] == "undo b 1"
    BROKEN.clear()
    desk = world.engine if sender == "engine" else _other_process(world)
    with pytest.raises(WrongState, match=r"(?s)ending already.*undo a.*resolve s undo:.*perdure cancel s --force"):
        world.play(desk.cancel("s", "please"))
    world.restart()
    world.advance(10)
    assert (world.status("s"), world.history("s"), LOG) == ("attention", told, log)
    assert world.play(world.store.inbox(0, 10)) == []
    if way == "retry":
        world.play(world.engine.retry("s"))
    elif way == "resolve":
        world.play(world.engine.resolve("s", "undo:do_a#1", "result", None))
    else:
        world.cancel("s", "now", force=True)
    with pytest.raises(WAYS[way]):
        world.result("s")
    assert LOG[len(log) :] == ([] if way == "resolve" else ["undo a 1"])
    clean(world)


def test_a_cancel_that_reaches_the_engine_beside_the_failure_changes_nothing(world: World) -> None:
    """Goal: a cancel that another process wrote before the compensation failed is taken off, and resumes nothing (S19)."""
    BROKEN.update({"shaky", "undo_a"})
    with pytest.raises(NeedsAttention):
        world.run(flows.saga, 1, id="s")
    told, log = world.history("s"), list(LOG)
    BROKEN.clear()
    batch = Batch()
    batch.inbox.append(m.Cancel(run="s", at=world.clock.wall_us(), request="early", reason="please"))
    world.play(done(world.store.commit(batch)))
    world.advance(10)
    assert (world.status("s"), world.history("s"), LOG) == ("attention", told, log)
    assert world.play(world.store.inbox(0, 10)) == []
    clean(world)


def test_a_second_cancel_does_not_try_a_failed_compensation_again(world: World) -> None:
    """Goal: only retry, resolve and force move a cancelled run that needs attention; a cancel says so (S19)."""
    BROKEN.add("undo_b")
    world.start(flows.books_and_waits, 1, id="c")
    world.run_to_rest()
    world.cancel("c", "please")
    with pytest.raises(NeedsAttention):
        world.result("c")
    told = world.history("c")
    BROKEN.clear()
    with pytest.raises(WrongState, match="ending already"):
        world.cancel("c", "once more")
    world.restart()
    world.advance(10)
    assert (world.status("c"), world.history("c"), LOG) == ("attention", told, ["b"])
    world.play(world.engine.retry("c"))
    with pytest.raises(RunCancelled, match="please"):
        world.result("c")
    assert LOG == ["b", "undo b 1"]
    world.advance(10)
    assert world.play(world.store.inbox(0, 10)) == []
    clean(world)


def test_force_ends_a_run_that_ignores_its_cancel(world: World) -> None:
    """Goal: a live run is ended without its code, and compensated (S19)."""
    world.start(flows.stubborn, 1, id="f")
    world.run_to_rest()
    world.cancel("f", "please")
    world.cancel("f", "now", force=True)
    with pytest.raises(RunCancelled):
        world.result("f")
    assert "undo a 1" in LOG
    clean(world)


def test_force_finds_a_task_whose_name_has_a_dot(world: World) -> None:
    """Goal: what is owed is found by the task's whole name (S19)."""
    BROKEN.update({"shaky", "undo_b"})
    with pytest.raises(NeedsAttention):
        world.run(flows.saga, 1, id="d")
    BROKEN.clear()
    world.cancel("d", "now", force=True)
    with pytest.raises(RunCancelled):
        world.result("d")
    assert LOG[-2:] == ["undo b 1", "undo a 1"]
    clean(world)


@pytest.mark.parametrize("at", range(1, 5))
def test_a_fork_at_any_fact_comes_to_the_same_end(world: World, at: int) -> None:
    """Goal: wherever it is cut, the new run goes on from there (S22)."""
    assert world.run(flows.two_steps, 1, id="o") == 2
    assert len(world.history("o")) == 4
    world.play(world.engine.fork("o", at, id=f"o-{at}"))
    assert world.result(f"o-{at}") == 2
    clean(world)


def _mended(body: str) -> object:
    space: dict[str, object] = {"LOG": LOG}
    exec("import time\nfrom perdure import now, patched\nasync def mending(value: int) -> int:\n" + body, space)
    return workflow(space["mending"])  # type: ignore[arg-type]


@pytest.mark.parametrize("patch", [False, True])
def test_a_refused_turn_is_folded_again_once_its_code_is_mended(world: World, patch: bool) -> None:
    """Goal: attention for a wall clock read, and an end after the mending, though the turn now decides more (S4, S19)."""
    world.serve(_mended("    time.time()\n    return value"))
    with pytest.raises(NeedsAttention, match=r"perdure\.now\(\)"):
        world.run(world.served[0], 3, id="m")
    more = "    assert patched('p')\n" if patch else ""
    world.restart(serve=[_mended(more + "    now()\n    return value + 1")])
    world.play(world.engine.retry("m"))
    assert world.result("m") == 4
    clean(world)


def test_a_variable_that_cannot_be_kept_harms_nobody_else(world: World) -> None:
    """Goal: an object hidden in a variable is this run's trouble alone (D3)."""
    world.serve(flows.keeps_objects, flows.saga)
    with pytest.raises(PerdureError, match="object"):
        world.run(flows.keeps_objects, 1, id="bad")
    assert world.run(flows.saga, 1, id="good") == 1
    clean(world)


def test_f78_a_flow_that_leaves_the_program_only_fails(world: World) -> None:
    """Goal: SystemExit in a flow is its failure, and the engine goes on."""
    with pytest.raises(RunFailed, match="SystemExit"):
        world.run(flows.leaves, 1, id="x")
    assert world.run(flows.two_steps, 1) == 2
    clean(world)


def test_f78_a_flow_whose_exception_has_no_words_fails(world: World) -> None:
    """Goal: a raising __str__ is recorded as a failure of its type."""
    with pytest.raises(RunFailed, match="Mute"):
        world.run(flows.mute, 1, id="x")
    clean(world)


def test_who_awaits_a_detached_child_is_told(world: World) -> None:
    """Goal: no run waits for what will never come."""
    with pytest.raises(RunFailed, match="detached"):
        world.run(flows.awaits_detached, 1, id="x")
    clean(world)


def test_a_probe_that_says_not_done_does_not_outdo_the_retry_policy(world: World) -> None:
    """Goal: an attempt that is known to be undone counts like any failed one (S16)."""
    with pytest.raises(RunFailed):
        world.run(flows.carefully, 1, id="x")
    assert LOG == ["once", "probe", "once", "probe"]
    clean(world)


def test_a_plain_retry_never_repeats_what_is_at_most_once(world: World) -> None:
    """Goal: an unknown outcome is resolved by a person who says which, never by trying again (S16, S19)."""
    with pytest.raises(NeedsAttention):
        world.run(flows.blindly, 1, id="x")
    with pytest.raises(PerdureError, match="resolve"):
        world.play(world.engine.retry("x"))
    world.run_to_rest()
    assert LOG == ["blind"]
    world.play(world.engine.resolve("x", "once_blind#1", "result", 7))
    assert world.result("x") == 7
    clean(world)


def test_f72_non_determinism_is_tried_again_at_a_start_with_other_code() -> None:
    """Goal: mended code resumes the run without a word from anybody (S19)."""
    LOG.clear()
    head = "    from tests.flows.reviving import shaky\n    import asyncio\n    await shaky(value)\n"
    good, bad = (
        _mended(head + "    await asyncio.sleep(86400)\n    return value"),
        _mended("    import asyncio\n    await asyncio.sleep(5)\n    return value"),
    )
    with World("memory:", serve=[good]) as world:
        world.start(good, 3, id="n")
        world.advance("1h")
        world.restart(serve=[bad], away="2d")
        world.run_to_rest()
        assert world.status("n") == "attention"
        world.restart(serve=[good])
        world.run_to_rest()
        assert world.status("n") == "completed"
        clean(world)


def test_what_was_said_in_attention_comes_before_a_deadline_that_is_later(world: World) -> None:
    """Goal: an approval that was acknowledged in time counts, though the run is resumed days after its deadline (S11)."""
    body = "    from perdure import wait_signal\n    try:\n        return await wait_signal('go', int, '3d')\n"
    body += "    except TimeoutError:\n        return -1"
    good, bad = _mended(body), _mended(body.replace("'go'", "'gone'"))
    world.restart(serve=[good])
    world.start(good, 1, id="w")
    world.restart(serve=[bad])
    world.signal("w", "nothing", 0)
    world.advance("1h")
    assert world.status("w") == "attention"
    world.signal("w", "go", 5)
    world.restart(serve=[good], away="10d", kill=False)
    assert world.result("w") == 5
    clean(world)


def test_what_was_said_in_attention_is_not_lost_by_a_person_s_retry(world: World) -> None:
    """Goal: messages that wait in the inbox reach the run without another start of the engine (S19)."""
    BROKEN.update({"shaky", "undo_b"})
    world.start(flows.saga, 1, id="s")
    world.run_to_rest()
    assert world.status("s") == "attention"
    world.signal("s", "note", "kept")
    BROKEN.clear()
    world.play(world.engine.retry("s"))
    with pytest.raises(RunFailed):
        world.result("s")
    assert [bytes(fact.value) for fact in world.history("s") if isinstance(fact, SignalReceived)] == [b'"kept"']
    clean(world)
