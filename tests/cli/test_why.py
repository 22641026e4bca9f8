"""`perdure why`: beside a running engine and without one, for people and as JSON."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli.conftest import Program, wait_for
from tests.cli.test_commands import Beside, waits_for


def test_it_tells_the_signal_and_the_command_that_sends_it(perdure: Program, ways: Path) -> None:
    """Goal: the command that it prints ends the wait."""
    beside = Beside(f"{ways}:asks", "ask-1", {"n": 4})
    waits_for(perdure, "ask-1", signals=["answer"])
    told = perdure("why", "ask-1").good().out
    assert told.splitlines()[0].startswith("ask-1  asks (version 1)  waiting")
    assert "signal answer, for " in told
    assert "or longer" in told
    (command,) = [line.strip()[2:] for line in told.splitlines() if line.strip().startswith("$ ")]
    assert command == "perdure signal ask-1 answer JSON"
    perdure(*command.removesuffix("JSON").split()[1:], "7").good()
    assert beside.end() == 7
    assert "nothing: it has completed" in perdure("why", "ask-1").good().out


def test_it_names_the_step_in_its_attempt_from_another_process(perdure: Program, ways: Path) -> None:
    """Goal: a step that takes long is named with its process, though its begin is no fact."""
    beside = Beside(f"{ways}:holds", "hold-1", {"gate": "gate"})

    def noted() -> list[dict[str, object]]:
        done = perdure("why", "hold-1", "--json")
        return [one for one in done.json["reasons"] if one["kind"] == "step"] if done.code == 0 else []

    (step,) = wait_for(noted, "the step is named")
    wait_for(lambda: "attempt" in noted()[0], "its attempt is named")
    (step,) = noted()
    assert (step["name"], step["attempt"], step["pid"]) == ("hold#1", 1, os.getpid())
    assert step["progress"] == {"at": "gate"}
    assert "since" in step
    Path("gate").touch()
    assert beside.end() == 1


def test_without_an_engine_it_says_so_and_how_to_start_one(perdure: Program, ways: Path) -> None:
    """Goal: the printed command runs the run that was asked about."""
    beside = Beside(f"{ways}:unsure", "u-1", {"n": 4})
    assert "NeedsAttention" in type(beside.end()).__name__
    told = perdure("why", "u-1").good().out
    assert "nobody knows" in told or "at most once" in told or "unknown" in told
    assert "perdure resolve u-1 pay#1 --result JSON|--fail|--retry" in told
    perdure("resolve", "u-1", "pay#1", "--result", '"paid"').good()
    told = perdure("why", "u-1").good().out
    assert "resolve pay#1 lies in the inbox since " in told
    assert perdure("run", f"{ways}:unsure", "-p", "n=4", "--id", "u-1").good().json == "paid"


def test_an_unknown_run_is_told_as_such(perdure: Program, ways: Path) -> None:
    """Goal: a typing mistake is answered with where to look."""
    perdure("run", f"{ways}:good", "-p", "n=1").good()
    perdure("why", "nobody").fails(2, "there is no run 'nobody'", "perdure ps")
