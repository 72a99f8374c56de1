"""What tables an SQLite file has, as its own schema says it, and what they should be."""

from __future__ import annotations

import functools
import re

from sqlalchemy import Connection, create_engine, text

from edgevit.store import schema

_OURS = ("alembic_version",)  # of Alembic, whose text is its own


def shape_of(connection: Connection) -> frozenset[str]:
    """One text for each column, constraint, table option and index, and for anything else that is there."""
    found: set[str] = set()
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    for kind, name, sql in connection.execute(text(query)):
        if name in _OURS and kind == "table":
            continue
        found |= {f"{kind} {name}: {part}" for part in _parts(str(sql))}
    return frozenset(found)


@functools.cache
def expected_shape(revision: str) -> frozenset[str]:
    """The shape that the migrations give a new file at a revision."""
    from alembic import command

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        command.upgrade(schema.alembic_config(connection), revision)
        found = shape_of(connection)
    engine.dispose()
    return found


def _parts(sql: str) -> list[str]:
    """The parts of a CREATE statement: what is between its outermost commas, and what is around its parentheses.

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
