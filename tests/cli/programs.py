"""Programs that the tests of the command line run."""

from __future__ import annotations

# As the interface's contract prints it.
HELLO = """\
from perdure import run, task, workflow

@task
def greet(name: str) -> str:
    return f"Hello, {name}"

@workflow
async def hello(names: list[str]) -> list[str]:
    return [await greet(name) for name in names]

if __name__ == "__main__":
    print(run(hello, ["Ada", "Grace"]))
"""

# One workflow for each way in which a run can end, or wait.
WAYS = """\
import asyncio
from pathlib import Path

import perdure
from perdure import Retry, graph, task, variables, wait_signal, workflow


@task
def double(n: int) -> int:
    return 2 * n


@task(retry=Retry(attempts=2, first="1ms", max="1ms"))
def boom(text: str) -> str:
    raise ValueError(text)


@task(at_most_once=True)
def pay(n: int) -> str:
    with Path("paid").open("a") as paid:
        paid.write("x")
    raise ConnectionError("no answer")


@task
def undo(n: int, result: int) -> None: ...


@task(compensate=undo)
def book(n: int) -> int:
    return n


@task
async def hold(gate: str) -> int:
    perdure.heartbeat({"at": gate})
    while not Path(gate).exists():
        await asyncio.sleep(0.005)
    return 1


@workflow
async def good(n: int) -> str:
    return f"got {await double(n)}"


@workflow(version="2")
async def bad(text: str) -> str:
    await book(1)
    return await boom(text)


@workflow
async def unsure(n: int) -> str:
    return await pay(n)


@workflow
async def asks(n: int) -> int:
    variables["stage"] = f"asked {n}"
    await double(n)
    return await wait_signal("answer", int)


@workflow
async def holds(gate: str) -> int:
    await double(1)
    return await hold(gate)


@task
def spread(n: int) -> list[int]:
    return list(range(n))


@task
def total(parts: list[int]) -> int:
    return sum(parts)


@graph
def sums(n: int):
    many = spread(n)
    return total(double.map(many)).after(many)
"""
# Kills its process right after the commit of this number, wherever perdure is imported.
KILLER = """\
import os
import signal

if "KILL_AFTER_COMMITS" in os.environ:
    from perdure.state.sqlite import SqliteStore

    left = int(os.environ["KILL_AFTER_COMMITS"])
    commit = SqliteStore.commit

    def counted(self, batch):
        global left
        done = commit(self, batch)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    SqliteStore.commit = counted
"""

# A tasks' module and a graph document that refers to it.
STEPS = """\
from perdure import task

@task
def extract(day: str) -> list[int]:
    return [len(day), 2]

@task
def load(rows: list[int]) -> int:
    return sum(rows)
"""
DOCUMENT = """\
graph: etl
version: "1"
parameters: [day]
nodes:
- name: extract
  task: steps_of_etl:extract
  args: {day: {input: day}}
- name: load
  task: steps_of_etl:load
  args: {rows: {step: extract}}
output: {step: load}
"""
