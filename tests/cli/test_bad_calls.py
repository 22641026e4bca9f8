"""Bad calls get one clear error before anything is written; hostile words do no harm, and secrets are not told."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import HARMFUL, Program, Spawn

# Every command that names a run, with what else it takes.
OF_A_RUN = {
    "show": (),
    "story": (),
    "verify": (),
    "signal": ("approval", "1"),
    "cancel": (),
    "retry": (),
    "fork": ("--at", "1"),
    "resolve": ("a#1", "--fail"),
}
HOSTILE = [
    "../../etc/passwd",
    "a/b",
    "/tmp",
    "a b",
    "",
    "a\x00b",
    "\x1b[31m",
    "a;drop",
    "\u202e",
    "x" * 129,
    "..",
    "%2e%2e",
]
CANARY = "k3n4ry-5wordfish"


def call(name: str, run: str) -> tuple[str, ...]:
    return (name, run, *OF_A_RUN[name])


# --- wrong calls: exit code 2, nothing written ---------------------------------------------------------


@pytest.mark.parametrize(
    "args, words",
    [
        (["run"], ["Missing argument"]),
        (["nothing"], ["nothing"]),
        (["ps", "--nothing"], ["--nothing"]),
        (["run", "none.py"], ["there is no file none.py"]),
        (["run", "ways.txt"], ["ways.txt"]),
        (["run", "ways.py"], ["name one", "asks", "sums"]),
        (["run", "ways.py:none"], ["no workflow 'none'", "there are:"]),
        (["run", "ways.py:good"], ["no value for 'n'"]),
        (["run", "ways.py:good", "-p", "n=1", "-p", "m=2"], ["no parameter 'm'"]),
        (["run", "ways.py:good", "-p", 'n="x"'], ["parameter 'n' of workflow good", "`int`"]),
        (["run", "ways.py:good", "-p", "n"], ["NAME=VALUE"]),
        (["run", "ways.py:good", "-p", "n=one"], ["not JSON", "quotes"]),
        (["run", "ways.py:good", "-p", "n=1", "-p", "n=2"], ["given twice"]),
        (["run", "ways.py:good", "-p", "n=NaN"], ["NaN"]),
        (["run", "ways.py:good", "-p", "n=1" + "0" * 400], ["64 bits"]),
        (["run", "ways.py:good", "-p", "n=" + "[" * 100_000], ["deeper"]),
        (["run", "ways.py:good", "--input", "[1]"], ["object of the parameters"]),
        (["run", "ways.py:good", "--input", '{"n": 1, "n": 2}'], ["twice"]),
        (["run", "ways.py:good", "--input", "@none.json"], ["none.json cannot be read"]),
        (["run", "ways.py:good", "--input", '{"n": "\\ud800"}'], ["surrogate"]),
        (["run", "ways.py:good", "-p", "n=1", "--id", "a b"], ["run id 'a b'"]),
        (["run", "ways.py:good", "-p", "n=1", "--tag", "x"], ["--tag takes"]),
        (["run", "ways.py:good", "-p", "n=1", "--set", "thread_max=1"], ["'threads_max' is meant?"]),
        (["run", "ways.py:good", "-p", "n=1", "--set", "threads_max=many"], ["threads_max"]),
        (["run", "ways.py:good", "-p", "n=1", "--set", "sweep_every_s=1000"], ["sweep_every_s", "from 0.01 to 60"]),
        (["run", "ways.py:good", "-p", "n=1", "--durability", "some"], ["'full', 'relaxed'"]),
        (["run", "ways.py:good", "-p", "n=1", "--speed", "2"], ["for traces"]),
        (["run", "broken.py"], ["broken.py cannot be imported", "SyntaxError", "line 2"]),
        (["run", "raises.py"], ["ZeroDivisionError", "line 3"]),
        (["run", "ends.py"], ["__main__"]),
        (["run", "empty.py"], ["defines no workflow"]),
        (["run", "badly.py"], ["@workflow takes an `async def` function"]),
        (["run", "json.py"], ["rename the file"]),
        (["run", "bad.yaml"], ["bad.yaml"]),
        (["run", "bad.json"], ["bad.json"]),
        (["draw", "ways.py:good"], ["is a flow"]),
        (["draw", "no-such-run"], ["no file no-such-run", "no run to draw", "there is no store"]),
        (["verify", "a", "--all"], ["either RUN or --all"]),
        (["fork", "a"], ["--at"]),
        (["fork", "a", "--at", "0"], ["--at"]),
        (["resolve", "a", "b"], ["--result JSON, --fail and --retry"]),
        (["resolve", "a", "b", "--fail", "--retry"], ["one of"]),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_in_a_few_lines_and_writes_nothing(
    perdure: Program, ways: Path, args: list[str], words: list[str]
) -> None:
    """Goal: exit code 2, what was wrong and what to do, no traceback, and no store is made."""
    Path("ways.txt").touch()
    Path("broken.py").write_text("x = 1\ndef (\n")
    Path("raises.py").write_text("\n\nx = 1 / 0\n")
    Path("ends.py").write_text("import sys\nsys.exit(0)\n")
    Path("empty.py").write_text("x = 1\n")
    Path("badly.py").write_text("from perdure import workflow\n@workflow\ndef f(): ...\n")
    Path("json.py").write_text("")
    Path("bad.yaml").write_text("graph: [")
    Path("bad.json").write_text('{"graph": 3}')
    perdure(*args).fails(2, *words)
    assert not Path("perdure.db").exists()


def test_a_call_without_a_command_prints_the_whole_help_as_it_is(perdure: Program) -> None:
    """Goal: who does not know the commands sees them all, as `--help` lists them; the call was wrong all the same."""
    done = perdure()
    assert (done.code, done.out) == (2, "")
    assert done.err.strip() == perdure("--help").good().out.strip()


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_run_that_does_not_exist_is_told_by_every_command(perdure: Program, ways: Path, name: str) -> None:
    """Goal: a typing error in an id is found, and nothing is left in the inbox for a run that never was."""
    perdure("run", f"{ways}:good", "-p", "n=1", "--id", "g-1").good()
    perdure(*call(name, "g-2")).fails(2, "no run 'g-2'", "perdure ps")
    with sqlite3.connect("perdure.db") as db:
        assert db.execute("SELECT COUNT(*) FROM inbox").fetchone() == (0,)
    db.close()


@pytest.mark.parametrize("name", ["signal", "cancel", "resolve"])
def test_an_ended_run_takes_nothing_more(perdure: Program, ways: Path, name: str) -> None:
    """Goal: what can have no effect is refused, and says why."""
    perdure("run", f"{ways}:good", "-p", "n=1", "--id", "g-1").good()
    perdure(*call(name, "g-1")).fails(2, "g-1 has ended (completed)")
    perdure("retry", "g-1").fails(2, "has completed", "fork")
    perdure("fork", "g-1", "--at", "4").fails(2, "has 3 facts")


def test_debug_alone_shows_a_traceback(perdure: Program, ways: Path) -> None:
    """Goal: who wants to see where an error comes from can."""
    assert "Traceback" in perdure("show", "none", "--debug").err
    assert "Traceback" not in perdure("show", "none").err


def test_our_own_bug_is_told_as_one(perdure: Program, hello: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an exception that nobody foresaw is exit code 3 and two lines, not a page."""

    def broken(*_: object, **__: object) -> None:
        raise KeyError("what")

    monkeypatch.setattr("perdure.cli.run.load_target", broken)
    perdure("run", str(hello)).fails(3, "KeyError", "--debug")


