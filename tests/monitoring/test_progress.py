"""Live progress: on a terminal what a node does, elsewhere nothing at no cost."""

from __future__ import annotations

import asyncio
import importlib
import io
import re
from typing import Any

import pytest

from perdure.model.text import escape
from perdure.monitoring import progress as shown
from perdure.monitoring.progress import Figures, Progress, RunningStep, headline, lasting, step_lines

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STEPS = [RunningStep("charge#1", 1, 3.0), RunningStep("import[7]", 2, 75.0, b'{"done":3}')]


class Stream(io.StringIO):
    """A stream that is a terminal, or is not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def fileno(self) -> int:
        return -1


class Watched:
    """Figures that the test sets; tells when it was looked at."""

    def __init__(self) -> None:
        self.figures = Figures(3, 1, 2, 2, 4, STEPS)
        self.at_s = 0.0
        self.calls: list[str] = []
        self.looked: asyncio.Queue[None] = asyncio.Queue()

    def begin(self) -> None:
        self.calls.append("begin")

    def look(self, steps_max: int) -> Figures:
        assert steps_max == shown.STEPS_SHOWN
        self.calls.append("look")
        self.looked.put_nowait(None)
        self.at_s += 1.0
        return self.figures

    def now_s(self) -> float:
        return self.at_s

    def end(self) -> None:
        self.calls.append("end")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "FIRST_S", 0.0)
    monkeypatch.setattr(shown, "EVERY_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("stream", [Stream(terminal=False), None], ids=["piped", "none"])
async def test_nothing_is_shown_or_counted_where_nobody_looks(stream: Stream | None) -> None:
    """Goal: a program whose stderr is a pipe pays nothing."""
    watched = Watched()
    with Progress(watched, "run-1", stream):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert watched.calls == []
    assert stream is None or stream.getvalue() == ""


async def test_a_dumb_or_closed_terminal_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no codes go where they would be printed as they are."""
    monkeypatch.setenv("TERM", "dumb")
    watched, closed = Watched(), Stream(terminal=True)
    with Progress(watched, "run-1", Stream(terminal=True)):
        await asyncio.sleep(0)
    closed.close()
    monkeypatch.setenv("TERM", "xterm")
    with Progress(watched, "run-1", io.TextIOWrapper(io.BytesIO())):
        await asyncio.sleep(0)
    assert watched.calls == []


async def test_a_run_that_is_over_at_once_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no flash for what takes no time."""
    monkeypatch.setattr(shown, "FIRST_S", 60.0)
    stream, watched = Stream(terminal=True), Watched()
    with Progress(watched, "run-1", stream):
        await asyncio.sleep(0)
    assert stream.getvalue() == ""
    assert watched.calls == ["begin", "end"]


@pytest.mark.parametrize("rich", [True, False])
async def test_a_terminal_shows_figures_and_running_steps(monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    """Goal: with rich a line for each running step, without it one line; at the end one line is left."""
    if not rich:

        def absent(name: str) -> Any:
            raise ImportError(name)

        monkeypatch.setattr(importlib, "import_module", absent)
    stream, watched = Stream(terminal=True), Watched()
    with Progress(watched, "run-1", stream):
        for _ in range(3):
            await watched.looked.get()
    text = ANSI.sub("", stream.getvalue())
    assert "run-1  3 done · 2 running · 4 queued · 1 failed · 2 retried · " in text
    assert ("charge#1" in text) == rich
    assert text.rstrip().splitlines()[-1].startswith("run-1  3 done · 1 failed · 2 retried")
    assert watched.calls[0] == "begin"
    assert watched.calls[-1] == "end"


async def test_the_screen_is_given_back_when_the_run_fails() -> None:
    """Goal: an error leaves a terminal that can be used: the cursor is shown, the last line ended."""
    stream, watched = Stream(terminal=True), Watched()

    async def fail() -> None:
        with Progress(watched, "run-1", stream):
            await watched.looked.get()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")
    assert stream.getvalue().endswith("\n")


def test_lines_of_figures() -> None:
    """Goal: the words of each line, and no zero that says nothing."""
    quiet = Figures(12_345, 0, 0, 1, 0, [])
    assert headline("r", quiet, 0.5, 61) == "r  12,345 done · 1 running · 0 failed · 0.5/s · 1m01s"
    assert headline("r", quiet, 12.4, 1, final=True) == "r  12,345 done · 0 failed · 12/s · 1.0s"
    assert step_lines(Figures(0, 0, 0, 5, 0, STEPS)) == [
        "  charge#1      3.0s",
        '  import[7]    1m15s  attempt 2  {"done":3}',
        "  and 3 more",
    ]
    assert step_lines(quiet) == []


def test_f103_a_step_cannot_act_upon_the_terminal() -> None:
    """Goal: keys and progress from a user's code are spelled out."""
    evil = "\x1b[2J\r\n\x9b"
    lines = step_lines(Figures(0, 0, 0, 1, 0, [RunningStep(evil, 1, 1.0, f'"{evil}"'.encode())]))
    assert all(line == escape(line) for line in lines)


@pytest.mark.parametrize(
    "seconds, text",
    [(-1, "0.0s"), (0.04, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"),
     (3600, "1h00m"), (86_399, "23h59m"), (86_400, "1d00h"), (1e6, "11d13h")],
)  # fmt: skip
def test_how_long_something_takes_is_said_shortly(seconds: float, text: str) -> None:
    """Goal: two units at most, without a jump between them."""
    assert lasting(seconds) == text
