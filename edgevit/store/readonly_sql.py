"""`edgevit db sql`: one SQL statement that reads. The database refuses every statement that writes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine

from edgevit.errors import StoreError, UsageError
from edgevit.store.connect import describe, translate_errors
from edgevit.store.foreign_database import read_only

_ALLOWED_ACTIONS = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE
}  # fmt: skip
_READING_KEYWORDS = ("select", "with", "values", "explain", "table", "show")
_FIX = "ask with SELECT; rows are added by profile, sweep, import and merge"


class QueryResult(NamedTuple):
    """Result of a statement: the names of its columns, and its rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def run_query(engine: Engine, sql: str, limit: int) -> QueryResult:
    """Return the first `limit` rows of a statement that reads. Raises UsageError for one that writes, or is wrong."""
    keyword = re.match(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*([a-z]+)", sql, re.IGNORECASE | re.DOTALL)
    if keyword is None or keyword[1].lower() not in _READING_KEYWORDS:
        raise UsageError("that is no question", why="only statements that read are taken", fix=_FIX)
    if engine.url.get_backend_name() == "sqlite":
        return _query_sqlite(engine, sql, limit)
    return _query_postgres(engine, sql, limit)


def _query_sqlite(engine: Engine, sql: str, limit: int) -> QueryResult:
    """Run a statement on a connection that opens the file for reading, and only selects and computes."""
    reader = read_only(Path(str(engine.url.database)))
    try:
        with translate_errors(engine.url), closing(reader.raw_connection()) as pooled:
            connection = pooled.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            connection.set_authorizer(_authorize)
            try:
                cursor = connection.execute(sql)
                columns = tuple(column[0] for column in cursor.description or ())
                return QueryResult(columns, cursor.fetchmany(limit))
            # Warning: more than one statement, before Python 3.12
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise _query_error(engine, error) from error
    finally:
        reader.dispose()


def _authorize(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY


def _query_postgres(engine: Engine, sql: str, limit: int) -> QueryResult:
    """Run a statement in a transaction that only reads and is rolled back; prepared, so that it is one statement."""
    import psycopg

    with translate_errors(engine.url):
        pooled = engine.raw_connection()
    try:
        connection: Any = pooled.driver_connection
        connection.read_only = True
        try:
            cursor = connection.execute(sql, prepare=True)
            columns = tuple(column.name for column in cursor.description or ())
            return QueryResult(columns, cursor.fetchmany(limit) if columns else [])
        except psycopg.Error as error:
            raise _query_error(engine, error) from error
        finally:
            connection.rollback()
            connection.read_only = None
    finally:
        pooled.close()


def _query_error(engine: Engine, error: Exception) -> StoreError | UsageError:
    why = str(error).strip() or type(error).__name__
    return UsageError("the question cannot be answered", where=describe(engine.url), why=why, fix=_FIX)


def as_dicts(result: QueryResult) -> Iterator[dict[str, Any]]:
    """Yield rows as JSON objects; bytes become hex."""
    for row in result.rows:
        values = (value.hex() if isinstance(value, bytes) else value for value in row)
        yield dict(zip(result.columns, values, strict=True))
