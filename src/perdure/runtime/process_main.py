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


class Reply(msgspec.Struct, kw_only=True):
    """A heartbeat, or the outcome."""

    beat: bool = False
    progress: bytes | None = None
    result: bytes | None = None
    failure: bytes | None = None
    error: Any = None


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
    try:
        spec = find_task(job)
        mine = _attempt_of(job, spec, link)
        token = attempts.current.set(mine)
        try:
            value = spec.signature.call(spec.fn, job.values)
            return Reply(result=spec.result.round(value, job.payload_max)[0])
        finally:
            attempts.current.reset(token)
    except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure, and never the process's
        return _failed(error, spec)


def _failed(error: BaseException, spec: TaskSpec | None) -> Reply:
    raises = () if spec is None else spec.raises
    failure = attempts.failure_from(error, _Raises(raises))  # type: ignore[arg-type]
    live = error if spec is not None and isinstance(error, (*spec.retry.on, *spec.retry.never)) else None
    reply = Reply(failure=msgspec.json.encode(failure), error=live)
    try:
        ForkingPickler.loads(ForkingPickler.dumps(reply))
    except Exception:  # noqa: BLE001 - an exception that cannot be pickled, or not be read back, travels as data only
        reply.error = RuntimeError(failure.message)
    return reply


class _Raises:
    def __init__(self, raises: tuple[type[BaseException], ...]) -> None:
        self.raises = raises


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