# --- the store is wrong: exit code 3 -------------------------------------------------------------------


def other_database() -> None:
    with sqlite3.connect("other.db") as db:
        db.execute("CREATE TABLE t (x)")
    db.close()


def newer_store(perdure: Program, ways: Path) -> None:
    perdure("run", f"{ways}:good", "-p", "n=1", "--store", "sqlite:///newer.db").good()
    with sqlite3.connect("newer.db") as db:
        db.execute("PRAGMA user_version = 1000")
    db.close()


@pytest.mark.parametrize(
    "store, words",
    [
        ("sqlite:///none.db", ["there is no store at none.db"]),
        ("sqlite:///none/none.db", ["there is no store at none/none.db"]),
        ("sqlite:///text.db", ["text.db"]),
        ("sqlite:///other.db", ["is no perdure store"]),
        ("sqlite:///newer.db", ["newer perdure", "upgrade"]),
        ("memory:", ["memory:"]),
        ("mysql://h/d", ["sqlite:///FILE.db"]),
        ("perdure", ["sqlite:///FILE.db"]),
    ],
)
@pytest.mark.parametrize("command", ["ps", "doctor", "verify"])
def test_a_store_that_is_none_is_told_and_left_alone(
    perdure: Program, ways: Path, store: str, words: list[str], command: str
) -> None:
    """Goal: looking never makes or changes a file that is no store of ours."""
    Path("text.db").write_text("no database at all, but long enough to be taken for one" * 100)
    other_database()
    newer_store(perdure, ways)
    before = {path.name: path.read_bytes() for path in Path().glob("*.db")}
    perdure(command, "--store", store).fails(3, *words)
    assert {path.name: path.read_bytes() for path in Path().glob("*.db")} == before


