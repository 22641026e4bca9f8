"""The program `perdure` for tests: called in this process, or as processes of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from perdure.cli import main
from tests.cli import programs

# A hung process is this test's fault, and is said so before the runner's own limit.
LIMIT_S = 60.0
# What a terminal would act upon, and no text of ours holds.
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class Done(NamedTuple):
    """What a call came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self
        return json.loads(self.out)

    def good(self) -> Done:
        """The same, if it went well and quietly."""
        assert self.code == 0, self
        return self

    def fails(self, code: int, *words: str, lines: int = 4) -> Done:
        """The same, if it ended with this code, at most a few lines without a traceback, and these words."""
        assert self.code == code, self
        assert "Traceback" not in self.err, self.err
        assert 1 <= len(self.err.strip().splitlines()) <= lines, self.err
        for word in words:
            assert word in self.err, (word, self.err)
        return self


class Program:
    """`perdure ARGS` in this process; forgets what it imported for the call."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder = capsys, folder

    def __call__(self, *args: str, stdin: bytes = b"") -> Done:
        kept_path, kept_modules, kept_stdin = list(sys.path), set(sys.modules), sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
        self.capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as stop:
                main(args)
        finally:
            sys.stdin = kept_stdin
            forget(self.folder, kept_path, kept_modules)
        out, err = self.capsys.readouterr()
        assert not HARMFUL.search(out + err), (args, out, err)  # F103 holds for every call of every test
        return Done(stop.value.code if isinstance(stop.value.code, int) else 1, out, err)

    def only_run(self) -> str:
        """The id of the store's only run."""
        (run,) = self("ps", "--json").json
        return str(run["id"])


def forget(folder: Path, path: list[str], modules: set[str]) -> None:
    """Undo what importing a user's file left in this process."""
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _forget_programs(tmp_path: Path) -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    forget(tmp_path, path, modules)


@pytest.fixture
def perdure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Program:
    return Program(capsys, tmp_path)


@pytest.fixture
def ways(tmp_path: Path) -> Path:
    """A program with a workflow for each way in which a run can end."""
    path = tmp_path / "ways.py"
    path.write_text(programs.WAYS)
    return path


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello.py"
    path.write_text(programs.HELLO)
    return path


# --- processes ---------------------------------------------------------------------------------------


class Process:
    """A process, with its stderr as it comes."""

    def __init__(self, args: tuple[str, ...], env: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        self.err: list[str] = []
        self.told = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            with self.told:
                self.err.append(line)
                self.told.notify_all()

    def until(self, word: str) -> None:
        """Wait until stderr holds this."""
        with self.told:
            assert self.told.wait_for(lambda: any(word in line for line in self.err), LIMIT_S), (word, self.err)

    def end(self) -> Done:
        assert self.popen.stdout is not None
        out = self.popen.stdout.read()
        code = self.popen.wait(LIMIT_S)
        self.reader.join(LIMIT_S)
        self.close()
        return Done(code, out, "".join(self.err))

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()


Spawn = Callable[..., Process]


@pytest.fixture
def spawn(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    """Start `python ARGS` with what a program of a user finds: no more than the environment says."""
    path = tmp_path_factory.mktemp("site")
    (path / "sitecustomize.py").write_text(programs.KILLER)
    begun: list[Process] = []

    def start(*args: str, **env: str) -> Process:
        process = Process(args, {**os.environ, "PYTHONPATH": str(path), **env})
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.close()


def wait_for(true: Callable[[], Any], what: str) -> Any:
    """Wait until something holds, and give it back."""
    pause, until = threading.Event(), time.monotonic() + LIMIT_S
    while not (found := true()):
        assert time.monotonic() < until, f"never came: {what}"
        pause.wait(0.005)
    return found
