"""What random programs under a store that refuses single runs have shown, each case by itself (D3, S20, S21)."""

from __future__ import annotations

import pytest

from perdure.testing import SimulatedCrash, World
from perdure.testing.programs import effects, perform

pytestmark = pytest.mark.simulation
# Its child fails, and so does it: another generation calls the child again.
FAILS_IN_A_CHILD = [["child", [["step", 1], ["fail", 1]]]]


@pytest.fixture(autouse=True)
def _clean() -> None:
    effects.clear()


@pytest.mark.parametrize("how", ["retry", "fork"])
def test_s20_the_children_of_a_revived_run_begin_in_the_commit_that_revives_it(how: str) -> None:
    """Goal: the engine dies beside the commit after the revival: no run waits for a child that was never begun."""
    with World(serve=[perform], batch_facts_max=1) as world:
        world.start(perform, FAILS_IN_A_CHILD, id="r")
        world.run_to_rest()
        assert world.status("r") == "failed"
        world.store.fail_at(world.store.commits + 2, "crash_before")
        with pytest.raises(SimulatedCrash):
            world.play(world.engine.retry("r") if how == "retry" else world.engine.fork("r", 1, id="again"))
            world.run_to_rest()
        world.run_to_rest()
        assert len(world.rows()) == (3 if how == "retry" else 4)
        assert {row.status for row in world.rows()} == {"failed"}
        assert world.audit_all() == []
