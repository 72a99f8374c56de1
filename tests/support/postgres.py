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

UNPRIVILEGED = ("postgres", "nobody")  # in whose name it runs where the tests run as root, which it refuses
START_S = 60


def programs() -> Path | None:
    """The folder with initdb and postgres, of the newest version; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    other = shutil.which("initdb")
    return Path(other).resolve().parent if other else None


class Server:
    """A server that ends with the tests. `database()` makes a new database and returns its URL."""

    def __init__(self) -> None:
        folder = programs()
        if folder is None:
            raise RuntimeError("no PostgreSQL: make system")
        self.home = Path(tempfile.mkdtemp(prefix="edgevit-pg-"))
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
        """Of a database there is."""
        return f"postgresql://edgevit@/{name}?host={self.home}"

    def database(self, *, empty: bool = True) -> str:
        """The URL of a new database, empty or with edgevit's tables."""
        name = f"t{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._with_tables()}")
        return self.url(name)

    @cache  # noqa: B019 (one server per process)
    def _with_tables(self) -> str:
        from edgevit.store import LatencyDB

        self.execute("CREATE DATABASE with_tables TEMPLATE template0")
        LatencyDB.open(self.url("with_tables"), shipped=False).close()
        return "with_tables"

    def execute(self, statement: str) -> None:
        """One statement, outside of any transaction."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def stop(self) -> None:
        """End it and remove what it left."""
        self.process.terminate()  # "smart": it waits for clients
        try:
            self.process.wait(seconds(5))
        except subprocess.TimeoutExpired:
            self.process.send_signal(3)  # SIGQUIT: at once
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


def _unprivileged(home: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    known = {item.pw_name: item for item in pwd.getpwall()}
    user = next(known[name] for name in UNPRIVILEGED if name in known)
    os.chown(home, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@cache
def server() -> Server:
    """One per process of the tests, started when it is first asked for."""
    return Server()
