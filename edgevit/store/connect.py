"""Connections: which database to open, how it is made safe, and what its errors mean to a user."""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from edgevit.concurrency.lock_file import without_password
from edgevit.errors import StoreError

_LOG = logging.getLogger(__name__)
# SQLite lets waiting writers retry in no order: of 16 writers, one may wait for long.
BUSY_SECONDS = 120
_ROOM_BYTES = 256 * 1024  # of a row with thousands of samples, and of the pages that its transaction changes
# Execution option of a connection that is going to write.
WRITE = {"edgevit_write": True}
# Up to SQLite 3.51.2 a reset of the write-ahead log can corrupt the file, and Debian 12 has 3.40.
_SAFE_WAL_VERSION = (3, 51, 3)
# trusted_schema=OFF: a view or trigger in a received file may not call functions with side effects.
# cell_size_check=ON: a page whose entries overlap is refused when it is read, not when it has done harm.
# cache_size: KiB. A large import touches the whole of three indexes, and reads pages again and again without.
PRAGMAS = (
    "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF", "cell_size_check=ON", "cache_size=-65536",
)  # fmt: skip
POSTGRES = "postgresql"
# Number of edgevit's writers among the advisory locks of a database: "edgevi" in ASCII.
_POSTGRES_LOCK = 0x656467657669


def journal_mode(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """Return the journal that a version of SQLite keeps safely: the write-ahead log only from 3.51.3 on."""
    return "WAL" if version >= _SAFE_WAL_VERSION else "DELETE"


class _Cause(NamedTuple):
    """A cause of a driver's error, and its remedy."""

    why: str
    fix: str


_RESCUE = "save what is whole: edgevit db merge FILE --db NEW; what that cannot read: sqlite3 FILE .recover"
_NOT_A_DATABASE = _Cause("the file is no SQLite database", "name another file with --db, or move this one away")
_DAMAGED = _Cause("the database is damaged", _RESCUE)
_DISK_ERROR = _Cause("the disk did not read or write", "check the disk, then: sqlite3 FILE 'PRAGMA integrity_check'")
_NO_FOLDER = _Cause("the folder is missing or not writable", "make the folder, or name another file with --db")
_NOT_READABLE = _Cause("the file exists, and may not be read", "chmod u+rw it, or name another file with --db")
_READ_ONLY = _Cause("the file or its folder is not writable", "chmod u+w it, or name another file with --db")
_LOCKED = _Cause(f"another program held it for {BUSY_SECONDS} s", "end the other program, then try again")
_DEADLOCK = _Cause("other programs hold what this one needs", "try again")
_LOGIN = _Cause("the server wants another user or password", "write postgresql://USER:PASSWORD@HOST/DATABASE")
_NO_ROLE = _Cause("the server knows no such user", "write postgresql://USER@HOST/DATABASE")
_NO_DATABASE = _Cause("the server has no such database", "createdb NAME, or name another one with --db")
_UNREACHABLE = _Cause("the server cannot be reached", "start it, or correct host and port of --db")
_NOT_PERMITTED = _Cause("the user may not do that", "grant it: GRANT ALL ON SCHEMA public TO USER")
_DISK_FULL = _Cause("the disk is full", "free some space, then try again")
_DISK_TAKES_NOTHING = _Cause(
    "the disk did not take what was written: it is full, a quota is used up, or it fails",
    "free some space, then try again; else check the disk",
)
_UNKNOWN_FIX = "name another database with --db"
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_NOTADB: _NOT_A_DATABASE,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_IOERR: _DISK_ERROR,
    sqlite3.SQLITE_CANTOPEN: _NO_FOLDER,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: _DISK_FULL,
}
# The write-ahead log has a file of its own that may not fit, and SQLite calls a full disk so only without a quota.
_BY_EXTENDED_CODE = {
    sqlite3.SQLITE_IOERR_SHMSIZE: _DISK_FULL,
    sqlite3.SQLITE_IOERR_WRITE: _DISK_TAKES_NOTHING,
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_SQLSTATE = {
    "25006": _READ_ONLY,
    "28000": _NO_ROLE,
    "28P01": _LOGIN,
    "3D000": _NO_DATABASE,
    "40P01": _DEADLOCK,
    "42501": _NOT_PERMITTED,
    "53100": _DISK_FULL,
    "55P03": _LOCKED,
}
_FAILURES_OF_POSTGRES = {"40P01", "53100", "55P03"}
_BY_ERRNO = {
    errno.EACCES: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.ENOENT: _NO_FOLDER,
    errno.EROFS: _READ_ONLY,
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EFBIG: _DISK_FULL,
}
# The drivers give no code for a login that failed, and for text that is not UTF-8.
_BY_TEXT = (
    ("decode", _DAMAGED),
    ("password", _LOGIN),
    ("role", _NO_ROLE),
    ('" does not exist', _NO_DATABASE),
    ("connection", _UNREACHABLE),
)


def database_url(url: str | None = None) -> URL:
    """Return the database to open: the argument, else EDGEVIT_DB, else a file in the user's data folder.

    A text without "://" is the path of an SQLite file. Raises StoreError for a URL that cannot be read.
    """
    text = url or os.environ.get("EDGEVIT_DB")
    if not text:
        folder = platformdirs.user_data_path("edgevit", appauthor=False)
        with _translate_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        return URL.create("sqlite", database=str(folder / "latency.db"))
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        address = make_url(text)
    # ValueError: a port that is no number
    except (SQLAlchemyError, ValueError) as error:
        fix = "write sqlite:///path/to/file.db, the path alone, or postgresql://USER@HOST/DATABASE"
        where = without_password(re.sub("://.*@", "://***@", text))
        raise StoreError("not the URL of a database", where=where, why=str(error), fix=fix) from error
    # SQLAlchemy's own default is another driver, which we do not test.
    return address.set(drivername=f"{POSTGRES}+psycopg") if address.drivername in (POSTGRES, "postgres") else address


def has_own_database() -> bool:
    """Return whether EDGEVIT_DB, or the user's data folder, has a database already."""
    try:
        url = database_url()
    # Without such a folder there is none.
    except StoreError:
        return False
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).is_file()


