"""W9: long, wide and dense graphs run in time that grows with their edges, and without recursion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.authoring.definition import Graph
from perdure.testing.world import World
from tests.graphs.large import SHAPES, TIMES, steady

RESULTS = {"chain": 9_999, "wide": 10_000, "mapped": 10_000, "layers": 100, "joined": [10_000, 10_000, 10_000]}


def running(made: Graph[..., Any]) -> Callable[[], Any]:
    def run() -> Any:
        with World(batch_facts_max=512) as world:
            return world.run(made, id="r")

    return run


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_w9_running_grows_with_the_edges(shape: str) -> None:
    """Goal: four times the steps take far less than sixteen times as long; 1,000,000 edges and depth 10,000 run."""
    make, size = SHAPES[shape]
    small, large = make(size // TIMES), make(size)
    assert steady(running, small, large)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["chain", "wide", "mapped", "layers", "joined"])
def test_w9_the_largest_are_right_and_verify(shape: str) -> None:
    """Goal: the result is right, and the audit of so large a history finds nothing and does not recurse."""
    make, size = SHAPES[shape]
    with World() as world:
        result = world.run(make(size), id="r")
        if shape == "joined":  # `any` fires with what is there then
            assert result[::2] == RESULTS[shape][::2]
        else:
            assert result == RESULTS[shape]
        report = world.audit("r")
        assert report.ok, report.lines()[:5]
        assert any(check.checked >= 10_000 for check in report.checks)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["chain", "layers"])
def test_w9_a_large_graph_is_loaded_from_its_facts_and_from_its_snapshot(shape: str) -> None:
    """Goal: a kill in the middle of 10,000 steps: the load, with and without a snapshot, ends in the same result."""
    make, size = SHAPES[shape]
    for snapshots in (1_000, 1_000_000):
        with World(snapshot_facts=snapshots, batch_facts_max=200) as world:
            made = make(size)
            world.serve(made)
            assert world.engine is not None
            world.store.fail_at(6_000 if shape == "chain" else 80, "crash_after")
            with pytest.raises(SystemExit):
                world.run(made, id="r")
            assert not world._open.disk._runs["r"].row.life.ended  # type: ignore[attr-defined]
            taken = world._open.disk._runs["r"].snapshot  # type: ignore[attr-defined]
            assert (taken is not None) == (snapshots == 1_000)
            world.restart()
            assert world.result("r") == RESULTS[shape]
