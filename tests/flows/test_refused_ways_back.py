"""A way back that is refused leaves nothing behind, and says nothing but the refusal (S19)."""

from __future__ import annotations

import gc

import pytest

from perdure import NeedsAttention, PerdureError, task, workflow
from perdure.kernel.flow import Flow
from perdure.testing import World


@task(at_most_once=True)
async def wire(cents: int) -> str:
    raise ConnectionError("the line went dead")


@workflow
async def pay(cents: int) -> str:
    return await wire(cents)


def test_s19_a_refused_resolve_closes_the_coroutine_it_was_tried_on(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: the flow that was replayed for a refused message leaves memory as any other, without a word in the log."""
    with World() as world:
        with pytest.raises(NeedsAttention):
            world.run(pay, 500, id="p")
        assert "no open step" in refusal(world)
        gc.collect()
        assert not [flow for flow in gc.get_objects() if type(flow) is Flow and flow.run_id == "p" and not flow.dropped]
        assert "destroyed" not in caplog.text
        world.play(world.engine.resolve("p", "wire#1", "result", "receipt"))
        assert world.result("p") == "receipt"
        assert world.audit("p").ok


def refusal(world: World) -> str:
    """What a resolve of a step that is not there is told; the error itself is let go, with the frames it holds."""
    try:
        world.play(world.engine.resolve("p", "wire#2", "retry"))
    except PerdureError as error:
        return str(error)
    return "nothing"
