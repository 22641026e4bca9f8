"""Execution traces in WfFormat 1.5: read, checked, and made into graphs that take as long and write as much.

Source: https://wfcommons.org/format, schema 1.5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from perdure.authoring.check import NAME
from perdure.authoring.definition import Graph, GraphBuilder
from perdure.errors import BadCall, DefinitionError
from perdure.model.graph import StepRef
from perdure.model.task import TaskSpec

TRACE_MAX: Final = 256 << 20
VERSION: Final = "1.5"
STAGE_IN: Final = "stage-in"
_FILE_ID: Final = re.compile(r"[0-9a-zA-Z_./:#-]+")


class NotATrace(BadCall):
    """A document is no WfFormat 1.5 trace; the message names the place and what is wrong there."""


class TraceFile(msgspec.Struct, frozen=True):
    """A file. Units: `size` bytes as recorded."""

    id: str
    size: int


class TraceTask(msgspec.Struct, frozen=True):
    """A task as it was executed. Units: `seconds` as recorded."""

    id: str
    name: str
    parents: tuple[str, ...]
    children: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: float
    cores: float = 1


class Trace(msgspec.Struct, frozen=True):
    """A trace. Shape: `tasks` in their order in the document; `files` by id. Units: `makespan` seconds as recorded."""

    name: str
    tasks: tuple[TraceTask, ...]
    files: dict[str, TraceFile]
    makespan: float

    @property
    def staged(self) -> tuple[str, ...]:
        """The files that tasks read and none writes."""
        written = {file for task in self.tasks for file in task.outputs}
        return tuple(dict.fromkeys(file for task in self.tasks for file in task.inputs if file not in written))


# --- reading ---------------------------------------------------------------------------------------


def read_trace(data: bytes | str | Path) -> Trace:
    """A trace from its bytes, or from the file of this path.

    Raises: `NotATrace` naming the first thing that is wrong; OSError for a file that cannot be read.
    """
    body = data if isinstance(data, bytes) else Path(data).read_bytes()
    if len(body) > TRACE_MAX:
        raise NotATrace(f"the trace has {len(body):,} bytes, more than {TRACE_MAX:,}")
    try:
        top = _Place(msgspec.json.decode(body), "trace")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotATrace(f"the trace is no JSON: {error}") from None
    version = top.text("schemaVersion")
    if version != VERSION:
        raise NotATrace(f"trace: schemaVersion is {version!r}; {VERSION!r} is read")
    workflow = top.mapping("workflow")
    specification, execution = workflow.mapping("specification"), workflow.mapping("execution")
    files = _files(specification)
    ran = _executions(execution)
    tasks = tuple([_task(place, files, ran) for place in specification.places("tasks")])
    if not tasks:
        raise NotATrace("trace.workflow.specification.tasks: there is none")
    _check_tasks(tasks)
    return Trace(top.text("name"), tasks, files, execution.number("makespanInSeconds"))


def looks_like_trace(body: bytes) -> bool:
    """Whether a JSON document says of itself that it is a WfFormat trace."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(found, dict) and "schemaVersion" in found and "workflow" in found


class _Place:
    """A mapping in the document, with the path to it for errors."""

    def __init__(self, data: Any, path: str) -> None:
        if not isinstance(data, dict):
            raise NotATrace(f"{path}: is no mapping")
        self.data, self.path = data, path

    def get(self, key: str) -> Any:
        if key not in self.data:
            raise NotATrace(f"{self.path}: {key!r} is missing")
        return self.data[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not value:
            raise NotATrace(f"{self.path}.{key}: {value!r} is no text")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key) if default is None else self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
            raise NotATrace(f"{self.path}.{key}: {value!r} is no number from 0")
        return value

    def mapping(self, key: str) -> _Place:
        return _Place(self.get(key), f"{self.path}.{key}")

    def places(self, key: str) -> list[_Place]:
        value = self.get(key)
        if not isinstance(value, list):
            raise NotATrace(f"{self.path}.{key}: is no list")
        return [_Place(one, f"{self.path}.{key}[{i}]") for i, one in enumerate(value)]

    def texts(self, key: str, pattern: re.Pattern[str], *, needed: bool) -> tuple[str, ...]:
        value = self.get(key) if needed else self.data.get(key, [])
        if not isinstance(value, list):
            raise NotATrace(f"{self.path}.{key}: is no list")
        for one in value:
            if not isinstance(one, str) or not pattern.fullmatch(one):
                raise NotATrace(f"{self.path}.{key}: {one!r} is no id")
        return tuple(dict.fromkeys(value))


def _files(specification: _Place) -> dict[str, TraceFile]:
    found: dict[str, TraceFile] = {}
    for place in specification.places("files") if "files" in specification.data else []:
        id, size = place.text("id"), place.number("sizeInBytes")
        if not _FILE_ID.fullmatch(id):
            raise NotATrace(f"{place.path}.id: {id!r} is no id")
        if not isinstance(size, int):
            raise NotATrace(f"{place.path}.sizeInBytes: {size!r} is no whole number")
        if id in found:
            raise NotATrace(f"{place.path}.id: two files have the id {id!r}")
        found[id] = TraceFile(id, size)
    return found


