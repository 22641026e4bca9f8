"""A process forks while it has a store open: the child may not use it, the parent goes on (F20)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.harness import Program, audited

ADDRESS = "sqlite:///forked.db"
PROGRAM = """
import asyncio
import os
import sys

import perdure
from perdure import task, workflow
from perdure.errors import ForkedProcess
from perdure.state.store import Batch, Query

found = []


def refused(call):
    try:
        answer = call()
        if asyncio.iscoroutine(answer):
            answer.send(None)
    except ForkedProcess as error:
        return "open it again in this process" in str(error)
    return False


def in_child(store):
    calls = [
        lambda: store.commit(Batch()),
        lambda: store.find(Query()),
        lambda: store.load(["one"]),
        lambda: store.inbox(0, 1),
        lambda: store.answers(["r"]),
        lambda: store.blobs([]),
        lambda: store.tombstones(["one"]),
        lambda: store.claim("node", 1, 0),
        lambda: store.sizes(),
        lambda: store.changed(),
    ]
    wrong = [place for place, call in enumerate(calls) if not refused(call)]
    try:
        store.close().send(None)
    except StopIteration:
        pass
    return wrong


@task
async def forks() -> str:
    pid = os.fork()
    if pid == 0:
        os._exit(len(in_child(opened[0].store)))
    _, status = os.waitpid(pid, 0)
    return f"child exits with {os.waitstatus_to_exitcode(status)}"


@workflow
async def flow() -> list[str]:
    return [await forks(), await forks()]


opened = []


async def main():
    async with perdure.open("sqlite:///forked.db", workflows=[flow]) as engine:
        opened.append(engine)
        handle = await engine.start(flow, id="one")
        print(await handle.result("60s"))
        async with perdure.connect("sqlite:///forked.db") as client:
            opened[0] = client
            again = await engine.start(flow, id="two")
            print(await again.result("60s"))


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.crash
async def test_f20_a_forked_child_cannot_use_the_store_and_harms_nothing(tmp_path: Path) -> None:
    """Goal: whatever a child asks of a store that its parent opened is refused; closing it there lets go of nothing."""
    (tmp_path / "prog.py").write_text(PROGRAM)
    with Program("prog.py") as program:
        assert program.ends() == 0, program.said
        assert program.lines == ["['child exits with 0', 'child exits with 0']"] * 2
    assert set(await audited(ADDRESS)) == {"one", "two"}
