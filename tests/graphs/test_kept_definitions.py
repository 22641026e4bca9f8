"""S23: a graph's definition is kept in the store by its hash, read without its code, and goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Retry, graph, task, wait_signal, workflow
from perdure.authoring.definition import GraphBuilder
from perdure.authoring.load import load_graph
from perdure.authoring.registry import Registry
from perdure.clock import EngineClock
from perdure.model.graph import canonical_json, definition_hash
from perdure.runtime.client import Client
from perdure.settings import Settings
from perdure.state.sqlite import SqliteStore
from perdure.testing.world import World

DOCUMENT = """
graph: numbers
version: "3"
parameters: [start]
nodes:
- {name: one, task: plus, args: {a: {input: start}, b: 1}}
- {name: asked, task: ask, child: true, args: {a: {step: one}}}
- {name: big, task: plus, args: {a: {step: asked}, b: 100}, when: asked > 3, options: {timeout: 30s}}
output: {step: big}
"""


class Odd(Exception):
    """A number is odd."""


@task
def plus(a: int, b: int) -> int:
    return a + b


@task(raises=(Odd,))
def halve(a: int) -> int:
    if a % 2:
        raise Odd(a)
    return a // 2


@workflow
async def ask(a: int) -> int:
    return a + await wait_signal("more", int)


@graph
def halved(a: int) -> Any:
    half = halve.options(retry=Retry(attempts=2, on=(Odd,)), timeout="3s")(a)
    return plus(half, 1).when(lambda halve: halve > 1)


TASKS = {"plus": plus, "ask": ask}
THIS = __import__("sys").modules[__name__]


def loaded() -> Any:
    return load_graph(DOCUMENT, TASKS)


def test_s23_a_graph_from_a_document_goes_on_from_the_store_alone() -> None:
    """Goal: the process that knew the document dies; another that serves only its tasks carries the run to its end."""
    with World() as world:
        run = world.start(loaded(), 1, id="n")
        world.run_to_rest()
        assert world.status(run) == "waiting"
        world.restart(serve=[ask])  # and so the tasks of its module
        assert world.engine.catalogue.workflow("numbers", "3") is None
        child = world.row("n").wait.children[0]
        world.signal(child, "more", 5)
        assert world.result("n") == 107
        report = world.audit("n")
        assert report.ok, report.lines()
        assert any(check.name == "C1 required activities done" and check.checked > 3 for check in report.checks)


def test_s23_without_its_tasks_a_run_stays_as_it_is() -> None:
    """Goal: what is not served is not moved by a fact or a guess; it goes on when its tasks are there again."""
    with World() as world:
        world.start(loaded(), 1, id="n")
        world.run_to_rest()
        child = world.row("n").wait.children[0]
        world.restart(serve=[])
        before = world.row("n").seq
        world.advance("10s")
        assert world.row("n").seq == before
        assert world.status("n") == "waiting"
        world.restart(serve=[ask])
        world.signal(child, "more", 5)
        assert world.result("n") == 107


def test_s23_options_and_exceptions_of_steps_are_bound_again() -> None:
    """Goal: per-step options, exception types and Python conditions are found in the modules that are served."""
    with World() as world:
        world.run(halved, 8, id="h")
        definition = world.play(world.engine.definition("h"))
        assert definition == halved.definition
        registry = Registry([ask])
        again = perdure.authoring.load.bind_graph(definition, registry.activities(), imports=registry.modules)
        assert again.definition == halved.definition
        assert again.definition_hash == halved.definition_hash
        assert again.tasks["halve"].timeout_us == 3_000_000
        assert again.tasks["halve"].retry.on == (Odd,)
        assert again.tasks["halve"].raises == (Odd,)
        assert again.conditions["plus"]({"halve": 2}) is True
        assert registry.task("halve") is halve  # and not with the options of one step


async def test_s23_a_client_reads_a_graph_without_its_code(tmp_path: Path) -> None:
    """Goal: show, draw and verify work from the store alone; the audit's oracle has the definition."""
    address = f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(address, workflows=[halved]) as engine:
        assert await (await engine.start(halved, 8, id="h")).result(timeout="20s") == 5
    async with perdure.connect(address) as client:
        assert await client.definition("h") == halved.definition
        report = await client.verify("h")
        assert report.ok
        counted = {check.name: check.checked for check in report.checks}
        assert counted["C1 required activities done"] >= 2


