"""Bad calls through the library: one clear error each, with what to do, and nothing written."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import PerdureError, task, wait_signal, workflow
from perdure.app import store_address
from perdure.errors import (
    BadArgument,
    BadCall,
    BadDuration,
    BadId,
    IdInUse,
    NotAStore,
    NotEncodable,
    StoreNewer,
    StoreUnavailable,
    TooLarge,
    UnknownRun,
    UnknownWorkflow,
    WrongState,
)
from perdure.settings import Settings

ADDRESS = "sqlite:///s.db"
LIMIT = 2_000


@dataclass
class Order:
    id: str
    cents: int


@task
async def keep(order: Order) -> int:
    return order.cents


@workflow
async def buy(order: Order, note: Any = None) -> int:
    await wait_signal("go")
    return await keep(order)


GOOD = Order("a", 1)


def itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


Call = Callable[[Any], Any]
BAD: dict[str, tuple[Call, type[PerdureError], str]] = {
    "type of an argument": (lambda e: e.start(buy, {"id": "a", "cents": "many"}), BadArgument, "cents"),
    "an argument missing": (lambda e: e.start(buy), BadArgument, "order"),
    "an argument too many": (lambda e: e.start(buy, GOOD, 1, 2), BadArgument, "buy"),
    "an argument unknown": (lambda e: e.start(buy, GOOD, colour="red"), BadArgument, "colour"),
    "both ways of giving input": (lambda e: e.start(buy, GOOD, input={"order": GOOD}), BadCall, "input"),
    "input that is no mapping": (lambda e: e.start(buy, input=[1]), BadCall, "input"),
    "a function undecorated": (lambda e: e.start(buy.fn, GOOD), BadCall, "decorate it"),
    "a task for a workflow": (lambda e: e.start(keep, GOOD), BadCall, "workflow"),
    "an unknown workflow": (lambda e: e.start("sell", GOOD), UnknownWorkflow, "sell"),
    "a value that is no JSON": (lambda e: e.start(buy, GOOD, note=object()), NotEncodable, "object"),
    "NaN": (lambda e: e.start(buy, GOOD, note=float("nan")), NotEncodable, "(?i)nan"),
    "a value within itself": (lambda e: e.start(buy, GOOD, note=itself()), NotEncodable, "deep|itself|nested"),
    "a payload over its limit": (lambda e: e.start(buy, GOOD, note="x" * LIMIT), TooLarge, "2,000"),
    "an empty id": (lambda e: e.start(buy, GOOD, id=""), BadId, "128"),
    "a path for an id": (lambda e: e.start(buy, GOOD, id="../../etc/passwd"), BadId, "etc"),
    "an id of another type": (lambda e: e.start(buy, GOOD, id=7), BadId, "7"),
    "a bad request id": (lambda e: e.start(buy, GOOD, request_id="a b"), BadId, "request id"),
    "tags that are no texts": (lambda e: e.start(buy, GOOD, tags={"n": 1}), BadCall, "tag"),
    "tags that are no mapping": (lambda e: e.start(buy, GOOD, tags=["n"]), BadCall, "tag"),
    "an id in use": (lambda e: e.start(buy, Order("b", 2), id="there"), IdInUse, "there"),
    "a signal to nobody": (lambda e: e.get("nobody").signal("go"), UnknownRun, "perdure ps"),
    "a signal without a name": (lambda e: e.get("there").signal(""), BadCall, "200"),
    "a signal of half a character": (lambda e: e.get("there").signal("go\ud800"), BadCall, "signal name"),
    "a signal that is no JSON": (lambda e: e.get("there").signal("go", {1, object()}), NotEncodable, "signal"),
    "a signal too large": (lambda e: e.get("there").signal("go", "x" * LIMIT), TooLarge, "2,000"),
    "a signal's bad request id": (lambda e: e.get("there").signal("go", request_id="ü"), BadId, "request id"),
    "a reason of half a character": (lambda e: e.get("there").cancel("\ud800"), BadCall, "reason"),
    "a duration": (lambda e: e.get("there").result("soon"), BadDuration, "soon"),
    "a duration below nothing": (lambda e: e.get("there").result(-1), BadDuration, "-1"),
    "a retry of what moves": (lambda e: e.retry("there"), WrongState, "not ended"),
    "a retry of nobody": (lambda e: e.retry("nobody"), UnknownRun, "nobody"),
    "a fork at no fact": (lambda e: e.fork("there", at=99), WrongState, "99"),
    "a fork at what is no number": (lambda e: e.fork("there", at="1"), WrongState, "at 1"),
    "a fork into a run": (lambda e: e.fork("there", at=1, id="there"), IdInUse, "there"),
    "a word on what needs none": (lambda e: e.resolve("there", "keep#1", "retry"), WrongState, "there"),
    "a word that there is not": (lambda e: e.resolve("there", "keep#1", "perhaps"), BadCall, "perhaps"),
    "a look at nobody": (lambda e: e.get("nobody").state(), UnknownRun, "nobody"),
    "an audit of nobody": (lambda e: e.verify("nobody"), UnknownRun, "nobody"),
    "a status that there is not": (lambda e: listed(e.runs(status="asleep")), BadCall, "asleep"),
    "a limit that is none": (lambda e: listed(e.runs(limit="all")), BadCall, "limit"),
}


async def listed(rows: Any) -> list[Any]:
    return [row async for row in rows]


async def written(asker: Any) -> tuple[Any, ...]:
    """All that a store holds, in figures, and the state of the one run."""
    sizes = await asker.store.sizes()
    return (
        {name: count for name, count in sizes.items() if name not in {"file_bytes", "wal_bytes"}},
        (await asker.row("there")).seq,
        [row.no for row in await asker.store.inbox(0, 100)],
    )


@pytest.mark.parametrize("asker", ["engine", "client"])
async def test_each_bad_call_is_one_clear_error_and_writes_nothing(asker: str) -> None:
    """Goal: whoever asks, the error is of its kind, names what was wrong, and the store is as it was."""
    async with perdure.open(ADDRESS, workflows=[buy], payload_max=LIMIT) as engine:
        await engine.start(buy, GOOD, id="there")
    opened = perdure.open if asker == "engine" else perdure.connect
    async with opened(ADDRESS, workflows=[buy], payload_max=LIMIT) as asked:
        before = await written(asked)
        wrong = []
        for name, (call, kind, said) in BAD.items():
            try:
                with pytest.raises(kind, match=said):
                    await call(asked)
                assert await written(asked) == before, "something was written"
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - all that is wrong is told at once
                wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
                before = await written(asked)
        assert not wrong, "\n" + "\n".join(wrong)
        await asked.get("there").signal("go")


# --- stores ------------------------------------------------------------------------------------------


async def opened(address: str, **settings: Any) -> None:
    async with perdure.open(address, workflows=[buy], **settings):
        pass


async def connected(address: str, **settings: Any) -> None:
    async with perdure.connect(address, workflows=[buy], **settings) as client:
        await client.start(buy, GOOD)


@pytest.mark.parametrize("enter", [opened, connected])
async def test_a_bad_store_is_one_clear_error_and_stays_as_it_was(enter: Any, tmp_path: Path) -> None:
    """Goal: a wrong address or file is named with the way out, and no file is changed or made for it."""
    other, text, newer = tmp_path / "other.db", tmp_path / "text.db", tmp_path / "newer.db"
    foreign(other), text.write_text("no database at all, but long enough to look like one " * 40)
    await opened(f"sqlite:///{newer}")
    raise_version(newer)
    cases: list[tuple[str, type[PerdureError], str]] = [
        ("mysql://host/db", NotAStore, "sqlite:///FILE"),
        ("sqlite://relative.db", NotAStore, "sqlite:///"),
        ("", NotAStore, "sqlite:///"),
        (f"sqlite:///{other}", NotAStore, "other.db"),
        (f"sqlite:///{text}", NotAStore, "text.db"),
        (f"sqlite:///{newer}", StoreNewer, "upgrade"),
        (f"sqlite:///{tmp_path}/no/such/folder.db", StoreUnavailable, "folder"),
        (f"sqlite:///{tmp_path}", NotAStore, f"{tmp_path.name} is no file but a folder"),
        (f"sqlite:///{tmp_path}/pipe.db", NotAStore, "is no file"),
        ("sqlite:///", NotAStore, "sqlite:///FILE"),
        (f"sqlite:///{tmp_path}/x.db?mode=ro", NotAStore, r"x.db\?mode=ro': an address has no part after a `\?`"),
        (tmp_path / "path.db", NotAStore, "an address is a text"),
    ]
    os.mkfifo(tmp_path / "pipe.db")
    held = contents(tmp_path)
    for address, kind, said in cases:
        with pytest.raises(kind, match=said):
            await enter(address)
    assert contents(tmp_path) == held


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("async_max", "abc", "a whole number from 1 to 100,000"),
        ("async_max", "0", "a whole number from 1 to 100,000"),
        ("payload_max", "1.5", "a whole number from 1,024 to 1,073,741,824"),
        ("block_max_s", "nan", "a number from 0.05 to 3,600"),
        ("audit_open", "maybe", "true or false"),
        ("durability", "hardly", '"full" or "relaxed"'),
    ],
)
def test_a_bad_setting_names_who_said_it_the_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    """Goal: a variable is named as it stands in the environment, an argument as the setting it is."""
    for said, environment, given in (
        (f"PERDURE_{name.upper()}", {f"PERDURE_{name.upper()}": value}, {}),
        (f"setting {name}", {}, {name: value}),
    ):
        with pytest.raises(BadCall) as bad:
            Settings.from_environment(environment, **given)
        assert str(bad.value) == f"{said}={value!r} is not allowed: it takes {allowed}"
    assert (
        Settings.from_environment({f"PERDURE_{name.upper()}": value}, **{name: getattr(Settings(), name)}) == Settings()
    )


def test_a_bad_store_in_the_environment_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: who did not write the address is told where it comes from."""
    monkeypatch.setenv("PERDURE_STORE", "mysql://host/db")
    with pytest.raises(NotAStore, match=r"^PERDURE_STORE: store 'mysql"):
        store_address()
    assert store_address("sqlite:///a.db") == "sqlite:///a.db"


