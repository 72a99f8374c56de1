"""`edgevit db sql`: one question to the database, that reads and cannot write, whatever it says."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine

from edgevit.errors import StoreError, UsageError
from edgevit.store.connect import describe, storing
from edgevit.store.foreign_database import read_only

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_READS = ("select", "with", "values", "explain", "table", "show")
_FIX = "ask with SELECT; rows are added by profile, sweep, import and merge"


class Answer(NamedTuple):
    """Names of columns, and lines."""

    columns: tuple[str, ...]
    lines: list[tuple[Any, ...]]


def ask(engine: Engine, sql: str, limit: int) -> Answer:
    """The first `limit` lines of one statement that reads. Raises UsageError for one that would write, or is wrong."""
    first = re.match(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*([a-z]+)", sql, re.IGNORECASE | re.DOTALL)
    if first is None or first[1].lower() not in _READS:
        raise UsageError("that is no question", why="only statements that read are taken", fix=_FIX)
    if engine.url.get_backend_name() == "sqlite":
        return _of_sqlite(engine, sql, limit)
    return _of_postgres(engine, sql, limit)


def _of_sqlite(engine: Engine, sql: str, limit: int) -> Answer:
    """A connection that opens the file for reading only, and lets a statement do nothing but select and compute."""
    reader = read_only(Path(str(engine.url.database)))
    try:
        with storing(engine.url), closing(reader.raw_connection()) as pooled:
            connection = pooled.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            connection.set_authorizer(_authorize)
            try:
                cursor = connection.execute(sql)
                return Answer(tuple(item[0] for item in cursor.description or ()), cursor.fetchmany(limit))
            except (sqlite3.Error, sqlite3.Warning) as error:  # Warning: more than one statement, before 3.12
                raise _refused(engine, error) from error
    finally:
        reader.dispose()


def _authorize(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _of_postgres(engine: Engine, sql: str, limit: int) -> Answer:
    """A transaction that may only read and is always taken back; prepared, so that it is one statement."""
    import psycopg

    with storing(engine.url):
        pooled = engine.raw_connection()
    try:
        connection: Any = pooled.driver_connection
        connection.read_only = True
        try:
            cursor = connection.execute(sql, prepare=True)
            columns = tuple(item.name for item in cursor.description or ())
            return Answer(columns, cursor.fetchmany(limit) if columns else [])
        except psycopg.Error as error:
            raise _refused(engine, error) from error
        finally:
            connection.rollback()
            connection.read_only = None
    finally:
        pooled.close()


def _refused(engine: Engine, error: Exception) -> StoreError | UsageError:
    why = str(error).strip() or type(error).__name__
    return UsageError("the question cannot be answered", where=describe(engine.url), why=why, fix=_FIX)


def as_lines(answer: Answer) -> Iterator[dict[str, Any]]:
    """Lines as JSON objects; bytes as hex."""
    for line in answer.lines:
        values = (item.hex() if isinstance(item, bytes) else item for item in line)
        yield dict(zip(answer.columns, values, strict=True))
