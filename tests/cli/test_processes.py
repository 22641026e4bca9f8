"""Real processes: killed and resumed, stopped by signals, beside each other on one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import perdure as library
from tests.cli import programs
from tests.cli.conftest import Process, Program, Spawn, wait_for

pytestmark = pytest.mark.crash

HELLO_OUT = "['Hello, Ada', 'Hello, Grace']\n"
# Commits of the hello program: the claim is none of them; the start, then one for each step, the last with the end.
STEPS_KEPT = {1: 0, 2: 1}


def audit(perdure: Program) -> None:
    """The four conditions over all runs, their code replayed."""
    done = perdure("verify").good()
    assert "all correct" in done.out
    assert "the code of 0 was" not in done.out


def waiting(process: Process, run_id: str) -> None:
    """Until the run waits for a signal or has a step in an attempt."""

    def look() -> bool:
        assert process.popen.poll() is None, process.end()
        if not Path("perdure.db").exists():
            return False
        with library.connect() as client:
            rows = [row for row in client.runs() if row.id == run_id]
            return bool(rows) and rows[0].seq > 1 and bool(rows[0].wait.signals or rows[0].wait.open)

    wait_for(look, f"{run_id} has begun and waits")


# --- killed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [1, 2])
@pytest.mark.parametrize("again", ["python", "perdure run"])
def test_hello_killed_in_the_middle_goes_on_with_the_same_command(
    perdure: Program, spawn: Spawn, hello: Path, commits: int, again: str
) -> None:
    """Goal: the contract's first program, killed after any commit, keeps its steps and says so; started by `python`
    or by `perdure run` it is the same run (S23).
    """
    killed = spawn("hello.py", KILL_AFTER_COMMITS=str(commits)).end()
    assert killed.code == -signal.SIGKILL
    assert killed.out == ""
    if again == "python":
        done = spawn("hello.py").end().good()
        assert done.out == HELLO_OUT
    else:
        done = spawn("-m", "perdure", "run", "hello.py", "-p", 'names=["Ada", "Grace"]').end().good()
        assert done.out == '["Hello, Ada", "Hello, Grace"]\n'
    kept = STEPS_KEPT[commits]
    assert (
        done.err
        == f"{'perdure: ' * (again != 'python')}resumed run {perdure.only_run()}: {kept} step{'s' * (kept != 1)} kept\n"
    )
    assert perdure("story", perdure.only_run()).out.count("Hello, Ada") >= 1
    audit(perdure)


def test_hello_that_ended_begins_anew_and_says_nothing(perdure: Program, spawn: Spawn, hello: Path) -> None:
    """Goal: only an unfinished run is resumed; nothing is shown where nobody looks."""
    for _ in range(2):
        done = spawn("hello.py").end().good()
        assert (done.out, done.err) == (HELLO_OUT, "")
    assert [run["status"] for run in perdure("ps", "--json").json] == ["completed", "completed"]


def test_s23_a_run_is_resumed_by_its_own_version_and_file_whatever_the_path(
    perdure: Program, spawn: Spawn, hello: Path
) -> None:
    """Goal: another version leaves the run alone; the same file by another path resumes it."""
    assert spawn("hello.py", KILL_AFTER_COMMITS="2").end().code == -signal.SIGKILL
    hello.write_text(programs.HELLO.replace("@workflow\n", '@workflow(version="2")\n'))
    assert spawn("hello.py").end().good().err == ""
    assert [run["status"] for run in perdure("ps", "--json", "--workflow", "hello").json] == ["completed", "running"]
    hello.write_text(programs.HELLO)
    Path("link.py").symlink_to(hello)
    assert "1 step kept" in spawn("link.py").end().good().err
    audit(perdure)


@pytest.mark.parametrize(
    "killed, again",
    [
        ("python hello.py", "python elsewhere/named.py"),
        ("python hello.py", "perdure run link.py"),
        ("python link.py", "python -m hello"),
        ("perdure run link.py", "python hello.py"),
    ],
)
def test_s23_a_symbolic_link_is_the_same_file(
    perdure: Program, spawn: Spawn, hello: Path, killed: str, again: str
) -> None:
    """Goal: through whatever link a program is started, it is the file that counts."""
    Path("link.py").symlink_to(hello)
    Path("elsewhere").mkdir()
    Path("elsewhere/named.py").symlink_to("../hello.py")

    def started(command: str, **env: str) -> Process:
        if command.startswith("python"):
            return spawn(*command.split()[1:], **env)
        return spawn("-m", *command.split(), "-p", 'names=["Ada", "Grace"]', **env)

    assert started(killed, KILL_AFTER_COMMITS="2").end().code == -signal.SIGKILL
    assert "1 step kept" in started(again).end().good().err
    assert [run["status"] for run in perdure("ps", "--json").json] == ["completed"]
    audit(perdure)


def test_s23_another_file_of_the_same_workflow_makes_its_own_run(perdure: Program, spawn: Spawn, hello: Path) -> None:
    """Goal: a copy of the program with the same input does not pass another program's run off as its own."""
    assert spawn("hello.py", KILL_AFTER_COMMITS="2").end().code == -signal.SIGKILL
    Path("other.py").write_text(programs.HELLO)
    assert spawn("other.py").end().good().err == ""
    assert len(perdure("ps", "--json").json) == 2


