"""Why a run waits, over PostgreSQL: the same words as over any other store."""

from __future__ import annotations

import perdure
from tests.crash.harness import until_async
from tests.monitoring import waiting
from tests.postgres.server import Server


async def test_an_engine_and_a_client_tell_why(postgres: Server) -> None:
    """Goal: a signal two levels down is named by a client of another connection, and a step by its engine's node."""
    address = postgres.address()
    async with perdure.open(address, waiting.ALL, stop_grace_s=0) as engine, perdure.connect(address) as client:
        await engine.start(waiting.parent, id="r")
        await engine.start(waiting.works, id="w")

        async def down() -> bool:
            return (await client.row("r")).wait.children != ()

        await until_async(down, "the child is waited for")
        for desk in (engine, client):
            (child,) = (await desk.why("r")).reasons
            assert child.kind == "child"

        async def deep() -> bool:
            (child,) = (await client.why("r")).reasons
            return [one.kind for grandchild in child.reasons for one in grandchild.reasons] == ["signal"]

        await until_async(deep, "the signal is named")
        (step,) = (await engine.why("w")).reasons
        assert (step.kind, step.name) == ("step", "long#1")
    async with perdure.connect(address) as client:
        assert [one.kind for one in (await client.why("r")).reasons] == ["no_engine", "child"]
