"""Running the command line as a user would: in processes of its own, on a store of the demo's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import perdure

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(os.environ.get("DEMO_OUT") or ROOT / "demo" / "out")
STORE = f"sqlite:///{OUT / 'demo.db'}"
LOOK_EVERY_S = 0.02
PATIENCE_S = 60.0
_begun: list[subprocess.Popen[str]] = []
ENDED = {"completed", "failed", "cancelled", "attention"}


class Unexpected(Exception):
    """Something is not as it must be."""


def expect(holds: bool, text: str) -> None:
    """Raises: `Unexpected` with the text where it does not hold."""
    if not holds:
        raise Unexpected(text)


class Facts(NamedTuple):
    """What the store says of a run. Shape: `steps` counts recorded successes, undone ones and their undoing too."""

    status: str
    steps: int
    kinds: list[str]
    keys: list[str]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "perdure", *args]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE_")}
    return {**kept, "PERDURE_STORE": STORE}


def show_command(*args: str) -> None:
    told = [arg.replace(f"{ROOT}/", "").replace(str(ROOT), ".") for arg in args]
    print("  $ perdure " + " ".join(f"'{arg}'" if re.search(r"[{\s]", arg) else arg for arg in told), flush=True)


def begin(*args: str, quiet: bool = False) -> subprocess.Popen[str]:
    """Start a command, and go on beside it."""
    if not quiet:
        show_command(*args)
    process = subprocess.Popen(
        command(*args), cwd=ROOT, env=environment(), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    _begun.append(process)
    return process


def leave_none() -> None:
    """End what still runs, when a part was given up."""
    for process in _begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def end(process: subprocess.Popen[str], code: int = 0) -> list[str]:
    """Wait for a command's end; its lines. Raises: `Unexpected` for another exit code."""
    try:
        text, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Unexpected(f"{process.args[3]} did not end within {PATIENCE_S:g}s") from None  # type: ignore[index]
    lines = text.splitlines()
    expect(process.returncode == code, f"exit code {process.returncode} instead of {code}:\n" + "\n".join(lines[-6:]))
    return lines


def call(*args: str, code: int = 0, quiet: bool = False) -> list[str]:
    """Run a command to its end; its lines. `quiet` does not print the command."""
    return end(begin(*args, quiet=quiet), code)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL: nothing of it may clean up."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    expect(process.returncode == -signal.SIGKILL, f"it ended with {process.returncode} before it was killed")


def facts_of(run_id: str) -> Facts | None:
    """None while there is no such run."""
    if not (OUT / "demo.db").exists():
        return None
    with perdure.connect(STORE) as client:
        try:
            state = client.get(run_id).state()
        except perdure.PerdureError:
            return None
    history: list[Any] = list(state.history)
    done = [entry for entry in history if entry.kind in {"step_completed", "child_ended"}]
    return Facts(state.status, len(done), [entry.kind for entry in history], [entry.detail["key"] for entry in done])


def wait_until(run_id: str, what: str, *, steps: int = 0, status: str = "") -> Facts:
    """Look until the run has so many steps, and this status.

    Raises: `Unexpected` when it ended otherwise, or did not come so far in time.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        facts = facts_of(run_id)
        if facts is not None:
            if facts.steps >= steps and status in {"", facts.status}:
                return facts
            expect(facts.status not in ENDED, f"{run_id} is {facts.status}, and was to {what}")
        time.sleep(LOOK_EVERY_S)
    raise Unexpected(f"{run_id} did not {what} within {PATIENCE_S:g}s")