def test_fresh_starts_anew_beside_an_unfinished_run(perdure: Program, spawn: Spawn, hello: Path) -> None:
    """Goal: --fresh leaves what is unfinished to its next start, and makes a run of its own."""
    assert spawn("hello.py", KILL_AFTER_COMMITS="2").end().code == -signal.SIGKILL
    done = perdure("run", str(hello), "-p", 'names=["Ada", "Grace"]', "--fresh").good()
    assert "resumed" not in done.err
    assert len(perdure("ps", "--json").json) == 2
    audit(perdure)


def test_a_trace_killed_in_the_middle_is_resumed_and_verified(perdure: Program, spawn: Spawn, root: Path) -> None:
    """Goal: the files that were written before the kill are checked by the steps made after it."""
    trace = str(root / "tests/data/traces/blast-chameleon-small-001.json")
    call = ("-m", "perdure", "run", trace, "--speed", "10000", "--shrink", "10000", "--work", "files")
    assert spawn(*call, KILL_AFTER_COMMITS="4").end().code == -signal.SIGKILL
    done = spawn(*call).end().good()
    assert "resumed run makeflow-blast-small-" in done.err
    assert ": 0 steps kept" not in done.err
    audit(perdure)


# --- stopped (S25) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["python", "perdure run"])
def test_s25_a_signal_stops_the_engine_and_never_cancels(
    perdure: Program, spawn: Spawn, ways: Path, number: signal.Signals, how: str
) -> None:
    """Goal: Ctrl-C and SIGTERM end the program with their code and a word on how to go on; the run waits as before."""
    if how == "python":
        Path("main.py").write_text("import perdure\nfrom ways import asks\nprint(perdure.run(asks, 3, id='ask-1'))\n")
        call: tuple[str, ...] = ("main.py",)
    else:
        call = ("-m", "perdure", "run", "ways.py:asks", "-p", "n=3", "--id", "ask-1")
    process = spawn(*call)
    waiting(process, "ask-1")
    process.popen.send_signal(number)
    stopped = process.end()
    stopped.fails(
        {signal.SIGINT: 130, signal.SIGTERM: 143}[number], "goes on with" if how == "perdure run" else "goes on"
    )
    assert stopped.out == ""
    assert perdure("ps", "--json").json[0]["status"] == "waiting"
    again = spawn(*call)
    again.until("resumed run ask-1: 1 step kept")
    assert "an engine runs" not in perdure("signal", "ask-1", "answer", "5").good().err
    done = again.end().good()
    assert done.out == "5\n"
    assert not any(word in perdure("story", "ask-1").out for word in ("cancel", "had died"))
    audit(perdure)


def test_s25_a_second_signal_stops_at_once(perdure: Program, spawn: Spawn, ways: Path) -> None:
    """Goal: a step that does not end cannot hold the program; it is made again at the next start."""
    call = ("-m", "perdure", "run", "ways.py:holds", "-p", 'gate="gate"', "--id", "hold-1")
    process = spawn(*call, PERDURE_STOP_GRACE_S="600")
    waiting(process, "hold-1")
    process.popen.send_signal(signal.SIGINT)
    process.until("once more stops at once")
    process.popen.send_signal(signal.SIGTERM)
    assert process.end().code == 143
    Path("gate").touch()
    assert spawn(*call).end().good().out == "1\n"
    audit(perdure)