@pytest.mark.parametrize(
    "store", ["sqlite:///text.db", "sqlite:///other.db", "sqlite:///newer.db", "sqlite:///no/no.db"]
)
def test_no_engine_starts_on_what_is_no_store(perdure: Program, ways: Path, store: str) -> None:
    """Goal: `run` says what is wrong with the file and exits with 3."""
    Path("text.db").write_text("no database at all, but long enough to be taken for one" * 100)
    other_database()
    newer_store(perdure, ways)
    perdure("run", f"{ways}:good", "-p", "n=1", "--store", store).fails(3)


@pytest.mark.parametrize("command", ["ps", "signal g-1 x", "run ways.py:good -p n=2", "backup copy.db"])
def test_a_read_only_store_is_told(perdure: Program, ways: Path, spawn: Spawn, command: str) -> None:
    """Goal: who may not write there learns it in a few lines, exit code 3, and nothing is changed."""
    perdure("run", f"{ways}:good", "-p", "n=1", "--id", "g-1").good()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in (ways, Path("perdure.db"), Path("perdure.db.mark"), Path("perdure.db.lock")):
            shutil.copy(source, folder)
            (folder / source.name).chmod(0o444)
        folder.chmod(0o555)
        nobody = "import os; from perdure.cli import main; os.geteuid() or os.seteuid(65534); "
        done = spawn("-c", f"{nobody} os.chdir({name!r}); main({command.split()})").end()
        before = Path("perdure.db").read_bytes()
        assert (folder / "perdure.db").read_bytes() == before
        assert sorted(path.name for path in folder.glob("*.db")) == ["perdure.db"]
        folder.chmod(0o755)
    done.fails(3)


# --- F97, F98, F99, F103 -------------------------------------------------------------------------------


