"""What a worker process runs: one job at a time from its pipe, until the pipe closes."""

from __future__ import annotations

import ctypes
import importlib
import os
import select
import signal
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import msgspec

from perdure.errors import PerdureError
from perdure.model.policy import ONCE
from perdure.model.task import TaskSpec
from perdure.runtime import attempt as attempts

PR_SET_PDEATHSIG = 1


class Job(msgspec.Struct, kw_only=True):
    """One attempt, as a process is told of it. Sent pickled, to a child of our own only."""

    module: str
    name: str
    path: str
    task: str
    values: tuple[Any, ...]
    run_id: str
    attempt: int
    idempotency_key: str
    progress: bytes | None
    payload_max: int
    policy: bytes | None = None


class Reply(msgspec.Struct, kw_only=True):
    """A heartbeat, or the outcome."""

    beat: bool = False
    progress: bytes | None = None
    result: bytes | None = None
    failure: bytes | None = None
    allowed: bool = True
    declared: bool = False


class _Pipe:
    """Stands where the node's pools are, for heartbeats from the attempt's code."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.lock = threading.Lock()

    def beat(self, _: Any, progress: bytes | None) -> None:
        self.send(Reply(beat=True, progress=progress))

    def send(self, reply: Reply) -> None:
        try:
            with self.lock:
                self.pipe.send(reply)
        except OSError:
            os._exit(0)  # the node is gone


def serve(pipe: Connection, parent: int) -> None:
    """Make attempts until the node is gone."""
    os.setpgid(0, 0)  # what a task starts is of this group, and is ended with it
    _die_with(parent)
    threading.Thread(target=_watch, args=(pipe.fileno(),), name="perdure-node", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = _Pipe(pipe)
    link.send(Reply(beat=True))  # ready
    while True:
        try:
            job: Job = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        link.send(_make(job, link))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _watch(pipe: int) -> None:
    """End this process and what it started when the node's end of the pipe closes, whatever a task does then."""
    watched = select.poll()
    watched.register(pipe, 0)
    while not any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in watched.poll()):
        pass
    os.killpg(0, signal.SIGKILL)


def _make(job: Job, link: _Pipe) -> Reply:
    spec: TaskSpec | None = None
    called = False
    try:
        spec = find_task(job)
        token = attempts.current.set(_attempt_of(job, spec, link))
        try:
            value = spec.signature.call(spec.fn, job.values)
        finally:
            attempts.current.reset(token)
        called = True
        return Reply(result=spec.result.round(value, job.payload_max)[0])
    except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure, and never the process's
        # Where the task is not found, or its result cannot be kept, another attempt would come to the same.
        refused = spec is None or (called and issubclass(type(error), PerdureError))
        return _failed(error, job, spec, refused=refused)


def _failed(error: BaseException, job: Job, spec: TaskSpec | None, *, refused: bool) -> Reply:
    """The failure as data; exceptions themselves never travel, since not all can be read back."""
    retry, raises = (ONCE, ()) if spec is None else (spec.retry, spec.raises)
    if job.policy is not None:
        retry, raises = ForkingPickler.loads(job.policy)
    failure = attempts.failure_from(error, raises, refused=refused)
    return Reply(
        failure=msgspec.json.encode(failure), allowed=retry.allows(error), declared=issubclass(type(error), raises)
    )


def _attempt_of(job: Job, spec: TaskSpec, link: _Pipe) -> Any:
    found = object.__new__(attempts.Attempt)
    found.run_id, found.spec, found.pools = job.run_id, spec, link  # type: ignore[assignment]
    found.number, found.progress = job.attempt, job.progress
    generation, _, key = job.idempotency_key.removeprefix(f"{job.run_id}:").partition(":")
    found.generation, found.key = int(generation), key
    return found


def find_task(job: Job) -> TaskSpec:
    """The task that a job names, from its module or its file."""
    module: Any = sys.modules.get(job.module)
    if module is None:
        try:
            module = importlib.import_module(job.module)
        except ImportError:
            module = _load(job.module, job.path)
    for value in vars(module).values():
        if isinstance(value, TaskSpec) and value.fn.__qualname__ == job.name and value.fn.__module__ == module.__name__:
            return value
    found: Any = module
    for part in job.name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, TaskSpec):
        return found
    raise PerdureError(
        f'task {job.task}: pool="process" needs the task at the top of its module; {job.module}:{job.name} is not'
    )


def _load(name: str, path: str) -> Any:
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PerdureError(f"module {name} cannot be imported from {path}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
