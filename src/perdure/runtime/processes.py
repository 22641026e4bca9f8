"""Attempts in processes of their own: spawned, never forked, watched through their pipes.

A process that dies fails the attempt it had, and nothing else. Processes die with their node: by
PR_SET_PDEATHSIG where there is one, and because their pipe closes. Each leads a group of its own: what a task started
itself is ended with its process, or by the store's next owner.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
from collections import deque
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.model.failure import Failure
from perdure.model.ids import idempotency_key
from perdure.model.task import TaskSpec
from perdure.runtime.attempt import Attempt
from perdure.runtime.process_main import Job, Reply, serve
from perdure.scheduling.fifo import Fifo

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from perdure.runtime.pools import Pools

log = logging.getLogger("perdure.pools")


class Worker:
    """One process and what it does now. Shape: not `ready` until it has told that it reads its pipe."""

    __slots__ = ("attempt", "pipe", "process", "ready")

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = spawn.Pipe()
        self.process: BaseProcess = spawn.Process(target=serve, args=(theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.attempt: Attempt | None = None

    def kill(self) -> None:
        """End the process, and what it started."""
        self.process.kill()
        assert self.process.pid
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except OSError:
            return  # none of its group is left, or it had not begun one


def _policy(spec: TaskSpec) -> bytes | None:
    """What is retried and what is declared, as this use of the task has it; None where only its definition can tell."""
    try:
        return bytes(ForkingPickler.dumps((spec.retry, spec.raises)))
    except Exception:  # noqa: BLE001 - a class that is not found by its name says so in many ways
        return None


def _job(attempt: Attempt, payload_max: int) -> Job:
    """What the process is told. Raises: anything, where the task's function or an argument is an odd one."""
    fn = attempt.spec.fn
    code = getattr(fn, "__code__", None)
    return Job(
        module=fn.__module__,
        name=fn.__qualname__,
        path=code.co_filename if code else "",
        task=attempt.spec.name,
        values=attempt.step.inputs(),
        run_id=attempt.run_id,
        attempt=attempt.number,
        idempotency_key=idempotency_key(attempt.run_id, attempt.generation, attempt.key),
        progress=attempt.progress,
        payload_max=payload_max,
        policy=_policy(attempt.spec),
    )


class ProcessPool:
    def __init__(self, bound: int, pools: Pools) -> None:
        self.bound = bound or os.cpu_count() or 1
        self.pools = pools
        self.fifo: Fifo[Attempt] = Fifo()
        self.idle: deque[Worker] = deque()
        self.workers: set[Worker] = set()
        self.roster: Any = None  # where the store remembers them for its next owner
        self._loop = asyncio.get_running_loop()

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.workers if worker.process.pid]

    def add(self, attempt: Attempt) -> None:
        self.fifo.add(attempt, attempt.spec)
        self._dispatch()

    def clear(self) -> None:
        self.fifo.clear()

    def _dispatch(self) -> None:
        while self.idle:
            attempt = self._next()
            if attempt is None:
                return
            self._hand(self.idle.popleft(), attempt)
        coming = sum(not worker.ready for worker in self.workers)
        for _ in range(min(len(self.fifo) - coming, self.bound - len(self.workers))):
            try:
                self._hire()
            except OSError as error:
                self._not_hired(error)
                return

    def _next(self) -> Attempt | None:
        """The next attempt that may begin and is still wanted."""
        while (attempt := self.fifo.take()) is not None and (attempt.left or attempt.done):
            self.fifo.done(attempt.spec)
        return attempt

    def _hire(self) -> None:
        """Begin a process. An attempt is handed to it once it is ready, so that its time is its code's own."""
        worker = Worker()
        self.workers.add(worker)
        if self.roster is not None:
            self.roster.add(worker.process.pid)
        self._loop.add_reader(worker.pipe.fileno(), self._hear, worker)

    def _not_hired(self, error: OSError) -> None:
        """The system gives no process. Those that are there do the work; without any an attempt fails, within its retries."""
        log.warning("%d processes, and no more: %s", len(self.workers), error)
        attempt = None if self.workers else self._next()
        if attempt is not None:
            attempt.declared = True  # it has not begun: there is no doubt about its effect
            attempt.failure = Failure("perdure.WorkerLost", f"no process could be begun: {error}", "lost")
            self._loop.call_soon(self._over, attempt)

    def _hand(self, worker: Worker, attempt: Attempt) -> None:
        worker.attempt = attempt
        self.pools.started(attempt)
        attempt.worker = str(worker.process.pid)
        try:
            worker.pipe.send(_job(attempt, self.pools.payload_max))
        except OSError:
            self._lost(worker)
        except Exception as error:  # noqa: BLE001 - what has no name or cannot be pickled says so in many ways
            worker.attempt = None
            self.idle.append(worker)
            attempt.fail(error)
            self._over(attempt)

    def _hear(self, worker: Worker) -> None:
        """Something came through a worker's pipe, or its end."""
        try:
            reply: Reply = worker.pipe.recv()
        except (EOFError, OSError):
            self._lost(worker)
            return
        if not worker.ready:
            worker.ready = True
            self.idle.append(worker)
            self._dispatch()
            return
        attempt = worker.attempt
        if attempt is None:
            return
        if reply.beat:
            self.pools.beat(attempt, reply.progress)
            return
        worker.attempt = None
        self.idle.append(worker)
        if attempt.done or attempt.left:
            attempt.late = True
        elif reply.failure is None:
            attempt.result = reply.result
        else:
            attempt.failure = msgspec.json.decode(reply.failure, type=Failure)
            attempt.allowed, attempt.declared = reply.allowed, reply.declared
        self._over(attempt)

    def _lost(self, worker: Worker) -> None:
        """A worker died: its attempt fails as lost, another process takes its place when one is needed."""
        self._loop.remove_reader(worker.pipe.fileno())
        worker.pipe.close()
        self.workers.discard(worker)
        if worker in self.idle:
            self.idle.remove(worker)
        worker.kill()  # what it had started; its own exit code is set by now
        worker.process.join(0.2)
        # One that died before it was ready may die each time: what waits for it fails, within its retries.
        attempt, worker.attempt = worker.attempt if worker.ready else self._next(), None
        if attempt is not None:
            if not attempt.done:
                code = worker.process.exitcode
                attempt.failure = Failure("perdure.WorkerLost", f"its process died (exit code {code})", "lost")
            self._over(attempt)
        else:
            self._dispatch()

    def _over(self, attempt: Attempt) -> None:
        self.pools.finish(attempt)
        self.fifo.done(attempt.spec)
        self._dispatch()

    def kill(self, attempt: Attempt) -> None:
        """Stop an attempt by ending its process."""
        for worker in self.workers:
            if worker.attempt is attempt:
                worker.kill()
                return

    def stop(self) -> None:
        for worker in list(self.workers):
            self._loop.remove_reader(worker.pipe.fileno())
            worker.kill()
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(1.0)
        if self.workers and self.roster is not None:
            self.roster.clear()
        self.workers.clear()
        self.idle.clear()
