"""Each command does what it says, on stdout what was asked for and on stderr the rest."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from perdure.cli.program import COMMANDS, GROUPS
from tests.cli import programs
from tests.cli.conftest import Program

CONDITIONS = ("completeness", "ordering", "atomicity", "consistency")


def run(perdure: Program, target: str, **given: object) -> str:
    """Run a workflow of the file to its end, whatever that is; the id of its run."""
    arguments = [text for name, value in given.items() for text in ("-p", f"{name}={json.dumps(value)}")]
    perdure("run", target, *arguments)
    return str(perdure("ps", "--json").json[0]["id"])


# --- help --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_has_help_with_an_example(perdure: Program, name: str) -> None:
    """Goal: nobody has to look elsewhere for how a command is called."""
    text = perdure(name, "--help").good().out
    assert "Example" in text
    assert f"perdure {name}" in text.split("Example")[1]
    assert max(map(len, text.splitlines())) <= 100


def test_the_help_lists_every_command_and_exit_code(perdure: Program) -> None:
    """Goal: no command is missing from the list, and the codes are where one looks for them."""
    text = perdure("--help").good().out
    assert sorted(name for _, names in GROUPS for name in names) == sorted(str(command.name) for command in COMMANDS)
    assert all(f"\n  {command.name} " in text for command in COMMANDS)
    assert "130 and 143 stopped" in text


# --- run ---------------------------------------------------------------------------------------------


def test_run_prints_the_result_as_json_and_nothing_else(perdure: Program, hello: Path) -> None:
    """Goal: what is piped on is the result alone."""
    done = perdure("run", str(hello), "--input", '{"names": ["Ada"]}').good()
    assert (done.out, done.err) == ('["Hello, Ada"]\n', "")


def test_input_comes_from_an_option_a_file_stdin_or_parameter_by_parameter(perdure: Program, hello: Path) -> None:
    """Goal: the four ways of giving the same input are the same input."""
    Path("in.json").write_text('{"names": ["Ada"]}')
    ways = [["--input", '{"names": ["Ada"]}'], ["--input", "@in.json"], ["--input", "-"], ["-p", 'names=["Ada"]']]
    for way in ways:
        assert perdure("run", str(hello), *way, stdin=b'{"names": ["Ada"]}').good().json == ["Hello, Ada"]


def test_raw_prints_a_text_without_quotes_and_anything_else_as_json(perdure: Program, ways: Path) -> None:
    """Goal: a shell gets the text itself."""
    assert perdure("run", f"{ways}:good", "-p", "n=2", "--raw").good().out == "got 4\n"
    assert perdure("run", f"{ways}:sums", "-p", "n=3", "--raw").good().out == "6\n"


def test_json_prints_the_whole_run(perdure: Program, ways: Path) -> None:
    """Goal: one call gives a program all that is known of the run."""
    whole = perdure("run", f"{ways}:good", "-p", "n=2", "--json", "--tag", "a=b", "--id", "g-1").good().json
    assert (whole["id"], whole["status"], whole["result"], whole["tags"]) == ("g-1", "completed", "got 4", {"a": "b"})
    assert [entry["kind"] for entry in whole["history"]] == ["run_started", "step_completed", "run_completed"]


def test_an_id_that_has_ended_gives_its_recorded_result_again(perdure: Program, ways: Path) -> None:
    """Goal: naming a run makes the command idempotent; other input under the name is refused."""
    first = perdure("run", f"{ways}:good", "-p", "n=2", "--id", "g-1").good()
    assert perdure("run", f"{ways}:good", "-p", "n=2", "--id", "g-1").good() == first
    assert len(perdure("ps", "--json").json) == 1
    perdure("run", f"{ways}:good", "-p", "n=3", "--id", "g-1").fails(2, "g-1", "other input")


def test_a_graph_runs_from_yaml_and_json(perdure: Program) -> None:
    """Goal: a document beside its tasks' module is a program."""
    Path("steps_of_etl.py").write_text(programs.STEPS)
    Path("etl.yaml").write_text(programs.DOCUMENT)
    assert perdure("run", "etl.yaml", "-p", 'day="mon"').good().json == 5
    Path("etl.json").write_text(perdure("draw", "etl.yaml", "--json").good().out.replace('"extract",', '"extract",'))
    drawn = json.loads(Path("etl.json").read_text())
    for node in drawn["nodes"]:
        node["task"] = f"steps_of_etl:{node['task']}"
    Path("etl.json").write_text(json.dumps(drawn))
    assert perdure("run", "etl.json", "-p", 'day="mon"').good().json == 5
    assert perdure("verify").good().out.endswith("all correct; the code of 2 was replayed\n")