# --- beside each other (S24) -------------------------------------------------------------------------


def test_s24_a_second_engine_waits_for_the_first_and_names_its_pid(
    perdure: Program, spawn: Spawn, ways: Path, hello: Path
) -> None:
    """Goal: nobody wonders why nothing moves; after the wait the ways out are told; a freed store is taken at once."""
    first = spawn("-m", "perdure", "run", "ways.py:holds", "-p", 'gate="gate"', "--id", "hold-1")
    waiting(first, "hold-1")
    hello_call = ("-m", "perdure", "run", "hello.py", "-p", 'names=["Ada"]')
    refused = spawn(*hello_call, PERDURE_LOCK_WAIT_S="0.1").end().fails(3, f"pid {first.popen.pid}", "--store")
    assert "waiting for the engine" in refused.err
    assert "perdure serve" not in refused.err, "there is no such command"
    second = spawn(*hello_call)
    second.until(f"(pid {first.popen.pid})")
    listed = perdure("ps").good()
    assert f"an engine runs (pid {first.popen.pid})" in listed.err
    Path("gate").touch()
    assert first.end().good().out == "1\n"
    assert second.end().good().out == '["Hello, Ada"]\n'
    audit(perdure)


def test_a_program_that_starts_runs_wherever_it_is_imported_is_told_how_not_to(spawn: Spawn) -> None:
    """Goal: the process of a pool imports the program; without its guard that waited for the very store it works for."""
    program = "from perdure import run, task, workflow\n@task(pool='process')\ndef add(x: int) -> int: return x + 1\n"
    Path("bare.py").write_text(program + "@workflow\nasync def adds() -> int: return await add(1)\nprint(run(adds))\n")
    failed = spawn("bare.py").end()
    assert failed.code == 1
    assert 'below `if __name__ == "__main__":`' in failed.err
    assert "waiting for the engine" not in failed.err


def test_ps_marks_runs_that_the_running_engine_does_not_serve(
    perdure: Program, spawn: Spawn, ways: Path, hello: Path
) -> None:
    """Goal: a run that waits for other code is told apart from one that merely waits."""
    assert spawn("hello.py", KILL_AFTER_COMMITS="1").end().code == -signal.SIGKILL
    engine = spawn("-m", "perdure", "run", "ways.py:holds", "-p", 'gate="gate"', "--id", "hold-1")
    waiting(engine, "hold-1")
    served = {run["workflow"]: run["served"] for run in perdure("ps", "--json").json}
    assert served == {"hello": False, "holds": True}
    assert "not served by the engine that runs" in perdure("ps", "--workflow", "hello").out
    Path("gate").touch()
    engine.end().good()


@pytest.mark.parametrize("command", ["ps --json", "ps", "story RUN", "--help"])
def test_a_reader_that_has_seen_enough_is_no_failure(perdure: Program, hello: Path, command: str) -> None:
    """Goal: `| head` ends a command quietly with 0, whether its stderr goes the same way or not."""
    perdure("run", "hello.py", "-p", 'names=["Ada"]').good()
    args = command.replace("RUN", perdure.only_run()).split()
    closed, theirs = os.pipe()
    os.close(closed)
    for both in (False, True):
        process = subprocess.Popen(
            [sys.executable, "-m", "perdure", *args], stdout=theirs, stderr=theirs if both else subprocess.PIPE
        )
        err = b"" if process.stderr is None else process.stderr.read()
        if process.stderr is not None:
            process.stderr.close()
        assert (process.wait(), err) == (0, b"")
    os.close(theirs)


def test_clients_look_and_steer_while_an_engine_runs(perdure: Program, spawn: Spawn, ways: Path) -> None:
    """Goal: signals from other processes reach the run, in their order, and all commands that look work beside it."""
    engine = spawn("-m", "perdure", "run", "ways.py:asks", "-p", "n=3", "--id", "ask-1")
    waiting(engine, "ask-1")
    for command in (("ps",), ("show", "ask-1"), ("story", "ask-1"), ("doctor",), ("backup", "copy.db")):
        perdure(*command).good()
    assert f"pid {engine.popen.pid} holds the store" in perdure("doctor").out
    audit(perdure)
    spawn("-m", "perdure", "signal", "ask-1", "answer", "7").end().good()
    assert engine.end().good().out == "7\n"
    audit(perdure)