def _executions(execution: _Place) -> dict[str, tuple[float, float]]:
    """Seconds and cores by task id."""
    found: dict[str, tuple[float, float]] = {}
    for place in execution.places("tasks"):
        id = place.text("id")
        if id in found:
            raise NotATrace(f"{place.path}.id: {id!r} was executed twice")
        found[id] = (place.number("runtimeInSeconds"), place.number("coreCount", 1))
    return found


def _task(place: _Place, files: Mapping[str, TraceFile], ran: Mapping[str, tuple[float, float]]) -> TraceTask:
    id, name = place.text("id"), place.text("name")
    if not NAME.fullmatch(id):
        raise NotATrace(f"{place.path}.id: {id!r}: 1 to 255 letters, digits, '_', '-', '.', '+' and '#'")
    if id not in ran:
        raise NotATrace(f"{place.path}: task {id!r} has no execution, so its run time is not known")
    inputs = place.texts("inputFiles", _FILE_ID, needed=False)
    outputs = place.texts("outputFiles", _FILE_ID, needed=False)
    for key, ids in (("inputFiles", inputs), ("outputFiles", outputs)):
        for file in ids:
            if file not in files:
                raise NotATrace(f"{place.path}.{key}: {file!r} is not among the files of the specification")
    for file in inputs:
        if file in outputs:
            raise NotATrace(f"{place.path}: task {id!r} both reads and writes {file!r}")
    return TraceTask(
        id,
        name,
        place.texts("parents", NAME, needed=True),
        place.texts("children", NAME, needed=True),
        inputs,
        outputs,
        *ran[id],
    )


def _check_tasks(tasks: Sequence[TraceTask]) -> None:
    ids: set[str] = set()
    writers: dict[str, str] = {}
    for task in tasks:
        if task.id in ids:
            raise NotATrace(f"trace: two tasks have the id {task.id!r}")
        ids.add(task.id)
        for file in task.outputs:
            if file in writers:
                raise NotATrace(f"trace: both {writers[file]!r} and {task.id!r} write the file {file!r}")
            writers[file] = task.id
    _check_relations({task.id: task for task in tasks})


def _check_relations(tasks: Mapping[str, TraceTask]) -> None:
    """Parents and children are tasks, and name each other."""
    for task in tasks.values():
        for kind, others in (("parent", task.parents), ("child", task.children)):
            for other in others:
                if other not in tasks:
                    raise NotATrace(f"trace: the {kind} {other!r} of task {task.id!r} is no task")
    edges = {(parent, task.id) for task in tasks.values() for parent in task.parents}
    back = {(task.id, child) for task in tasks.values() for child in task.children}
    if edges != back:
        parent, child = min(edges ^ back)
        who, whom, what = (child, parent, "parent") if (parent, child) in edges else (parent, child, "child")
        raise NotATrace(f"trace: task {who!r} names {whom!r} as its {what}, but not the other way about")


# --- as a graph --------------------------------------------------------------------------------------


def trace_graph(
    trace: Trace,
    *,
    replay: TaskSpec,
    stage: TaskSpec,
    speed: float = 1.0,
    shrink: float = 1.0,
    folder: str = "trace",
    source: str = "",
) -> Graph[..., Any]:
    """A graph of the trace: one step a task, and before them one that makes the files that no task writes.

    Shape: `replay` and `stage` are what the steps run (`perdure.cli.trace_tasks`); `speed`, `shrink` and `folder` are
           parameters of the graph with these defaults, so that a run with others is another run.
    Raises: `DefinitionError` for a trace whose tasks wait for each other, or a bad number.
    """
    for what, number in (("speed", speed), ("shrink", shrink)):
        if not 0 < number < 1e12:
            raise DefinitionError(f"{what}={number!r}: a number above 0")
    build = GraphBuilder(
        graph_name(trace), parameters={"folder": folder, "speed": float(speed), "shrink": float(shrink)}
    )
    common = {name: build.input(name) for name in ("folder", "shrink")}
    writers = {file: task.id for task in trace.tasks for file in task.outputs}
    ids = {task.id for task in trace.tasks}
    staged = trace.staged
    first = STAGE_IN
    while first in ids:
        first += "-"
    if staged:
        build.add(stage, name=first, args={**common, "files": {file: trace.files[file].size for file in staged}})
    for task in trace.tasks:
        given = dict.fromkeys(writers.get(file, first) for file in task.inputs)
        build.add(
            replay,
            name=task.id,
            args={
                **common,
                "speed": build.input("speed"),
                "seconds": task.seconds,
                "inputs": list(task.inputs),
                "outputs": {file: trace.files[file].size for file in task.outputs},
                "given": [StepRef(name) for name in given],
            },
            after=[parent for parent in task.parents if parent not in given],
        )
    return build.build(source=source)


def graph_name(trace: Trace) -> str:
    """The trace's name as the name of a workflow."""
    return re.sub(r"[^\w.+-]+", "-", trace.name).strip("-.+")[:200] or "trace"