async def test_a_bad_setting_or_workflow_is_told_before_a_store_is_made(tmp_path: Path) -> None:
    """Goal: what can be known before the store is opened is told before a file is there."""
    for settings in ({"payload_max": -1}, {"colour": "red"}, {"durability": "hardly"}, {"queue_max": "many"}):
        with pytest.raises(BadCall, match=next(iter(settings))):
            await opened(ADDRESS, **settings)
    with pytest.raises(PerdureError, match="takes workflows and modules"):
        perdure.open(ADDRESS, workflows=[keep])
    with pytest.raises(PerdureError, match="takes a list of workflows"):
        perdure.open(ADDRESS, workflows=buy)  # type: ignore[arg-type]
    with pytest.raises(NotAStore, match="ends with its program"):
        await opened_client("memory:")
    with pytest.raises(BadCall, match="takes a workflow"):
        await perdure.arun(keep, GOOD)  # type: ignore[arg-type]
    with pytest.raises(BadArgument):
        await perdure.arun(buy, 7)
    with pytest.raises(BadId):
        await perdure.arun(buy, GOOD, id="a/b")
    assert contents(tmp_path) == {}


NOBODY = """
import asyncio, os, sys
import perdure

async def main():
    async with getattr(perdure, sys.argv[1])("sqlite:///s.db"):
        pass

os.geteuid() or os.seteuid(65534)  # root may write what is read-only
os.chdir(sys.argv[2])
try:
    asyncio.run(main())
except perdure.PerdureError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("door", ["open", "connect"])
def test_a_read_only_file_is_named(door: str) -> None:
    """Goal: a file that cannot be written is refused with its name, and left as it was."""
    asyncio.run(opened(ADDRESS))
    with tempfile.TemporaryDirectory() as name:  # which, unlike those of the tests, anybody may look into
        folder = Path(name)
        for file in ("s.db", "s.db.mark", "s.db.lock"):
            shutil.copy(file, folder)
            (folder / file).chmod(0o444)
        folder.chmod(0o555)
        before = contents(folder)
        command = [sys.executable, "-c", NOBODY, door, name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        assert done.stdout.startswith("StoreUnavailable ")
        assert "s.db" in done.stdout
        assert contents(folder) == before
        folder.chmod(0o755)


async def opened_client(address: str) -> None:
    async with perdure.connect(address):
        pass


def contents(folder: Path) -> dict[str, bytes]:
    """The database files of a folder."""
    return {
        path.name: path.read_bytes()
        for path in folder.glob("*.db*")
        if path.is_file() and not path.name.endswith((".lock", "-shm"))
    }


def foreign(path: Path) -> None:
    import sqlite3

    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()


def raise_version(path: Path) -> None:
    import sqlite3

    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 999")
    database.close()
