"""The schema of an SQLite file as comparable texts, and the schema that the migrations give it."""

from __future__ import annotations

import functools
import re

from sqlalchemy import Connection, create_engine, text

from edgevit.store import schema

# Tables of Alembic, which writes their text itself.
_ALEMBIC_TABLES = ("alembic_version",)


def schema_of(connection: Connection) -> frozenset[str]:
    """Return one text for each column, constraint, table option and index, and for any other object of the schema."""
    parts: set[str] = set()
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    for kind, name, sql in connection.execute(text(query)):
        if name in _ALEMBIC_TABLES and kind == "table":
            continue
        parts |= {f"{kind} {name}: {part}" for part in _parts(str(sql))}
    return frozenset(parts)


@functools.cache
def expected_schema(revision: str) -> frozenset[str]:
    """Return the schema that the migrations give a new file at a revision."""
    from alembic import command

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        command.upgrade(schema.alembic_config(connection), revision)
        parts = schema_of(connection)
    engine.dispose()
    return parts


def _parts(sql: str) -> list[str]:
    """Split a CREATE statement at its outermost commas, with the text around its parentheses as one more part.

    A column that was added later stands behind the constraints, and is the same column.
    """
    plain = re.sub(r"\s+", " ", sql).strip()
    start, end = plain.find("("), plain.rfind(")")
    if start < 0:
        return [plain]
    parts, depth, quoted = [""], 0, False
    for letter in plain[start + 1 : end]:
        quoted ^= letter == "'"
        depth += 0 if quoted else {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [f"{plain[:start].strip()} ... {plain[end + 1 :].strip()}", *(part.strip() for part in parts)]