def require_file(url: URL) -> None:
    """Raise StoreError where the URL is of an SQLite file that does not exist, with files of nearly that name."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return
    path = Path(url.database)
    if path.exists():
        return
    beside = sorted(other.name for other in path.parent.glob("*") if other.is_file()) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=3) or [name for name in beside if name.endswith(path.suffix)]
    why = f"beside it are {', '.join(near[:3])}" if near else "no file of its kind is beside it"
    fix = "name an existing file with --db; edgevit profile and sweep make a new one"
    raise StoreError("there is no such database", where=str(path), why=why, fix=fix)


def require_room(url: URL) -> None:
    """Raise StoreError where the disk of an SQLite file has no room for a row with its journal."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return
    # It has no name, so that nothing is left of it whatever happens. What the system says is free may be under a quota.
    with translate_errors(url), tempfile.TemporaryFile(dir=Path(url.database).parent) as file:
        file.write(bytes(_ROOM_BYTES))
        file.flush()


def create(url: URL) -> Engine:
    """Create an engine for this database; nothing is opened yet. Raises StoreError where no driver is installed."""
    backend = url.get_backend_name()
    arguments: dict[str, Any] = {}
    if backend == "sqlite":
        # isolation_level=None stops the driver from sending BEGIN at moments of its own; _begin below sends it.
        arguments = {"timeout": BUSY_SECONDS, "isolation_level": None}
    try:
        with translate_errors(url):
            engine = create_engine(url, connect_args=arguments)
    except ImportError as error:
        package = error.name or url.get_driver_name()
        fix = "pip install 'edgevit[postgres]'" if package == "psycopg" else f"pip install {package}"
        raise StoreError("no driver for this kind of database", where=describe(url), why=str(error), fix=fix) from error
    if backend == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin)
    else:
        event.listen(engine, "begin", _begin_on_server)
    return engine


def describe(url: URL) -> str:
    """Return the database as a message may show it: the path of an SQLite file, or the URL without its password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    secrets = {name: "***" for name in url.query if "password" in name.lower()}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


@contextmanager
def translate_errors(url: URL) -> Iterator[None]:
    """Turn errors of the driver into a StoreError with the location, the cause and the remedy."""
    is_file = url.drivername.startswith("sqlite") and url.database
    with _translate_errors(describe(url), Path(str(url.database)) if is_file else None):
        yield


@contextmanager
def _translate_errors(location: str, file: Path | None = None) -> Iterator[None]:
    try:
        yield
    # UnicodeDecodeError: of a message that quotes a damaged schema
    except (SQLAlchemyError, OSError, UnicodeDecodeError) as error:
        message = str(getattr(error, "orig", None) or error)
        cause = _NOT_READABLE if file and _is_unreadable(file) else _cause_of(error, message)
        _LOG.debug("%s: %s", location, message)
        if cause is not None:
            raise StoreError(
                f"the latency database: {message}", where=location, why=cause.why, fix=cause.fix
            ) from error
        raise StoreError(
            "the latency database cannot be used", where=location, why=message, fix=_UNKNOWN_FIX
        ) from error


def _is_unreadable(file: Path) -> bool:
    try:
        return file.is_file() and not os.access(file, os.R_OK)
    except OSError:  # its folder may not be entered
        return False


def _cause_of(error: Exception, message: str) -> _Cause | None:
    """Return the cause that a driver's error code stands for, else the one its text names; None: unknown."""
    driver_error = getattr(error, "orig", None) or error
    # An extended result code of SQLite has its primary code in the lowest byte.
    sqlite_code = getattr(driver_error, "sqlite_errorcode", None)
    if sqlite_code in _BY_EXTENDED_CODE:
        return _BY_EXTENDED_CODE[sqlite_code]
    if sqlite_code is not None and sqlite_code & 0xFF in _BY_SQLITE_CODE:
        return _BY_SQLITE_CODE[sqlite_code & 0xFF]
    if (sqlstate := getattr(driver_error, "sqlstate", None)) in _BY_SQLSTATE:
        return _BY_SQLSTATE[sqlstate]
    if isinstance(driver_error, OSError) and driver_error.errno in _BY_ERRNO:
        return _BY_ERRNO[driver_error.errno]
    return next((cause for sign, cause in _BY_TEXT if sign in message.lower()), None)


def is_failure_of_database(error: Exception) -> bool:
    """Return whether a driver's error is of the database, and not of the statement: damage, a lock, a full disk."""
    if getattr(error, "sqlstate", None) in _FAILURES_OF_POSTGRES:
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _BY_SQLITE_CODE.keys() - {sqlite3.SQLITE_READONLY}


def _configure_sqlite(connection: Any, _record: object) -> None:
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
    """Begin a transaction on PostgreSQL: one writer at a time, as on SQLite, and readers see one moment.

    Two imports that add the same rows in another order would otherwise wait for each other, and one would fail. A
    reader that compares rows with their partition checksum needs both as they were at one moment.
    """
    if connection.get_execution_options().get("edgevit_write", False):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
