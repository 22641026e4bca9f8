"""Real processes for the crash tests: starting, listening, killing, and what must be true of the store afterwards."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import perdure
from perdure.model import fact as f
from tests.crash.witness import notes

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
# A hang is a failure; how long one is waited for says nothing about speed.
PATIENCE_S = 60.0
MUTATING = ("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "unlink", "rename", "openat")


class Program:
    """A process that runs one of the programs, with its output line by line. Ended, whatever happens, by `close`."""

    def __init__(self, name: str, *args: object, env: Mapping[str, str] = {}, before: Sequence[str] = ()) -> None:
        command = [*before, sys.executable, "-X", "faulthandler", "-m", f"tests.crash.programs.{name}", *map(str, args)]
        if name.endswith(".py"):
            command = [*before, sys.executable, name, *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "WITNESS": str(Path.cwd()), **env},
        )  # fmt: skip
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """All of its stderr."""
        return "\n".join(self.errors)

    def _read(self, stream: Any, into: list[str]) -> None:
        for line in stream:
            with self._news:
                into.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def hears(self, text: str, *, stderr: bool = False) -> str:
        """Wait for a line that begins with this text, and give it."""
        heard = self.errors if stderr else self.lines

        def found() -> str | None:
            return next((line for line in heard if line.startswith(text)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._silent(), PATIENCE_S)
        line = found()
        assert line is not None, f"never said {text!r}; said {self.lines} and {self.said}"
        return line

    def _silent(self) -> bool:
        return not any(reader.is_alive() for reader in self._readers)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> int:
        """SIGKILL it; its exit code. What it started may live on, and hold its output open."""
        self.process.kill()
        return self.process.wait(PATIENCE_S)

    def ends(self) -> int:
        """Wait until it has ended and all of its output is read; its exit code."""
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def until(fact: Callable[[], Any], what: str) -> Any:
    """Wait for a fact of the world outside this process."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.005)):
        found = fact()
        if found:
            return found
        pause.wait(0.005)
    raise AssertionError(f"never came true: {what}")


async def until_async(fact: Callable[[], Any], what: str) -> Any:
    """Wait for a fact that comes true while this loop turns; `fact` may be a coroutine function."""
    pause = asyncio.get_running_loop()
    until_s = pause.time() + PATIENCE_S
    while pause.time() < until_s:
        found = fact()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        turned: asyncio.Future[None] = pause.create_future()
        timer = pause.call_later(0.005, turned.set_result, None)
        try:
            await turned
        finally:
            timer.cancel()
    raise AssertionError(f"never came true: {what}")


# --- strace ----------------------------------------------------------------------------------------


def strace() -> str | None:
    """Where strace is and may trace a process; None where it cannot run."""
    found = shutil.which("strace")
    if found is None:
        return None
    tried = subprocess.run([found, "-qq", "-e", "trace=none", "true"], capture_output=True, check=False)
    return found if tried.returncode == 0 else None


def mutating_calls(trace: str) -> Counter[str]:
    """How often each kind of mutating system call was made. Opening a file counts where it may make one."""
    calls: Counter[str] = Counter()
    for name, rest in re.findall(r"^\d+ +(\w+)\((.*)$", trace, re.MULTILINE):
        if name != "openat" or "O_CREAT" in rest:
            calls[name] += 1
    return calls


def creating_opens(trace: str) -> list[int]:
    """Which of the `openat` calls, counted from 1, may make a file."""
    opens = re.findall(r"^\d+ +openat\((.*)$", trace, re.MULTILINE)
    return [number for number, rest in enumerate(opens, 1) if "O_CREAT" in rest]


# --- what must be true afterwards ------------------------------------------------------------------


async def audited(address: str, *workflows: Any) -> dict[str, list[f.AnyFact]]:
    """Verify every run of a store that no engine holds; the histories by run."""
    histories: dict[str, list[f.AnyFact]] = {}
    async with perdure.connect(address, workflows=workflows) as client:
        async for row in client.runs(limit=None):
            report = await client.verify(row.id)
            assert report.ok, "\n".join(report.lines())
            (loaded,) = await client.store.load([row.id], whole=True)
            histories[row.id] = [f.decode_fact(body) for _, body, _ in loaded.facts]
        assert not await client.store.check()
    return histories


def requests_of(history: Sequence[f.AnyFact]) -> Counter[str]:
    """How often each request id was consumed in a history."""
    return Counter(request for fact in history if (request := getattr(fact, "request", "")))


def outcomes_of(history: Sequence[f.AnyFact]) -> Counter[str]:
    """How often each step was completed in a history."""
    return Counter(fact.key for fact in history if isinstance(fact, f.StepCompleted))


def deaths(where: Path | None = None) -> list[list[str]]:
    return notes("deaths", where or Path.cwd())


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet buried does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@contextmanager
def stopping(*programs: Program) -> Iterator[None]:
    """Close these programs at the end, whatever happens."""
    try:
        yield
    finally:
        for program in programs:
            program.close()


SIGKILLED = -signal.SIGKILL
