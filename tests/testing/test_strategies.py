"""The hypothesis strategies: what they draw runs, ends and verifies; the histories that they make are correct."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given, settings

from perdure.authoring.definition import Graph
from perdure.kernel.audit import AuditTail
from perdure.model.run import Life
from perdure.testing import World
from perdure.testing.graphs import draw_graph
from perdure.testing.programs import OPERATIONS, Program, draw_program, kinds_of
from perdure.testing.strategies import History, graphs, histories, history_of_program, programs

pytestmark = pytest.mark.simulation


@settings(max_examples=25)
@given(graphs())
def test_a_drawn_graph_ends_and_verifies(graph: Graph[..., object]) -> None:
    """Goal: every graph that is drawn is well formed, comes to an end, and its history verifies."""
    with World() as world:
        world.start(graph, 3, id="run")
        report = world.run_to_rest().audit("run")
        assert report.ok, report.violations
        assert world.row("run").life.ended


@settings(max_examples=25)
@given(programs())
def test_a_drawn_program_is_data_and_its_run_ends(program: Program) -> None:
    """Goal: a program is a JSON value, and with its signals sent its run comes to an end."""
    assert msgspec.json.decode(msgspec.json.encode(program)) == program
    assert set(kinds_of(program)) <= set(OPERATIONS) | {"again"}
    assert history_of_program(program).row.life.ended


@settings(max_examples=25)
@given(programs(fails=False))
def test_a_program_that_may_not_fail_completes(program: Program) -> None:
    """Goal: `fails=False` means what it says."""
    assert history_of_program(program).row.life is Life.COMPLETED


@settings(max_examples=25)
@given(histories())
def test_a_drawn_history_is_correct(history: History) -> None:
    """Goal: it ends where its row says, its chain holds, and the audit of facts alone finds nothing."""
    assert [one.seq for one in history.facts] == list(range(1, history.row.seq + 1))
    tail = AuditTail(history.row.id, graph=history.row.workflow != "perform")
    assert [violation for one in history.facts for violation in tail.feed(one)] == []
    assert history.facts[-1].hash == history.row.head


def test_every_kind_of_operation_is_drawn() -> None:
    """Goal: no kind is dead."""
    drawn = Counter(kind for seed in range(300) for kind in kinds_of(draw_program(Random(seed))))
    assert set(drawn) == set(OPERATIONS) | {"again"}
    assert min(drawn.values()) >= 10, drawn


def test_one_state_of_chance_draws_one_graph() -> None:
    """Goal: what was drawn can be drawn again from its seed."""
    assert draw_graph(Random(3)).definition == draw_graph(Random(3)).definition
    assert draw_graph(Random(3)).definition != draw_graph(Random(4)).definition
