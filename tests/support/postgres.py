"""A PostgreSQL server for tests: Debian's programs, a private folder, a Unix socket in it, an unprivileged user."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from support.speed import seconds

# PostgreSQL refuses to run as root. Where the tests do, it runs as the first of these users.
UNPRIVILEGED = ("postgres", "nobody")
START_S = 60
# A file system in memory, where Linux has one. Copies of a database cost a tenth there; each is 8 MB.
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4_000_000_000
# Older databases than these belong to tests that have ended.
KEPT = 100


def programs() -> Path | None:
    """Return the folder with initdb and postgres of the newest version, or None without PostgreSQL."""
    initdbs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if initdbs:
        return initdbs[-1].parent
    other = shutil.which("initdb")
    return Path(other).resolve().parent if other else None


class Server:
    """A server that ends with the tests. `database()` makes a new database and returns its URL."""

    def __init__(self) -> None:
        folder = programs()
        if folder is None:
            raise RuntimeError("no PostgreSQL: make system")
        self.home = Path(tempfile.mkdtemp(prefix="edgevit-pg-", dir=_folder()))
        self._names: list[str] = []
        self._as: dict[str, Any] = _unprivileged(self.home)
        data = self.home / "data"
        command = [folder / "initdb", "-D", data, "-U", "edgevit", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, cwd=self.home, **self._as)
        # fsync=off: tests end clients, never the server or the machine, and no client can tell the difference.
        settings = {"listen_addresses": "", "unix_socket_directories": self.home, "max_connections": 60, "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [folder / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=self.home, **self._as
            )
        atexit.register(self.stop)
        self._await()

    def url(self, name: str) -> str:
        """Return the URL of an existing database."""
        return f"postgresql://edgevit@/{name}?host={self.home}"

    def database(self, *, empty: bool = True) -> str:
        """Create a database, empty or with edgevit's tables, and return its URL."""
        return self._copy("template0" if empty else self._with_tables())

    def copy(self, url: str) -> str:
        """Create a database with the content of another, which has no client now, and return its URL."""
        return self._copy(url.partition("@/")[2].partition("?")[0])

    def _copy(self, template: str) -> str:
        name = f"t{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}{self._strategy()}")
        self._names.append(name)
        if len(self._names) > KEPT:
            self.execute(f"DROP DATABASE {self._names.pop(0)}")
        return self.url(name)

    @cache  # noqa: B019 (one server per process)
    def _strategy(self) -> str:
        """Return the quicker way to copy a small database without fsync. Before version 15 it was the only one."""
        import psycopg

        with psycopg.connect(self.url("postgres")) as connection:
            return " STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""

    @cache  # noqa: B019 (one server per process)
    def _with_tables(self) -> str:
        from edgevit.store import LatencyDB

        self.execute("CREATE DATABASE with_tables TEMPLATE template0")
        LatencyDB.open(self.url("with_tables"), shipped=False).close()
        return "with_tables"

    def execute(self, statement: str) -> None:
        """Execute one statement outside of any transaction."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def stop(self) -> None:
        """End the server and remove its folder."""
        # PostgreSQL's "smart" shutdown: it waits for clients.
        self.process.terminate()
        try:
            self.process.wait(seconds(5))
        except subprocess.TimeoutExpired:
            # SIGQUIT ends it at once.
            self.process.send_signal(3)
            self.process.wait(seconds(20))
        shutil.rmtree(self.home, ignore_errors=True)

    def _await(self) -> None:
        import psycopg

        end = time.monotonic() + seconds(START_S)
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((self.home / "log").read_text()[-2000:]) from None
                time.sleep(0.05)


def _folder() -> Path | None:
    """Return the folder in memory if it has room for several servers, else None: the usual one."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES else None


def _unprivileged(home: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    entries = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = next(entries[name] for name in UNPRIVILEGED if name in entries)
    os.chown(home, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@cache
def server() -> Server:
    """Return the server of this process, which the first call starts."""
    return Server()
