"""F83: a history grows to its limit: warned of at 80%, then the run needs attention; continue_as_new keeps it short."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import perdure
from perdure import NeedsAttention, RunCancelled
from perdure.cli.show import _facts
from perdure.testing import World
from tests.simulation import long


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "perdure.length"]


def test_f83_a_history_is_warned_of_and_then_needs_attention(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: one warning at 80% that names the remedy, attention at the limit with its reason; others go on."""
    with World(history_max=100, serve=[long.counts]) as world:
        with pytest.raises(NeedsAttention, match="its history has 100 facts, the limit of a generation") as caught:
            world.run(long.counts, 500, id="r")
        assert "continue_as_new" in str(caught.value)
        assert "history_max" in str(caught.value)
        (warned,) = _warnings(caplog)
        assert "run r has 80 facts of at most 100" in warned
        assert "continue_as_new" in warned
        assert world.row("r").seq == 101
        assert world.run(long.counts, 50) == sum(range(50))
        assert world.audit_all() == []


def test_f83_below_the_limit_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a run that ends with its last allowed fact is neither warned of twice nor stopped."""
    with World(history_max=100) as world:
        assert world.run(long.counts, 78, id="short") == sum(range(78))
        assert _warnings(caplog) == []
        assert world.run(long.counts, 98, id="r") == sum(range(98))
        assert world.row("r").seq == 100
        assert len(_warnings(caplog)) == 1
        assert world.audit_all() == []


def test_f83_a_restart_neither_forgets_nor_warns_again(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: the count is the history's, whatever left memory meanwhile."""
    with World(history_max=100) as world:
        world.start(long.hears, 500, id="r")
        for n in range(98):
            world.signal("r", "n", n)
            if n % 10 == 0:
                world.restart()
        assert len(_warnings(caplog)) == 1
        world.signal("r", "n", 98)
        assert world.status("r") == "attention"
        world.signal("r", "n", 99)  # it is kept
        world.restart()
        assert world.row("r").seq == 101
        assert world.audit_all() == []


def test_f83_continue_as_new_keeps_it_short(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: the limit is one generation's: a run of many goes on for ever."""
    with World(history_max=100) as world:
        assert world.run(long.counts_in_parts, 1_000, 70, id="r") == sum(range(1_001))
        assert world.row("r").seq > 1_000
        assert world.row("r").generation == 15
        assert _warnings(caplog) == []
        assert world.run(long.counts_in_parts, 500, 90) == sum(range(501))
        assert len(_warnings(caplog)) == 5
        assert world.audit_all() == []


def test_f83_a_higher_limit_and_a_retry_let_it_go_on() -> None:
    """Goal: the way out that the reason names is one."""
    with World(history_max=100, serve=[long.counts]) as world:
        with pytest.raises(NeedsAttention):
            world.run(long.counts, 150, id="r")
        world.settings = type(world.settings)(**{**_given(world), "history_max": 200})
        world.restart()
        world.play(world.engine.retry("r"))
        assert world.result("r") == sum(range(150))
        assert world.audit_all() == []


def _given(world: World) -> dict[str, object]:
    return {name: getattr(world.settings, name) for name in world.settings.__struct_fields__}


@pytest.mark.parametrize("force", [False, True])
def test_f83_it_can_be_cancelled(force: bool) -> None:
    """Goal: a run at its limit can still be brought to its end, with its code and without."""
    with World(history_max=100, serve=[long.counts]) as world:
        with pytest.raises(NeedsAttention):
            world.run(long.counts, 150, id="r")
        world.cancel("r", "too long", force=force)
        with pytest.raises(RunCancelled, match="too long"):
            world.result("r")
        assert world.audit_all() == []


def test_f83_a_graph_has_the_limit_too(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: its warning names what a graph can do."""
    with World(history_max=100) as world:
        with pytest.raises(NeedsAttention, match="nested graphs"):
            world.run(long.spreads, 150, id="r")
        assert len(_warnings(caplog)) == 1
        assert world.audit_all() == []


@pytest.mark.slow
def test_f83_replay_is_linear() -> None:
    """Goal: a history of eight times as many facts is folded in about eight times as long, not in sixty-four."""
    spent = {n: min(_replayed(n) for _ in range(2)) for n in (1_500, 12_000)}
    assert spent[12_000] < 2.5 * 8 * spent[1_500], spent


def _replayed(n: int) -> float:
    """Seconds to load a run of so many facts, its code replayed."""
    with World(serve=[long.hears]) as world:
        world.start(long.hears, n + 1, id="r")
        world.play(_say(world, n))
        world.restart()
        began = time.perf_counter()
        world.signal("r", "n", 1)
        spent = time.perf_counter() - began
        assert world.result("r") == n + 1
        return spent


async def _say(world: World, n: int) -> None:
    for _ in range(n // 500):
        await asyncio.gather(*(world.engine.signal("r", "n", 1) for _ in range(500)))


def test_f83_show_says_how_long_it_is(tmp_path: Path) -> None:
    """Goal: a person who looks at the run sees that it comes near its limit, and what helps."""
    path = tmp_path / "long.db"
    with World(f"sqlite:///{path}", history_max=100) as world:
        world.start(long.hears, 500, id="r")
        for n in range(85):
            world.signal("r", "n", n)
        world.stop()

    def shown(limit: int) -> str:
        with perdure.connect(f"sqlite:///{path}", history_max=limit) as client:
            row, state = client.row("r"), client.state("r")
            return "\n".join(f"{name} {text}" for name, text in _facts(row, state, None, engine=None, most=limit))

    assert "history 86 facts in this generation, of at most 100 (history_max): let its code" in shown(100)
    assert "history_max" not in shown(1_000)