async def test_s23_a_client_that_starts_a_graph_keeps_its_definition(tmp_path: Path) -> None:
    """Goal: the definition is there as soon as the start is acknowledged, though no engine runs; one moves it later."""
    address, settings = f"sqlite:///{tmp_path}/s.db", Settings()
    store = await SqliteStore.open_client(f"{tmp_path}/s.db", settings)
    client = Client(store, settings, EngineClock(), Registry())
    simple = GraphBuilder("simple", parameters=["a"])
    made = simple.build(simple.add(plus, args={"a": simple.input("a"), "b": 1}))
    await client.start(made, 41, id="c")
    assert await client.definition("c") == made.definition
    await client.close() if hasattr(client, "close") else await store.close()
    async with perdure.open(address, workflows=[ask]) as engine:
        assert await engine.get("c").result(timeout="20s") == 42


def test_s23_a_definition_is_kept_once_however_many_runs_have_it() -> None:
    """Goal: one blob a definition; a changed graph under the same name and version adds its own when it moves a run."""

    def made(last: int) -> Any:
        build = GraphBuilder("g", parameters=["a"])
        first = build.add(ask, name="ask", args={"a": build.input("a")})
        return build.build(build.add(plus, name="last", args={"a": first, "b": last}))

    old, new = made(1), made(2)
    with World() as world:
        for i in range(5):
            world.start(old, i, id=f"g{i}")
        world.run_to_rest()
        disk = world._open.disk  # type: ignore[attr-defined]
        assert list(disk._blobs.values()) == [canonical_json(old.definition)]
        child = world.row("g1").wait.children[0]
        world.restart(serve=[ask, new])
        world.signal(child, "more", 10)
        assert world.result("g1") == 13
        assert world.play(world.engine.definition("g1")) == new.definition
        assert world.play(world.engine.definition("g2")) == old.definition
        assert len(disk._blobs) == 2
        assert world.audit("g1").ok


def test_s23_a_definition_goes_with_the_last_run_that_has_it() -> None:
    """Goal: retention leaves no definition behind that nothing refers to, and takes none that something does."""
    with World(retention_s=60.0) as world:
        for i in range(2):
            world.run(halved, 8, id=f"h{i}")
        world.start(ask, 1, id="unrelated")
        disk = world._open.disk  # type: ignore[attr-defined]
        assert set(disk._blobs) == {halved.definition_hash}
        world.advance("30s")
        world.run(halved, 8, id="later")
        world.advance("45s")
        assert [row.id for row in world.rows()] == ["unrelated", "later"]
        assert set(disk._blobs) == {halved.definition_hash}
        world.advance("60s")
        assert disk._blobs == {}
        assert world.run(halved, 8, id="again") == 5
        assert set(disk._blobs) == {halved.definition_hash}


def test_s23_a_damaged_definition_is_never_bound(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a definition is what its hash says, or none."""
    with World() as world:
        world.start(loaded(), 1, id="n")
        world.run_to_rest()
        disk = world._open.disk  # type: ignore[attr-defined]
        digest = definition_hash(loaded().definition)
        disk._blobs[digest] = disk._blobs[digest].replace(b"100", b"900")
        world.restart(serve=[ask])
        world.signal(world.row("n").wait.children[0], "more", 5)
        world.run_to_rest()
        assert world.status("n") == "waiting"
        assert world.play(world.engine.definition("n")) is None
        assert "does not match its hash" in caplog.text


def test_s23_a_flow_has_no_definition_to_read() -> None:
    """Goal: the definition of a flow is its source's hash, of which nothing is kept."""
    with World() as world:
        world.start(ask, 1, id="f")
        assert world.play(world.engine.definition("f")) is None
