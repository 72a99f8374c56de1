"""`edgevit db sql`: one SQL statement that reads. The database refuses every statement that writes.

Columns have different names, and values keep what JSON would change: a Decimal and an infinity are texts.
"""

from __future__ import annotations

import logging
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError

from edgevit.errors import StoreError, UsageError
from edgevit.store.connect import describe, is_failure_of_database, translate_errors
from edgevit.store.foreign_database import read_only

if TYPE_CHECKING:
    import psycopg

_LOG = logging.getLogger(__name__)
_ALLOWED_ACTIONS = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE
}  # fmt: skip
_READING_KEYWORDS = ("select", "with", "values", "explain", "table", "show")
_FIX = "ask with SELECT; rows are added by profile, sweep, import and merge"
# Roles that only read, the preferred one first. The second comes with PostgreSQL 14, and a superuser may take it.
_READING_ROLES = ("edgevit_reader", "pg_read_all_data")
# From PostgreSQL 16 on, a member of a role may be denied to take its place.
_SET_OF_ROLES = 160000
_NOT_PERMITTED = "42501"
# Types that psycopg reads without loss. The server's own text stands for any other value, such as `infinity` of a date
# or `1 mon` of an interval, for which Python has no value.
_LOSSLESS_TYPES = {
    "bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "bytea", "text", "varchar", "bpchar", "name",
}  # fmt: skip


class QueryResult(NamedTuple):
    """Result of a statement: the names of its columns, which are all different, and its rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def run_query(engine: Engine, sql: str, limit: int) -> QueryResult:
    """Return the first `limit` rows of a statement that reads.

    Raises UsageError for one that writes or is wrong, and StoreError where the database itself fails.
    """
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
                columns = distinct_names(column[0] for column in cursor.description or ())
                return QueryResult(columns, cursor.fetchmany(limit))
            # Warning: more than one statement, before Python 3.12
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise _query_error(engine, error) from error
    finally:
        reader.dispose()


def _authorize(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY


def _query_postgres(engine: Engine, sql: str, limit: int) -> QueryResult:
    """Run a statement in a transaction that only reads and is rolled back. The extended protocol takes one only."""
    import psycopg

    with translate_errors(engine.url):
        pooled = engine.raw_connection()
    connection: Any = pooled.driver_connection
    role = None
    try:
        connection.read_only = True
        role = _take_reading_role(connection)
        cursor = connection.cursor()
        _read_without_loss(cursor)
        # The server sends a row at a time, so that a result of any size takes no memory here.
        with closing(cursor.stream(sql)) as rows:
            taken = list(islice(rows, limit))
            columns = distinct_names(column.name for column in cursor.description or ())
        return QueryResult(columns, taken)
    except psycopg.Error as error:
        if connection.closed:
            raise _lost(engine, error) from error
        if role and error.sqlstate == _NOT_PERMITTED:
            why = f"{_message(error)}; a query has the rights of {role} alone"
            raise UsageError("the query may not do that", where=describe(engine.url), why=why, fix=_FIX) from error
        raise _query_error(engine, error) from error
    finally:
        # Nothing of the statement stays: neither its role nor a setting, nor a lock that it took. What a server that
        # is gone answers here says no more than the first error.
        with suppress(psycopg.Error):
            connection.rollback()
        pooled.invalidate()


def _take_reading_role(connection: psycopg.Connection[Any]) -> str | None:
    """Let the transaction have the rights of a role that only reads, where the user may take one; return its name."""
    kind = "SET" if connection.info.server_version >= _SET_OF_ROLES else "MEMBER"
    query = (
        f"SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND pg_has_role(current_user, oid, '{kind}')"
        " AND rolname <> current_user"
    )
    names = {name for (name,) in connection.execute(query, [list(_READING_ROLES)])}
    role = next((name for name in _READING_ROLES if name in names), None)
    _LOG.debug("the query has the rights of %s", role or "the user")
    if role is not None:
        connection.execute(f"SET LOCAL ROLE {role}")
    return role


def _read_without_loss(cursor: psycopg.Cursor[Any]) -> None:
    """Read values of types that Python has no exact counterpart for as the server's own text."""
    from psycopg.types.string import TextLoader

    for info in cursor.adapters.types:
        if info.name not in _LOSSLESS_TYPES:
            cursor.adapters.register_loader(info.oid, TextLoader)


def _lost(engine: Engine, error: Exception) -> StoreError:
    fix = "try again once the server runs"
    why = _message(error)
    return StoreError("the server was lost during the query", where=describe(engine.url), why=why, fix=fix)


def _query_error(engine: Engine, error: Exception) -> StoreError | UsageError:
    if is_failure_of_database(error):
        with translate_errors(engine.url):
            raise DatabaseError(None, None, error)
    return UsageError("the question cannot be answered", where=describe(engine.url), why=_message(error), fix=_FIX)


def _message(error: Exception) -> str:
    return "; ".join(str(error).split("\n")).strip("; ") or type(error).__name__


def distinct_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of columns, those that occur again with a number: `a, a` are `a, a_2`."""
    names = tuple(names)
    distinct: list[str] = []
    for name in names:
        # A number that another column has is left to that one.
        taken = {*names, *distinct} if name in distinct else set(distinct)
        candidates = (name if number == 1 else f"{name}_{number}" for number in range(1, len(names) + 2))
        distinct.append(next(candidate for candidate in candidates if candidate not in taken))
    return tuple(distinct)


def as_dicts(result: QueryResult) -> Iterator[dict[str, Any]]:
    """Yield rows as JSON objects. Bytes become hex; a Decimal, a time, NaN and infinities become text."""
    for row in result.rows:
        yield dict(zip(result.columns, map(_json_value, row), strict=True))


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        # The texts that PostgreSQL gives for them.
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_json_value(entry) for entry in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
