"""The PostgreSQL of the tests: it comes up anywhere, is as durable as the shipped one, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from tests.crash.harness import alive, until
from tests.postgres.server import PrivateServer, Server, installations

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import os, signal, sys
from tests.postgres.server import PrivateServer
server = PrivateServer()
print(server.folder, server.pid, flush=True)
sys.stdin.read()
"""


def test_every_address_is_a_store_of_its_own(postgres: Server) -> None:
    """Goal: two tests, or two stores of one test, never see each other's rows."""
    first, second = postgres.address(), postgres.address(role="reader")
    names = [parse_qs(urlsplit(address).query)["schema"][0] for address in (first, second)]
    assert len(set(names)) == 2
    assert parse_qs(urlsplit(second).query)["role"] == ["reader"]
    assert postgres.execute("SELECT nspname FROM pg_namespace WHERE nspname = ANY($1)", names) == []


def test_a_database_is_fresh_and_forgotten(postgres: Server) -> None:
    """Goal: a test that needs a whole database gets an empty one, and it goes with the test."""
    url = postgres.database()
    postgres.execute("CREATE TABLE mine (id int)", url=url)
    count = "SELECT count(*) FROM pg_database WHERE datname = $1"
    name = urlsplit(url).path[1:]
    assert postgres.execute(count, name) == [(1,)]
    postgres.forget()
    assert postgres.execute(count, name) == [(0,)]


def test_durability_is_as_shipped(private_postgres: PrivateServer) -> None:
    """Goal: what the tests say of commits that survive holds for the settings that users have."""
    asked = ("fsync", "full_page_writes", "synchronous_commit")
    rows = private_postgres.execute("SELECT name, setting, source FROM pg_settings WHERE name = ANY($1)", asked)
    assert sorted(rows) == [(name, "on", "default") for name in asked]


@pytest.mark.slow
async def test_a_crash_keeps_what_was_committed(private_postgres: PrivateServer) -> None:
    """Goal: stop_immediately is a crash: open transactions are lost, committed ones are not, connections are cut."""
    url = private_postgres.database()
    link = await asyncpg.connect(url)
    await link.execute("CREATE TABLE row (n int)")
    await link.execute("INSERT INTO row VALUES (1)")
    await link.execute("BEGIN; INSERT INTO row VALUES (2)")
    before = private_postgres.pid
    private_postgres.stop_immediately()
    assert not private_postgres.is_up
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await link.fetch("SELECT 1")
    private_postgres.start()
    assert private_postgres.pid != before
    assert "not properly shut down" in private_postgres.log
    assert private_postgres.execute("SELECT n FROM row", url=url) == [(1,)]


@pytest.mark.slow
def test_a_server_goes_back_in_time(private_postgres: PrivateServer) -> None:
    """Goal: a failover to an older copy can be shown: commits after the backup are gone."""
    private_postgres.execute("CREATE TABLE back (n int)")
    private_postgres.keep("early")
    private_postgres.execute("INSERT INTO back VALUES (1)")
    private_postgres.go_back("early")
    assert private_postgres.execute("SELECT n FROM back") == []
    private_postgres.execute("DROP TABLE back")


@pytest.mark.slow
def test_a_standby_follows_and_takes_over(private_postgres: PrivateServer) -> None:
    """Goal: a failover with real streaming: the standby reads along, refuses to write, and writes once promoted."""
    with private_postgres.standby("follower") as standby:
        private_postgres.execute("CREATE TABLE followed (n int)")
        until(lambda: standby.execute("SELECT to_regclass('followed')") == [("followed",)], "the standby has it")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            standby.execute("INSERT INTO followed VALUES (1)")
        standby.promote()
        standby.execute("INSERT INTO followed VALUES (1)")
    private_postgres.execute("DROP TABLE followed")


@pytest.mark.slow
@pytest.mark.parametrize("installation", installations(), ids=lambda folder: folder.name)
def test_each_carried_version_runs(installation: Path) -> None:
    """Goal: the oldest and the newest PostgreSQL of the wheel both come up, with settings of the test's."""
    server = PrivateServer(installation, {"fsync": "off"})
    try:
        ((version, fsync),) = server.execute("SELECT current_setting('server_version_num'), current_setting('fsync')")
    finally:
        server.close()
    assert int(version) >= 140000
    assert fsync == "off"
    assert not server.folder.exists()


def test_what_does_not_come_up_says_why() -> None:
    """Goal: a failed start shows the server's own words."""
    with pytest.raises(RuntimeError, match="no_such_setting"):
        PrivateServer(settings={"no_such_setting": "1"})


@pytest.mark.crash
@pytest.mark.parametrize("how", ["end", "terminate", "kill", "interrupt"])
def test_nothing_is_left_however_the_tests_end(how: str) -> None:
    """Goal: no server and no folder outlives the process that started it, not even after SIGKILL."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        folder, pid = child.stdout.readline().split()
        assert alive(int(pid))
        match how:
            case "end":
                child.stdin.close()
            case "terminate":
                child.terminate()
            case "kill":
                child.kill()
            case _:
                os.killpg(child.pid, signal.SIGINT)
        child.wait(60)
    until(lambda: not Path(folder).exists() and not alive(int(pid)), "the guardian cleaned up")