def test_a_trace_runs_faster_and_smaller_than_recorded(perdure: Program, root: Path) -> None:
    """Goal: a recorded execution is a graph to run; a file that was spoiled meanwhile is found by its reader."""
    trace = root / "tests/data/traces/blast-chameleon-small-001.json"
    how = ["--speed", "100000", "--shrink", "100000", "--work", "files"]
    perdure("run", str(trace), *how).good()
    assert len(list(Path("files").iterdir())) > 10
    perdure("verify").good()
    perdure("draw", str(trace)).good()
    perdure("run", str(trace), "--speed", "100000", "--shrink", "0.0000000001").fails(2, "--shrink")


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_settings_come_from_options_and_from_the_environment(
    perdure: Program, hello: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """Goal: each way of setting a knob reaches the engine, and a relaxed durability is shown."""
    done = perdure("run", str(hello), "-p", "names=[]", "--durability", durability, "--set", "threads_max=2").good()
    assert ("relaxed" in done.err) == (durability == "relaxed")
    monkeypatch.setenv("PERDURE_PAYLOAD_MAX", "1024")
    perdure("run", str(hello), "-p", f"names={json.dumps(['x' * 2000])}").fails(2, "1,024")
    assert "payload_max = 1024 (changed)" in perdure("doctor").good().out
    listed = perdure("doctor", "--settings").good().out
    assert "1024 (changed)" in listed
    assert "sync attempts at once" in listed
    assert perdure("doctor", "--settings", "--json").good().json["payload_max"] == 1024


# --- looking -----------------------------------------------------------------------------------------


def test_ps_lists_runs_the_newest_first_and_filters_them(perdure: Program, ways: Path) -> None:
    """Goal: a run is found by status, workflow and tag, alone and together."""
    for n in range(3):
        perdure("run", f"{ways}:good", "-p", f"n={n}", "--id", f"g-{n}", "--tag", f"n={n}").good()
    run(perdure, f"{ways}:bad", text="no")
    listed = perdure("ps", "--json").good().json
    assert [one["id"] for one in listed][1:] == ["g-2", "g-1", "g-0"]
    assert [one["id"] for one in perdure("ps", "--json", "--tag", "n=1").json] == ["g-1"]
    assert [one["workflow"] for one in perdure("ps", "--json", "--status", "failed").json] == ["bad"]
    assert len(perdure("ps", "--json", "--workflow", "good", "--status", "completed").json) == 3
    assert perdure("ps", "--json", "--workflow", "good", "--status", "failed").json == []
    assert len(perdure("ps", "--json", "--limit", "2").json) == 2
    table = perdure("ps").good()
    assert [line.split()[0] for line in table.out.splitlines()][:1] == ["RUN"]
    assert "ValueError: no in step boom#1 (after 2 attempts)" in table.out
    assert "no engine runs" in table.err


def test_show_story_and_verify_of_a_run_that_failed(perdure: Program, ways: Path) -> None:
    """Goal: what happened, in each of the three ways to look at it."""
    failed = run(perdure, f"{ways}:bad", text="no")
    shown = perdure("show", failed).good().out
    assert "bad (version 2)" in shown
    assert "1 completed, 1 undone, 1 failed, 1 retried" in shown
    story = perdure("story", failed).good().out
    for words in (
        'was started with "no"',
        "ValueError: no; tried again in",
        "at attempt 2",
        "book#1 was undone",
        "the run failed",
    ):
        assert words in story, story
    assert [one["seq"] for one in perdure("story", failed, "--json", "--last", "2").json] == [5, 6]
    report = perdure("verify", failed).good().out
    assert all(f"{condition}: holds" in report for condition in CONDITIONS)
    data = perdure("verify", failed, "--json").good().json
    assert (data["ok"], data["replayed"]) == (True, 1)
    replayed = {check["check"]: check["checked"] for check in data["reports"][0]["conditions"]["consistency"]}
    assert replayed["K3 digests of what was asked for"] > 0


def test_verify_says_when_the_code_is_not_there(perdure: Program, ways: Path) -> None:
    """Goal: a report without a replay does not pass as one with it."""
    run(perdure, f"{ways}:good", n=1)
    ways.unlink()
    done = perdure("verify").good()
    assert "the code is not replayed" in done.err
    assert "the code of 0 was replayed" in done.out


def test_verify_names_the_fact_that_was_changed(perdure: Program, ways: Path) -> None:
    """Goal: a byte changed in the store is told with its fact, and the exit code says so."""
    run(perdure, f"{ways}:good", n=1)
    data = Path("perdure.db").read_bytes()
    assert b"got 2" in data
    Path("perdure.db").write_bytes(data.replace(b"got 2", b"got 3"))
    done = perdure("verify", perdure.only_run())
    assert done.code == 3
    assert "BROKEN" in done.out
    assert "fact 3" in done.out


def test_draw_shows_a_graph_in_each_style(perdure: Program, ways: Path) -> None:
    """Goal: each style is what its tool reads."""
    assert "transform" not in perdure("draw", f"{ways}:sums").good().out
    assert perdure("draw", f"{ways}:sums").out.splitlines()[0].startswith("sums(n), version 1: 3 steps")
    assert perdure("draw", f"{ways}:sums", "--style", "mermaid").out.startswith("flowchart TD")
    assert perdure("draw", f"{ways}:sums", "--style", "dot").out.startswith("digraph")
    assert perdure("draw", f"{ways}:sums", "--json").json["graph"] == "sums"
    perdure("draw", f"{ways}:good").fails(2, "is a flow")


def test_draw_shows_the_graph_of_a_run_without_its_file(perdure: Program, ways: Path) -> None:
    """Goal: what was run can be looked at when its program is gone; a flow has nothing to draw."""
    perdure("run", f"{ways}:sums", "-p", "n=3", "--id", "one").good()
    perdure("run", f"{ways}:good", "-p", "n=3", "--id", "two").good()
    drawn = {style: perdure("draw", f"{ways}:sums", "--style", style).out for style in ("text", "mermaid", "dot")}
    ways.unlink()
    for style, text in drawn.items():
        assert perdure("draw", "one", "--style", style).good().out == text
    assert perdure("draw", "one", "--json").good().json["graph"] == "sums"
    assert perdure("draw", "one", "--style", "yaml").good().out.startswith("graph: sums")
    perdure("draw", "two").fails(2, "no graph for run two", "perdure story two")
    perdure("draw", "three").fails(2, "there is no run 'three'")


# --- steering ----------------------------------------------------------------------------------------


class Beside:
    """A run in a thread of its own, so that commands can be given beside it."""

    def __init__(self, target: str, run_id: str, given: dict[str, object]) -> None:
        import asyncio

        import perdure as library
        from perdure.cli.loading import load_target

        spec = load_target(target)
        self.ended: BaseException | object = None

        async def whole() -> object:
            return await library.arun(spec, id=run_id, input=given)

        def work() -> None:
            try:
                self.ended = asyncio.run(whole())
            except BaseException as error:  # noqa: BLE001 - looked at by the test
                self.ended = error

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def end(self) -> object:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.ended


def waits_for(perdure: Program, run_id: str, **wanted: object) -> None:
    """Look until the run waits as wanted."""
    from tests.cli.conftest import wait_for

    def look() -> bool:
        done = perdure("show", run_id, "--json")
        wait = done.json["wait"] if done.code == 0 else {}
        return all(wait.get(name) == value for name, value in wanted.items()) and bool(wait)

    wait_for(look, f"{run_id} waits for {wanted}")


def test_a_signal_reaches_a_run_beside_its_engine(perdure: Program, ways: Path) -> None:
    """Goal: a person answers from another shell, twice by mistake, and it counts once."""
    beside = Beside(f"{ways}:asks", "ask-1", {"n": 4})
    waits_for(perdure, "ask-1", signals=["answer"])
    shown = perdure("show", "ask-1").good().out
    assert "signal answer" in shown
    assert 'stage = "asked 4"' in shown
    table = perdure("ps")
    assert "an engine runs (pid " in table.err
    assert perdure("ps", "--json").json[0]["served"] is True
    for _ in range(2):
        said = perdure("signal", "ask-1", "answer", "7", "--request-id", "mail-1")
        assert said.code == 0 or "has ended" in said.err
    assert beside.end() == 7


def test_cancel_ends_a_run_beside_its_engine(perdure: Program, ways: Path) -> None:
    """Goal: cancelling from another shell, with the reason kept."""
    beside = Beside(f"{ways}:asks", "ask-1", {"n": 4})
    waits_for(perdure, "ask-1", signals=["answer"])
    perdure("cancel", "ask-1", "--reason", "not wanted").good()
    assert "was cancelled: not wanted" in str(beside.end())
    assert perdure("ps", "--json").json[0]["status"] == "cancelled"
    perdure("run", f"{ways}:asks", "-p", "n=4", "--id", "ask-1").fails(1, "was cancelled: not wanted")


def test_retry_and_fork_are_taken_up_by_the_next_engine(perdure: Program, ways: Path) -> None:
    """Goal: what is asked while no engine runs is durable, and said to wait for one."""
    failed = run(perdure, f"{ways}:bad", text="no")
    assert "no engine runs" in perdure("retry", failed, "--why", "again").good().err
    made = perdure("fork", failed, "--at", "2", "--id", "forked").good()
    assert made.out == "forked\n"
    text = ways.read_text().replace("raise ValueError(text)", 'return f"mended {text}"')
    ways.write_text(text)
    assert perdure("run", f"{ways}:bad", "-p", 'text="no"', "--id", failed).good().json == "mended no"
    assert perdure("run", f"{ways}:bad", "-p", 'text="no"', "--id", "forked").good().json == "mended no"
    assert "retried" in perdure("story", failed).out
    assert "forked from run" in perdure("story", "forked").out
    perdure("verify").good()


def test_a_run_that_needs_attention_exits_with_4_and_is_resolved_by_a_person(perdure: Program, ways: Path) -> None:
    """Goal: the engine does not guess what became of a payment; each way out is shown, and one is taken."""
    done = perdure("run", f"{ways}:unsure", "-p", "n=1").fails(4, "needs attention", "perdure resolve")
    assert "pay#1" in done.err
    unsure = perdure.only_run()
    perdure("run", f"{ways}:unsure", "-p", "n=1").fails(4, "perdure resolve")
    assert Path("paid").read_text() == "x", "the same command given again pays nothing"
    assert "perdure resolve" in perdure("show", unsure).good().out
    perdure("resolve", unsure, "pay#1").fails(2, "--result")
    perdure("retry", unsure).fails(2, "nobody knows whether step pay#1")
    perdure("resolve", unsure, "pay#1", "--result", '"pay-7"').good()
    assert perdure("run", f"{ways}:unsure", "-p", "n=1", "--id", unsure).good().json == "pay-7"
    assert Path("paid").read_text() == "x"
    assert "resolved pay#1 with the result" in perdure("story", unsure).out
    perdure("verify").good()


# --- keeping -----------------------------------------------------------------------------------------


def test_a_backup_is_a_store_of_its_own(perdure: Program, ways: Path) -> None:
    """Goal: the copy holds the same runs and verifies; an existing file is not overwritten."""
    run(perdure, f"{ways}:good", n=1)
    perdure("backup", "copy.db").good()
    copied = perdure("ps", "--json", "--store", "sqlite:///copy.db").good().json
    assert [one["id"] for one in copied] == [perdure.only_run()]
    perdure("verify", "--store", "sqlite:///copy.db").good()
    perdure("backup", "copy.db").fails(2, "exists")
    perdure("backup", "nowhere/copy.db").fails(2, "does not exist")


def test_doctor_tells_what_the_store_is_like(perdure: Program, ways: Path) -> None:
    """Goal: the whole of a store's health in one look."""
    run(perdure, f"{ways}:good", n=1)
    text = perdure("doctor").good().out
    for words in ("structure  sound", "none lost", "engine     none", "stopped cleanly", "runs 1", "SQLite 3."):
        assert words in text, (words, text)
    data = perdure("doctor", "--json").good().json
    assert data["store"]["mark"]
    assert data["epochs"][0]["clean"] is True
    assert ["good", "1"] in data["epochs"][0]["note"]["serves"]


def test_f16_a_store_that_lost_commits_is_refused_until_the_loss_is_accepted(perdure: Program, ways: Path) -> None:
    """Goal: an old copy in the store's place is found, told by the doctor, and taken up only by a person's word."""
    run(perdure, f"{ways}:good", n=1)
    old = Path("perdure.db").read_bytes()
    run(perdure, f"{ways}:good", n=2)
    for name in ("perdure.db-wal", "perdure.db-shm"):
        Path(name).unlink(missing_ok=True)
    Path("perdure.db").write_bytes(old)
    refused = perdure("run", f"{ways}:good", "-p", "n=3").fails(3, "perdure recover --accept-loss")
    assert "were acknowledged" in refused.err
    assert "are lost" in perdure("doctor").out
    assert perdure("doctor").code == 3
    perdure("recover").fails(3, "--accept-loss")
    done = perdure("recover", "--accept-loss").good()
    assert "structure: sound" in done.out
    assert "all correct" in done.out
    assert perdure("doctor").good()
    assert perdure("run", f"{ways}:good", "-p", "n=3").good().json == "got 6"
