"""`python -m demo`: four parts, then a table. Exits with 1 when anything is not as it must be.

Everything is kept in `demo/out`, or in the folder that DEMO_OUT names.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple

from demo.process import OUT, ROOT, Unexpected, begin, call, end, expect, facts_of, kill, leave_none, wait_until

TRACE = ROOT / "tests" / "data" / "traces" / "montage-chameleon-2mass-01d-001.json"
TRACE_TASKS = 103
AS_FAST, SMALLER = ("--speed", "4"), ("--shrink", "100")
WIDTH = 120
KEPT = re.compile(r"resumed run (\S+): ([\d,]+) steps? kept")


class Row(NamedTuple):
    """A line of the table at the end."""

    run: str
    status: str
    steps: int
    kept: str
    seconds: float
    verified: str


def say(text: str) -> None:
    print(text, flush=True)


def cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def title(number: int, text: str) -> None:
    say(f"\n{number}. {text}")


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


def row_of(run_id: str, watch: Watch, *, status: str, kept: str = "-") -> Row:
    """What became of a run, verified by `perdure verify`. Raises: `Unexpected`."""
    seconds = watch.seconds
    report = json.loads("\n".join(call("verify", run_id, "--json", quiet=True)))
    conditions = report["reports"][0]["conditions"]
    looked = {name: sum(check["checked"] for check in checks) for name, checks in conditions.items()}
    say(f"    verified: {', '.join(f'{name} ({count:,} checks)' for name, count in looked.items())}")
    facts = facts_of(run_id)
    expect(facts is not None and facts.status == status, f"{run_id} is not {status}: {facts}")
    assert facts is not None
    return Row(run_id, facts.status, facts.steps, kept, seconds, "yes")


# --- the parts ---------------------------------------------------------------------------------------


def words_of_documents() -> Iterator[Row]:
    title(1, "A graph over documents: find them, count the words of each in a step of its own, merge, write a report.")
    watch, report = Watch(), OUT / "words.md"
    given = json.dumps({"root": str(ROOT), "out": str(report)})
    call("run", "demo/words.py", "--input", given, "--id", "words")
    lines = report.read_text(encoding="utf-8").splitlines()
    most = [line.strip("| ").split(" | ")[0] for line in lines if line.startswith("| ")][1:9]
    say(f"    {lines[2]} The most frequent: {', '.join(most)}.")
    facts = facts_of("words")
    expect(facts is not None and "step_skipped" in facts.kinds, "the step whose condition is false was not skipped")
    yield row_of("words", watch, status="completed")


def orders() -> Iterator[Row]:
    title(2, "Orders: the payment fails once and is retried; a person approves from another process.")
    watch = Watch()
    process = begin_order("order-a1", 250_000)
    wait_until("order-a1", "wait for its approval", steps=2, status="waiting")
    call("signal", "order-a1", "approval", '{"by": "ann", "ok": true}')
    say(f"    {cut(' '.join(end(process)))}")
    facts = facts_of("order-a1")
    expect(facts is not None and "attempt_failed" in facts.kinds, "the payment did not fail first")
    show_story("order-a1", "charge", "signal")
    yield row_of("order-a1", watch, status="completed")

    say("\n   And one that is refused: what was done is undone, the last first.")
    watch = Watch()
    process = begin_order("order-b2", 250_000)
    wait_until("order-b2", "wait for its approval", steps=2, status="waiting")
    call("signal", "order-b2", "approval", '{"by": "bob", "ok": false}')
    for line in end(process, code=1):
        if line.strip():
            say(f"    {cut(line.strip())}")
    facts = facts_of("order-b2")
    assert facts is not None
    done, undone = facts.keys[:2], [key.removeprefix("undo:") for key in facts.keys[2:]]
    expect(undone == done[::-1], f"undone were {undone}, and not {done[::-1]}")
    show_story("order-b2", "succeeded", "undone", "the run failed")
    yield row_of("order-b2", watch, status="failed")


def show_story(run_id: str, *about: str) -> None:
    """The sentences of a run's story that are about these."""
    for line in call("story", run_id):
        if any(word in line for word in about):
            say(f"    {cut(line.strip())}")


def begin_order(run_id: str, cents: int) -> Popen[str]:
    given = json.dumps({"order": {"id": run_id.removeprefix("order-"), "cents": cents}})
    return begin("run", "demo/orders.py", "--input", given, "--id", run_id)


def trace() -> Iterator[Row]:
    title(3, f"A recorded execution of Montage (a mosaic of the sky, {TRACE_TASKS} tasks), four times as fast.")
    watch = Watch()
    call("run", str(TRACE), *AS_FAST, *SMALLER, "--work", str(OUT / "sky"), "--id", "sky")
    row = row_of("sky", watch, status="completed")
    expect(
        row.steps > TRACE_TASKS, f"{row.steps} steps instead of {TRACE_TASKS} and the one that makes the first files"
    )
    yield row


def killed_trace() -> Iterator[Row]:
    title(4, "The same, killed with SIGKILL in the middle; the same command again resumes it.")
    watch = Watch()
    args = ("run", str(TRACE), *AS_FAST, *SMALLER, "--work", str(OUT / "sky-killed"), "--id", "sky-killed")
    process = begin(*args)
    wait_until("sky-killed", "come to its middle", steps=TRACE_TASKS // 2)
    kill(process)
    left = facts_of("sky-killed")
    assert left is not None
    say(f"    kill -9: {left.steps} of {TRACE_TASKS + 1} steps are recorded, the run is {left.status}")
    resumed = KEPT.search("\n".join(lines := call(*args)))
    expect(resumed is not None, f"nothing was resumed: {lines}")
    assert resumed is not None
    say(f"    {resumed[0]}")
    expect(int(resumed[2].replace(",", "")) == left.steps, f"{resumed[2]} steps were kept instead of {left.steps}")
    facts = facts_of("sky-killed")
    assert facts is not None
    expect(len(set(facts.keys)) == len(facts.keys), "a step has two outcomes")
    yield row_of("sky-killed", watch, status="completed", kept=resumed[2])


PARTS: tuple[Callable[[], Iterator[Row]], ...] = (words_of_documents, orders, trace, killed_trace)


# --- all of it -----------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """The rows under a heading, in columns."""
    heading = ("run", "status", "steps", "kept on resume", "seconds", "verified")
    cells = [heading, *((r.run, r.status, str(r.steps), r.kept, f"{r.seconds:.1f}", r.verified) for r in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heading))]
    lines = []
    for line in cells:
        text = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(text).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


@contextmanager
def workplace(path: Path) -> Iterator[None]:
    """An empty folder, in which no process is left. What the runs wrote stays there to be looked at."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield
    finally:
        leave_none()


def main() -> int:
    watch, rows, wrong = Watch(), list[Row](), list[str]()
    with workplace(OUT):
        for part in PARTS:
            try:
                rows.extend(part())
            except Unexpected as error:
                wrong.append(f"{part.__name__}: {error}")
                say(f"    NOT AS IT MUST BE: {error}")
    say(f"\n{table(rows)}\n")
    for text in wrong:
        say(f"not as it must be: {text}")
    where = OUT.relative_to(ROOT) if OUT.is_relative_to(ROOT) else OUT
    say(f"{watch.seconds:.0f} seconds. Look around: perdure ps --store sqlite:///{where}/demo.db; {where}/words.md")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
