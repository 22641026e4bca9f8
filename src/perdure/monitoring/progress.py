"""Live progress on a terminal: what a node has done, and what it does now."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

import msgspec

from perdure.model.text import escape

STEPS_SHOWN: Final = 10
EVERY_S: Final = 0.125
# A run that is over sooner shows nothing: a flash helps nobody.
FIRST_S: Final = 0.4
RATE_OVER_S: Final = 5.0
KEY_MAX, VALUE_MAX = 40, 40


class RunningStep(msgspec.Struct, frozen=True):
    """A step in an attempt, since `seconds`. Shape: `progress` is JSON as last told, or None."""

    key: str
    attempt: int
    seconds: float
    progress: bytes | None = None


class Figures(msgspec.Struct, frozen=True):
    """What a node has done since it was first watched, and does now.

    Shape: `done` and `failed` count steps, `retried` attempts that are made again; `steps` are running ones, the
           longest first; `queued` wait for a place.
    """

    done: int
    failed: int
    retried: int
    running: int
    queued: int
    steps: Sequence[RunningStep]


class Watched(Protocol):
    """Who gives the figures."""

    def begin(self) -> None:
        """Count from now on."""

    def look(self, steps_max: int) -> Figures: ...

    def now_s(self) -> float:
        """Units: seconds of a clock that never goes back."""

    def end(self) -> None:
        """Count no more."""


class Progress:
    """Shows progress while it is entered, inside a running loop, if the stream is a terminal; else does nothing."""

    def __init__(self, watched: Watched, title: str, stream: TextIO | None) -> None:
        self.watched, self.title, self.stream = watched, escape(title, KEY_MAX), stream
        self.begun_s = 0.0
        self.screen: _Screen | None = None
        self.alarm: asyncio.TimerHandle | None = None
        self.seen: deque[tuple[float, int]] = deque()

    def __enter__(self) -> Self:
        if self.stream is not None and is_terminal(self.stream):
            self.watched.begin()
            self.begun_s = self.watched.now_s()
            self.alarm = asyncio.get_running_loop().call_later(FIRST_S, self._draw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.alarm is None:
            return
        self.alarm.cancel()
        if self.screen is not None:
            self.screen.close(self._lines(final=True)[0])
        self.watched.end()

    def _draw(self) -> None:
        assert self.stream is not None
        if self.screen is None:
            self.screen = screen_on(self.stream)
        self.screen.show(self._lines(final=False))
        self.alarm = asyncio.get_running_loop().call_later(EVERY_S, self._draw)

    def _lines(self, *, final: bool) -> list[str]:
        figures, now_s = self.watched.look(STEPS_SHOWN), self.watched.now_s()
        self.seen.append((now_s, figures.done))
        while len(self.seen) > 2 and now_s - self.seen[0][0] > RATE_OVER_S:
            self.seen.popleft()
        elapsed_s = now_s - self.begun_s
        if final:
            rate = figures.done / max(elapsed_s, 1e-3)
        else:
            since_s, done = self.seen[0] if len(self.seen) > 1 else (self.begun_s, 0)
            rate = (figures.done - done) / max(now_s - since_s, 1e-3)
        head = headline(self.title, figures, rate, elapsed_s, final=final)
        return [head] if final else [head, *step_lines(figures)]


# --- text ------------------------------------------------------------------------------------------


def headline(title: str, figures: Figures, rate: float, elapsed_s: float, *, final: bool = False) -> str:
    """One line of figures. Units: `rate` steps a second."""
    parts = [f"{figures.done:,} done"]
    if not final:
        parts.append(f"{figures.running:,} running")
        if figures.queued:
            parts.append(f"{figures.queued:,} queued")
    parts.append(f"{figures.failed:,} failed")
    if figures.retried:
        parts.append(f"{figures.retried:,} retried")
    parts.append(f"{rate:,.0f}/s" if rate >= 10 or not rate else f"{rate:.1f}/s")
    parts.append(lasting(elapsed_s))
    return f"{title}  {' · '.join(parts)}"


def step_lines(figures: Figures) -> list[str]:
    """One line a running step, in columns."""
    if not figures.steps:
        return []
    keys = [escape(step.key, KEY_MAX) for step in figures.steps]
    width = max(map(len, keys))
    lines = []
    for key, step in zip(keys, figures.steps, strict=True):
        told = "" if step.progress is None else f"  {escape(step.progress.decode('utf-8', 'replace'), VALUE_MAX)}"
        tries = "" if step.attempt == 1 else f"  attempt {step.attempt}"
        lines.append(f"  {key:<{width}}  {lasting(step.seconds):>7}{tries}{told}")
    if figures.running > len(figures.steps):
        lines.append(f"  and {figures.running - len(figures.steps):,} more")
    return lines


def lasting(seconds: float) -> str:
    """How long, short: `0.4s`, `12s`, `3m05s`, `2h03m`, `5d06h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


# --- screens ---------------------------------------------------------------------------------------


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at this stream, on a terminal that can rewrite a line."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") != "dumb"
    except ValueError:  # closed
        return False


class _Screen(Protocol):
    def show(self, lines: list[str]) -> None: ...

    def close(self, last: str) -> None: ...


def screen_on(stream: TextIO) -> _Screen:
    """Several lines where rich is installed, else one."""
    try:
        console = importlib.import_module("rich.console").Console(file=stream)
        live = importlib.import_module("rich.live").Live
        text = importlib.import_module("rich.text").Text
    except ImportError:
        return _PlainScreen(stream)
    return _RichScreen(console, live, text)


class _PlainScreen:
    """One line, rewritten in place."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, lines: list[str]) -> None:
        width = os.get_terminal_size(self.stream.fileno()).columns if self.stream.fileno() >= 0 else 80
        self.stream.write(f"\r\x1b[K{lines[0][: max(width - 1, 20)]}")
        self.stream.flush()

    def close(self, last: str) -> None:
        self.stream.write(f"\r\x1b[K{last}\n")
        self.stream.flush()


class _RichScreen:
    """Several lines, redrawn in place; what the program prints meanwhile goes above them."""

    def __init__(self, console: Any, live: Any, text: Any) -> None:
        self.console, self.text = console, text
        # Only a stdout that is on the terminal too may be led past the live lines: a pipe is left alone.
        self.live = live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=_stdout_is_terminal(),
            redirect_stderr=True,
        )
        self.live.start()

    def show(self, lines: list[str]) -> None:
        body = self.text(lines[0], style="bold", no_wrap=True, overflow="ellipsis")
        for line in lines[1:]:
            body.append(f"\n{line}", style="not bold dim")
        self.live.update(body, refresh=True)

    def close(self, last: str) -> None:
        self.live.stop()
        self.console.print(self.text(last, style="dim", no_wrap=True, overflow="ellipsis"))


def _stdout_is_terminal() -> bool:
    return os.isatty(1)
