"""The fixtures that bring a PostgreSQL. Loaded by tests/conftest.py, so any test may ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.postgres.proxy import Proxy
from tests.postgres.server import PrivateServer, Server, serving

# Read here: while a test runs, its environment holds no PERDURE_ names.
ASKED = os.environ.get("PERDURE_TEST_POSTGRES")


@pytest.fixture(scope="session")
def _shared_postgres() -> Iterator[Server]:
    """One server for a test process: two workers that shared one would feel each other's crashes."""
    yield from serving(ASKED)


@pytest.fixture(scope="session")
def _owned_postgres(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    shared = None if ASKED and "://" in ASKED else request.getfixturevalue("_shared_postgres")
    if shared is not None:
        yield shared
        return
    server = PrivateServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres(_shared_postgres: Server) -> Iterator[Server]:
    """A PostgreSQL to put stores in; `PERDURE_TEST_POSTGRES` names another one (address, or folder with bin/)."""
    if isinstance(_shared_postgres, PrivateServer):
        _shared_postgres.start()
        yield _shared_postgres
        return
    yield _shared_postgres
    _shared_postgres.forget()  # our own goes as a whole, at the end


@pytest.fixture
def private_postgres(_owned_postgres: PrivateServer) -> Iterator[PrivateServer]:
    """A PostgreSQL that the test may crash, stop and send back in time; it is up again for the next one."""
    _owned_postgres.start()
    yield _owned_postgres
    _owned_postgres.start()


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Proxy]:
    """A proxy in front of `postgres`: `proxy.through(postgres.address())` is a store behind it."""
    with Proxy(postgres.url) as made:
        yield made
