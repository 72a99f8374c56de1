"""Reaching the database: which one, how it is made safe, and what its errors mean to a user."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from edgevit.errors import StoreError

BUSY_SECONDS = 120  # SQLite lets those who wait try again in no order: of 16 writers one may wait for long
WRITE = {"edgevit_write": True}  # execution option of a connection that is going to write
# Up to SQLite 3.51.2 a reset of the write-ahead log can corrupt the file, and Debian 12 has 3.40.
_WAL_IS_SAFE = (3, 51, 3)
# trusted_schema=OFF: a view or trigger in a file that somebody sent may not call functions with side effects.
# cell_size_check=ON: a page whose entries overlap is refused when it is read, not when it has done harm.
# cache_size: KiB. A large import touches the whole of three indexes, and reads pages again and again without.
PRAGMAS = (
    "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF", "cell_size_check=ON", "cache_size=-65536",
)  # fmt: skip
POSTGRES = "postgresql"
_POSTGRES_LOCK = 0x656467657669  # of edgevit's writers among the advisory locks of a database: "edgevi"


def journal_mode(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """The journal that a version of SQLite keeps safely: a rollback journal, from 3.51.3 on the write-ahead log."""
    return "WAL" if version >= _WAL_IS_SAFE else "DELETE"


_RESCUE = "save what is whole: edgevit db merge FILE --db NEW; what that cannot read: sqlite3 FILE .recover"
# (what the driver says, why, what mends it)
_MEANINGS = (
    ("not a database", "the file is no SQLite database", "name another file with --db, or move this one away"),
    ("malformed", "the database is damaged", _RESCUE),
    ("decode", "the database is damaged", _RESCUE),
    ("disk i/o error", "the disk did not read or write", "check the disk, then: sqlite3 FILE 'PRAGMA integrity_check'"),
    ("unable to open", "the folder is missing or not writable", "make the folder, or name another file with --db"),
    ("readonly", "the file or its folder is not writable", "chmod u+w it, or name another file with --db"),
    ("read-only", "the file or its folder is not writable", "chmod u+w it, or name another file with --db"),
    ("locked", f"another program held it for {BUSY_SECONDS} s", "end the other program, then try again"),
    ("lock timeout", f"another program held it for {BUSY_SECONDS} s", "end the other program, then try again"),
    ("deadlock", "other programs hold what this one needs", "try again"),
    ("password", "the server wants another user or password", "write postgresql://USER:PASSWORD@HOST/DATABASE"),
    ("role", "the server knows no such user", "write postgresql://USER@HOST/DATABASE"),
    ('" does not exist', "the server has no such database", "createdb NAME, or name another one with --db"),
    ("connection", "the server cannot be reached", "start it, or correct host and port of --db"),
    ("permission denied", "the user may not do that", "grant it: GRANT ALL ON SCHEMA public TO USER"),
    ("full", "the disk is full", "free some space, then try again"),
)


def database_url(url: str | None = None) -> URL:
    """The database to open: the argument, else the environment's EDGEVIT_DB, else a file in the user's data folder.

    A text without "://" is the path of an SQLite file. Raises StoreError for a URL that cannot be read.
    """
    text = url or os.environ.get("EDGEVIT_DB")
    if not text:
        folder = platformdirs.user_data_path("edgevit", appauthor=False)
        with _storing(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        return URL.create("sqlite", database=str(folder / "latency.db"))
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        address = make_url(text)
    except (SQLAlchemyError, ValueError) as error:  # ValueError: a port that is no number
        fix = "write sqlite:///path/to/file.db, the path alone, or postgresql://USER@HOST/DATABASE"
        raise StoreError(
            "not the URL of a database", where=re.sub("://.*@", "://***@", text), why=str(error), fix=fix
        ) from error
    # SQLAlchemy's own default is another driver, which we do not test.
    return address.set(drivername=f"{POSTGRES}+psycopg") if address.drivername in (POSTGRES, "postgres") else address


def create(url: URL) -> Engine:
    """An engine for this database; nothing is opened yet. Raises StoreError where no driver is installed."""
    backend = url.get_backend_name()
    arguments: dict[str, Any] = {}
    if backend == "sqlite":
        # isolation_level=None stops the driver from sending BEGIN at moments of its own; _begin below sends it.
        arguments = {"timeout": BUSY_SECONDS, "isolation_level": None}
    try:
        with storing(url):
            engine = create_engine(url, connect_args=arguments)
    except ImportError as error:
        package = error.name or url.get_driver_name()
        fix = "pip install 'edgevit[postgres]'" if package == "psycopg" else f"pip install {package}"
        raise StoreError("no driver for this kind of database", where=describe(url), why=str(error), fix=fix) from error
    if backend == "sqlite":
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    else:
        event.listen(engine, "begin", _begin_on_server)
    return engine


def describe(url: URL) -> str:
    """The database as a message may show it: an SQLite file's path, or the URL without its password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.render_as_string(hide_password=True)


@contextmanager
def storing(url: URL) -> Iterator[None]:
    """Turn what the driver raises into a StoreError that says where, why and what to do."""
    with _storing(describe(url)):
        yield


@contextmanager
def _storing(where: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError, UnicodeDecodeError) as error:  # of a message that quotes a damaged schema
        said = str(getattr(error, "orig", None) or error)
        for sign, why, fix in _MEANINGS:
            if sign in said.lower():
                raise StoreError(f"the latency database: {said}", where=where, why=why, fix=fix) from error
        fix = "name another database with --db"
        raise StoreError("the latency database cannot be used", where=where, why=said, fix=fix) from error


def _set_up(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        for pragma in (f"journal_mode={journal_mode()}", *PRAGMAS):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes can fail at once, without waiting, when another process writes in
    # between (13,013 times in 3,200 transactions here). IMMEDIATE takes the write lock at the start, where it may wait.
    write = connection.get_execution_options().get("edgevit_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _begin_on_server(connection: Connection) -> None:
    """One writer at a time, as on SQLite; a reader sees one moment of the whole database.

    Two imports that add the same lines in another order would otherwise wait for each other, and one of them fail. A
    reader that holds rows against their tally needs both as they were at one moment.
    """
    if connection.get_execution_options().get("edgevit_write", False):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
