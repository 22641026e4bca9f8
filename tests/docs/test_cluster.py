"""The deployment of compose.yaml, with its very settings, on real servers: what is acknowledged outlives a server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import yaml

from tests.crash.harness import until
from tests.docs.pages import ROOT
from tests.postgres.server import PrivateServer

FURTHEST = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
DEPLOYMENT = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def settings() -> dict[str, str]:
    lines = DEPLOYMENT["configs"]["settings"]["content"].splitlines()
    pairs = (re.fullmatch(r"(\w+) = '?([^']+)'?", line) for line in lines)
    return {pair[1]: pair[2] for pair in pairs if pair}


@pytest.fixture
def servers() -> Iterator[dict[str, PrivateServer]]:
    """The three servers of the deployment: db1 takes the writes, db2 and db3 follow."""
    with ExitStack() as stack:
        db1 = stack.enter_context(PrivateServer(settings=settings()))
        followers = {name: stack.enter_context(db1.standby(name, settings())) for name in ("db2", "db3")}
        db1.execute("CREATE TABLE fact (n int)")
        yield {"db1": db1, **followers}


def facts(server: PrivateServer) -> list[int]:
    return [n for (n,) in server.execute("SELECT n FROM fact ORDER BY n")]


@pytest.mark.slow
def test_an_acknowledged_commit_outlives_the_primary(servers: dict[str, PrivateServer]) -> None:
    """Goal: the failover of the page: the furthest standby has every acknowledged commit, and the other follows it."""
    db1, db2, db3 = servers.values()
    db1.execute("INSERT INTO fact VALUES (1)")
    db3.stop()
    db1.execute("INSERT INTO fact VALUES (2)")  # one copy is enough
    db1.stop_immediately()
    db3.start()
    ((here,),), ((there,),) = db2.execute(FURTHEST), db3.execute(FURTHEST)
    assert here > there
    db2.promote()
    assert facts(db2) == [1, 2]
    db3.follow(db2, "db3")
    db2.execute("INSERT INTO fact VALUES (3)")  # the promoted one waits for a copy too
    until(lambda: facts(db3) == [1, 2, 3], "the other standby follows the new primary")


@pytest.mark.slow
def test_without_a_copy_nothing_is_acknowledged(servers: dict[str, PrivateServer]) -> None:
    """Goal: with no standby left a commit waits; it is answered as soon as one is back."""
    db1, db2, db3 = servers.values()
    db2.stop()
    db3.stop()
    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(db1.execute, "INSERT INTO fact VALUES (1)")
        until(lambda: db1.execute(WAITING) == [(1,)], "the commit waits for a copy")
        assert facts(db1) == []  # and nobody sees it before
        assert not writing.done()
        db2.start()
        writing.result(60)
    assert facts(db1) == [1]


def test_the_page_names_every_setting() -> None:
    """Goal: the page and the deployment say the same."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE))
    assert told == settings()
