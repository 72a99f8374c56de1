"""Reaching the database: which one, how SQLite is made safe, and what its errors mean to a user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from edgevit.errors import StoreError

BUSY_SECONDS = 30
WRITE = {"edgevit_write": True}  # execution option of a connection that is going to write

# No WAL: up to SQLite 3.51.2 a reset of the WAL can corrupt the file, and Debian 12 has 3.40.
# trusted_schema=OFF: a view or trigger in a file that somebody sent may not call functions with side effects.
PRAGMAS = ("journal_mode=DELETE", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF")

# (what the driver says, why, what mends it)
_MEANINGS = (
    ("not a database", "the file is no SQLite database", "name another file with --db, or move this one away"),
    ("malformed", "the database is damaged", "rescue what can be read: sqlite3 FILE .recover | sqlite3 NEW"),
    ("disk i/o error", "the disk did not read or write", "check the disk, then: sqlite3 FILE 'PRAGMA integrity_check'"),
    ("unable to open", "the folder is missing or not writable", "make the folder, or name another file with --db"),
    ("readonly", "the file or its folder is not writable", "chmod u+w it, or name another file with --db"),
    ("read-only", "the file or its folder is not writable", "chmod u+w it, or name another file with --db"),
    ("locked", f"another program held it for {BUSY_SECONDS} s", "end the other program, then try again"),
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
        return make_url(text)
    except (SQLAlchemyError, ValueError) as error:  # ValueError: a port that is no number
        fix = "write sqlite:///path/to/file.db, or the path alone"
        raise StoreError(
            "not the URL of a database", where=re.sub("://.*@", "://***@", text), why=str(error), fix=fix
        ) from error


def create(url: URL) -> Engine:
    """An engine for this database; nothing is opened yet. Raises StoreError where no driver is installed."""
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = {}
    if sqlite:
        # isolation_level=None stops the driver from sending BEGIN at moments of its own; _begin below sends it.
        arguments = {"timeout": BUSY_SECONDS, "isolation_level": None}
    try:
        with storing(url):
            engine = create_engine(url, connect_args=arguments)
    except ImportError as error:
        fix = f"pip install {error.name or url.get_driver_name()}"
        raise StoreError("no driver for this kind of database", where=describe(url), why=str(error), fix=fix) from error
    if sqlite:
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
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
    except (SQLAlchemyError, OSError) as error:
        said = str(getattr(error, "orig", None) or error)
        for sign, why, fix in _MEANINGS:
            if sign in said.lower():
                raise StoreError(f"the latency database: {said}", where=where, why=why, fix=fix) from error
        fix = "name another database with --db"
        raise StoreError("the latency database cannot be used", where=where, why=said, fix=fix) from error


def _set_up(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes can fail at once, without waiting, when another process writes in
    # between (13,013 times in 3,200 transactions here). IMMEDIATE takes the write lock at the start, where it may wait.
    write = connection.get_execution_options().get("edgevit_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
