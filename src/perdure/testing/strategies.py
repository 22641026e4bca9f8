"""Hypothesis strategies: programs for flows, graphs, and whole histories. Needs the extra `testing`.

from hypothesis import given
from perdure.testing import World
from perdure.testing.strategies import graphs

@given(graphs())
def test_a_graph_ends_and_verifies(graph):
    with World() as world:
        world.start(graph, 3, id="run")
        assert world.run_to_rest().audit("run").ok
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from perdure.authoring.definition import Graph
from perdure.model import fact as f
from perdure.model.run import RunRow
from perdure.testing.graphs import draw_graph
from perdure.testing.programs import SIGNAL, Program, draw_program, perform, signals_of
from perdure.testing.world import World

RUN = "drawn"


class History(NamedTuple):
    """The history of one run that came to rest, as a store holds it. Shape: `facts` from the first to the last."""

    row: RunRow
    facts: list[f.Recorded]


def programs(size: int = 6, *, fails: bool = True) -> st.SearchStrategy[Program]:
    """Programs for the workflow `perdure.testing.programs.perform`, of about so many operations."""
    return st.randoms(use_true_random=False).map(lambda random: draw_program(random, size, fails=fails))


def graphs(size: int = 8, *, fails: bool = True) -> st.SearchStrategy[Graph[..., Any]]:
    """Graphs over one input `n`, with joins, maps, conditions, retries, failing steps and nested graphs."""
    return st.randoms(use_true_random=False).map(lambda random: draw_graph(random, size, fails=fails))


def histories(size: int = 6) -> st.SearchStrategy[History]:
    """Histories of flows and graphs, made by the engine itself in a simulated world: each of them is correct."""
    return st.one_of(programs(size).map(history_of_program), graphs(size).map(history_of_graph))


def history_of_program(program: Program) -> History:
    """What a run of the program leaves behind, its signals sent in time."""
    with World() as world:
        world.start(perform, program, id=RUN)
        for number, name in enumerate(signals_of(program)):
            world.signal_at(f"{10 * number + 1}s", RUN, name, SIGNAL)
        return _history(world)


def history_of_graph(graph: Graph[..., Any], n: int = 3) -> History:
    """What a run of the graph leaves behind."""
    with World() as world:
        world.start(graph, n, id=RUN)
        return _history(world)


def _history(world: World) -> History:
    world.run_to_rest()
    loaded = world.play(world.store.load([RUN], whole=True))[0]
    facts = [f.Recorded(seq, body, digest, f.decode_fact(body)) for seq, body, digest in loaded.facts]
    return History(loaded.row, facts)
