"""Recorded executions as graphs: all ten run, verify, and check each other's files; a malformed trace is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import RunFailed
from perdure.authoring.wfformat import NotATrace, Trace, read_trace
from perdure.cli.trace_tasks import TraceFileWrong, file_path, graph_of_trace, replay, stage
from perdure.errors import DefinitionError
from perdure.model import fact as f
from perdure.testing.world import World

TRACES = sorted((Path(__file__).parent.parent / "data" / "traces").glob("*.json"))
SHRINK = 1_000_000.0


def critical_s(trace: Trace) -> float:
    """The longest way through the trace. Units: seconds as recorded."""
    ends: dict[str, float] = {}
    tasks = {task.id: task for task in trace.tasks}
    left = list(tasks.values())
    while left:
        ready = [task for task in left if all(parent in ends for parent in task.parents)]
        for task in ready:
            ends[task.id] = task.seconds + max((ends[parent] for parent in task.parents), default=0.0)
        left = [task for task in left if task.id not in ends]
    return max(ends.values())


def test_there_are_ten_and_one_of_a_hundred_tasks() -> None:
    """Goal: the tests below look at what they should."""
    assert len(TRACES) == 10
    assert max(len(read_trace(path).tasks) for path in TRACES) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("path", TRACES, ids=lambda path: str(path.stem))
def test_each_trace_runs_and_verifies(path: Path, tmp_path: Path) -> None:
    """Goal: every task once, after its parents, with its files at their sizes, in the time of its longest way."""
    trace = read_trace(path)
    made = graph_of_trace(trace, 1.0, SHRINK, str(tmp_path / "files"))
    with World(threads="real") as world:
        begun = world.clock.wall_us()
        world.run(made, id="t")
        took_s = (world.clock.wall_us() - begun) / 1e6
        history = world.history("t")
        report = world.audit("t")
    assert report.ok, report.lines()
    ends = {fact.key: i for i, fact in enumerate(history) if isinstance(fact, f.StepCompleted)}
    assert ends.keys() - {"stage-in"} == {task.id for task in trace.tasks}
    asked = {fact.key: fact.asked_seq - 1 for fact in history if isinstance(fact, f.StepCompleted)}
    for task in trace.tasks:
        for parent in task.parents:
            assert ends[parent] <= asked[task.id]
    for file in trace.files.values():
        if any(file.id in (*task.inputs, *task.outputs) for task in trace.tasks):
            found = file_path(str(tmp_path / "files"), file.id)
            assert found.stat().st_size == math.ceil(file.size / SHRINK)
    assert critical_s(trace) <= took_s <= critical_s(trace) * 1.05 + 10


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def changed(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "is not there"),
    "shorter": (shortened, "has 99 bytes instead of 100"),
    "changed": (changed, "has another content than was written"),
}


@pytest.mark.parametrize("how", TAMPERED)
async def test_a_consumer_finds_a_file_that_is_not_as_it_was_written(how: str, tmp_path: Path) -> None:
    """Goal: each output is checked by who reads it: missing, of another size, of another content."""
    tamper, said = TAMPERED[how]
    folder = str(tmp_path)
    given = stage.fn(folder, 1.0, {"a/b.txt": 100})
    common: dict[str, Any] = {"folder": folder, "speed": 1e9, "shrink": 1.0, "seconds": 1, "outputs": {}}
    await replay.fn(**common, inputs=["a/b.txt"], given=[given])
    tamper(file_path(folder, "a/b.txt"))
    with pytest.raises(TraceFileWrong, match=said):
        await replay.fn(**common, inputs=["a/b.txt"], given=[given])
    with pytest.raises(TraceFileWrong, match="no step has written other"):
        await replay.fn(**common, inputs=["other"], given=[given])


def test_a_file_twice_written_is_as_once_and_stays_inside(tmp_path: Path) -> None:
    """Goal: an attempt that is made again changes nothing; an id with dots and slashes leads nowhere else (F99)."""
    folder = str(tmp_path / "work")
    files = {"../../../etc/passwd": 10, "/abs/olute": 20, "plain": 2_500_000}
    assert stage.fn(folder, 1.0, files) == stage.fn(folder, 1.0, files)
    assert sorted(path.stat().st_size for path in (tmp_path / "work").iterdir()) == [10, 20, 2_500_000]
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


SMALL: dict[str, Any] = {
    "name": "small",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {
                    "name": "a",
                    "id": "a",
                    "parents": [],
                    "children": ["b"],
                    "inputFiles": ["in"],
                    "outputFiles": ["mid"],
                },
                {"name": "b", "id": "b", "parents": ["a"], "children": [], "inputFiles": ["mid"], "outputFiles": []},
            ],
            "files": [{"id": "in", "sizeInBytes": 5}, {"id": "mid", "sizeInBytes": 7}],
        },
        "execution": {
            "makespanInSeconds": 3,
            "tasks": [{"id": "a", "runtimeInSeconds": 1}, {"id": "b", "runtimeInSeconds": 2}],
        },
    },
}


def spec(trace: Any) -> Any:
    return trace["workflow"]["specification"]


def both_write(trace: Any) -> None:
    spec(trace)["tasks"][1]["outputFiles"] = ["mid"]
    spec(trace)["tasks"][1]["inputFiles"] = []


def around(trace: Any) -> None:
    spec(trace)["tasks"][0].update(parents=["b"])
    spec(trace)["tasks"][1].update(children=["a"])


MALFORMED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another version": (lambda t: t.update(schemaVersion="1.4"), "schemaVersion is '1.4'; '1.5' is read"),
    "no version": (lambda t: t.pop("schemaVersion"), "trace: 'schemaVersion' is missing"),
    "no workflow": (lambda t: t.pop("workflow"), "trace: 'workflow' is missing"),
    "a workflow of text": (lambda t: t.update(workflow="x"), "trace.workflow: is no mapping"),
    "no specification": (lambda t: t["workflow"].pop("specification"), "'specification' is missing"),
    "no execution": (lambda t: t["workflow"].pop("execution"), "'execution' is missing"),
    "no tasks": (lambda t: spec(t).update(tasks=[]), "tasks: there is none"),
    "a task of text": (lambda t: spec(t)["tasks"].append("c"), "tasks[2]: is no mapping"),
    "a task without a name": (lambda t: spec(t)["tasks"][0].pop("name"), "tasks[0]: 'name' is missing"),
    "a bad id": (lambda t: spec(t)["tasks"][0].update(id="a b"), "tasks[0].id: 'a b'"),
    "an id taken twice": (lambda t: spec(t)["tasks"].append(spec(t)["tasks"][0]), "two tasks have the id 'a'"),
    "not executed": (lambda t: t["workflow"]["execution"]["tasks"].pop(), "task 'b' has no execution"),
    "executed twice": (lambda t: t["workflow"]["execution"]["tasks"].append({"id": "a", "runtimeInSeconds": 1}), "'a' was executed twice"),
    "a negative time": (lambda t: t["workflow"]["execution"]["tasks"][0].update(runtimeInSeconds=-1), "-1 is no number from 0"),
    "a time of text": (lambda t: t["workflow"]["execution"]["tasks"][0].update(runtimeInSeconds="1"), "'1' is no number"),
    "an unknown file": (lambda t: spec(t)["files"].pop(0), "'in' is not among the files of the specification"),
    "a size with a fraction": (lambda t: spec(t)["files"][0].update(sizeInBytes=1.5), "1.5 is no whole number"),
    "two files of one id": (lambda t: spec(t)["files"].append(spec(t)["files"][0]), "two files have the id 'in'"),
    "read and written": (lambda t: spec(t)["tasks"][0]["outputFiles"].append("in"), "both reads and writes 'in'"),
    "two writers": (both_write, "both 'a' and 'b' write the file 'mid'"),
    "a parent of nothing": (lambda t: spec(t)["tasks"][1]["parents"].append("c"), "the parent 'c' of task 'b' is no task"),
    "a one-sided edge": (lambda t: spec(t)["tasks"][0].update(children=[]), "task 'b' names 'a' as its parent, but not the other way about"),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_trace_is_refused_with_its_place(what: str) -> None:
    """Goal: one line that says where in the document what is wrong."""
    spoil, said = MALFORMED[what]
    trace = copy.deepcopy(SMALL)
    spoil(trace)
    with pytest.raises(NotATrace) as caught:
        read_trace(json.dumps(trace).encode())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"schemaVersion": NaN}'])
def test_what_is_no_json_is_no_trace(body: bytes) -> None:
    """Goal: whatever the bytes, the error is ours."""
    with pytest.raises(NotATrace):
        read_trace(body)


def test_a_trace_that_goes_around_is_refused() -> None:
    """Goal: tasks that wait for each other are found when the graph is made, and the cycle is shown."""
    trace = copy.deepcopy(SMALL)
    around(trace)
    with pytest.raises(DefinitionError, match="graph small: a cycle: a -> b -> a"):
        graph_of_trace(read_trace(json.dumps(trace).encode()), 1.0, 1.0, "work")


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_must_be_a_number_above_0(speed: float) -> None:
    """Goal: a speed or shrink that makes no sense is refused before anything runs."""
    with pytest.raises(DefinitionError, match="a number above 0"):
        graph_of_trace(read_trace(json.dumps(SMALL).encode()), speed, 1.0, "work")
    with pytest.raises(DefinitionError, match="a number above 0"):
        graph_of_trace(read_trace(json.dumps(SMALL).encode()), 1.0, speed, "work")


# --- deaths and damage --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_trace_goes_on_and_keeps_its_steps(tmp_path: Path) -> None:
    """Goal: a hundred tasks and more, killed in the middle: the rest is made, the recorded steps are kept."""
    path = next(path for path in TRACES if len(read_trace(path).tasks) > 100)
    made = graph_of_trace(read_trace(path), 1.0, SHRINK, str(tmp_path / "files"))
    with World("sqlite:///t.db", threads="real", snapshot_facts=20) as world:
        world.serve(made)
        assert world.engine is not None
        world.store.fail_at(20, "crash_after")
        with pytest.raises(SystemExit):
            world.run(made, id="t")
        world.restart()
        kept = {fact.key for fact in world.history("t") if isinstance(fact, f.StepCompleted)}
        assert 10 < len(kept) < 100
        world.result("t")
        done = [fact.key for fact in world.history("t") if isinstance(fact, f.StepCompleted)]
        assert len(done) == len(set(done)) == len(made.definition.nodes)
        assert world.audit("t").ok


def test_a_step_whose_input_was_spoilt_fails_the_run(tmp_path: Path) -> None:
    """Goal: a step made again on recorded inputs that somebody changed since fails, and names the file."""
    made = graph_of_trace(read_trace(json.dumps(SMALL).encode()), 1e9, 1.0, str(tmp_path))
    with World(threads="real") as world:
        world.run(made, id="t")
        keys = [getattr(fact, "key", "") for fact in world.history("t")]
        file_path(str(tmp_path), "mid").write_bytes(b"spoilt")
        world.play(world.engine.fork("t", at=keys.index("a") + 1, id="u"))
        with pytest.raises(RunFailed, match="mid has 6 bytes instead of 7"):
            world.result("u")
        assert world.audit_all() == []