def test_f97_no_secret_is_told_or_kept(perdure: Program, ways: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: passwords in addresses and the environment are in no output of any command, and in no file."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    said = []
    for store in (f"postgresql://ann:{CANARY}@host/db", f"postgresql://host/db?password={CANARY}&x=1"):
        for args in (["ps"], ["doctor"], ["run", f"{ways}:good", "-p", "n=1"], ["ps", "--debug"]):
            done = perdure(*args, "--store", store)
            assert done.code == 3
            assert "***" in done.err
            said.append(done)
            monkeypatch.setenv("PERDURE_STORE", store)
            said.append(perdure(*args))
            monkeypatch.delenv("PERDURE_STORE")
    for args in (
        ["run", f"{ways}:bad", "-p", 'text="no"', "--id", "b-1"], ["run", "none.py"], ["ps", "--json"], ["doctor"],
        ["doctor", "--json"], ["show", "b-1", "--json"], ["story", "b-1"], ["verify"], ["recover"], ["run", "--help"],
    ):  # fmt: skip
        said += [perdure(*args)]
    assert not [done for done in said if CANARY in done.out + done.err]
    kept = [path for path in Path().rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert not kept


@pytest.mark.parametrize(
    "word", ["' OR 1=1 --", '" OR ""="', "%", "_", "x'); DROP TABLE runs; --", "\\", "*", "[a-z]*"]
)
def test_f98_filters_are_words_and_never_statements(perdure: Program, ways: Path, word: str) -> None:
    """Goal: a hostile filter finds exactly the runs that bear it, and breaks nothing."""
    perdure("run", f"{ways}:good", "-p", "n=1", "--id", "plain").good()
    perdure("run", f"{ways}:good", "-p", "n=2", "--id", "marked", "--tag", f"k={word}").good()
    assert [run["id"] for run in perdure("ps", "--json", "--tag", f"k={word}").good().json] == ["marked"]
    assert perdure("ps", "--json", "--workflow", word).good().json == []
    if "=" not in word:
        assert perdure("ps", "--json", "--tag", f"{word}=k").good().json == []
    perdure("ps", "--status", word).fails(2, "one of queued")
    assert len(perdure("ps", "--json").json) == 2
    perdure("verify").good()


@pytest.mark.parametrize("word", HOSTILE)
def test_f99_an_id_is_no_path(perdure: Program, ways: Path, word: str) -> None:
    """Goal: every command refuses an id outside the grammar before it looks for anything."""
    perdure("run", f"{ways}:good", "-p", "n=1", "--id", "g-1").good()
    before = sorted(path.name for path in Path().iterdir())
    for name in OF_A_RUN:
        perdure(*call(name, word)).fails(2, "1 to 128 letters, digits, '_' and '-'")
    perdure("fork", "g-1", "--at", "1", "--id", word).fails(2, "1 to 128 letters")
    perdure("run", f"{ways}:good", "-p", "n=1", "--id", word).fails(2, "1 to 128 letters")
    perdure("cancel", "g-1", "--request-id", word).fails(2, "request id")
    assert sorted(path.name for path in Path().iterdir()) == before


def test_f103_what_others_named_does_nothing_to_a_terminal(perdure: Program, ways: Path) -> None:
    """Goal: names, messages, tags, values and variables with terminal codes are shown spelled out, everywhere.

    Shape: the fixture looks for harmful characters in all that every call prints; here they are sure to be there.
    """
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\u2066x\x7f"
    text = (
        ways.read_text()
        .replace('variables["stage"]', "variables[text]")
        .replace("async def asks(n: int)", "async def asks(n: int, text: str)")
    )
    ways.write_text(
        text.replace("async def good", "async def good_").replace(
            "@workflow\nasync def good_", f"@workflow(name={evil!r})\nasync def good"
        )
    )
    given = ["-p", f"text={json.dumps(evil)}", "--tag", f"{evil}={evil}"]
    failed = perdure("run", f"{ways}:bad", *given, "--id", "b-1")
    assert failed.code == 1
    assert "\\x1b]0;owned\\x07" in failed.err
    told = ""
    for args in (
        ["ps"], ["show", "b-1"], ["story", "b-1"], ["verify", "b-1"], ["ps", "--json"], ["show", "b-1", "--json"],
        ["story", "b-1", "--json"], ["signal", "b-1", evil, "1"], ["show", evil], ["run", evil], [evil], ["ps", "--" + evil],
        ["run", f"{ways}:{evil}"], ["run", f"{ways}:good", "-p", "n=1", "--tag", f"{evil}={evil}"], ["ps", "--workflow", evil],
        ["ps", "--status", evil],
    ):  # fmt: skip
        done = perdure(*args)
        assert not HARMFUL.search(done.out + done.err)
        told += done.out + done.err
    assert "\\x1b[2J" in told
    assert evil in {run["workflow"] for run in perdure("ps", "--json").json}
    assert "\\u202e" in told
    assert json.loads(perdure("show", "b-1", "--json").out)["tags"] == {evil: evil}
