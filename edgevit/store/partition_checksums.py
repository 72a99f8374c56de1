"""How many lines each part of the database has, and the digest of them all: what notices that a line is gone.

A digest in a row tells that the row was changed. It cannot tell that the row is missing: one bit in a page of the file
is enough to hide it from an index, and an answer that is silently made of fewer rows is a wrong answer. So each part
(the rows of one device, and every small table as a whole) has a line with its number of lines and the exclusive or of
their digests, which no order changes. Whoever reads a part holds what came against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from operator import xor
from typing import Any

from sqlalchemy import Connection, Double, LargeBinary, Table, bindparam, select, update

from edgevit.errors import StoreError
from edgevit.store import tables
from edgevit.store.row_checksums import as_seal, line_seal

# Small tables that are read, and sealed, as a whole. What a binary column holds is covered by the line's own digest.
WHOLE = (
    tables.device, tables.noise, tables.accuracy, tables.graph, tables.built, tables.sweep, tables.sweep_row,
    tables.quarantine,
)  # fmt: skip
FIX = "save what is whole into a new database: edgevit db merge THIS --db NEW; edgevit db check says more"


@dataclass(frozen=True)
class Part:
    """One line of the tally: lines, the exclusive or of their digests, and when the latest of them began."""

    part: str
    lines: int = 0
    digest: int = 0
    latest_unix_us: int | None = None

    def plus(self, seals: Iterable[int], latest_unix_us: int | None = None) -> Part:
        """The part with more lines."""
        more = list(seals)
        return self.joined(Part(self.part, len(more), reduce(xor, more, 0), latest_unix_us))

    def joined(self, more: Part) -> Part:
        """The lines of both."""
        latest = max((item for item in (self.latest_unix_us, more.latest_unix_us) if item is not None), default=None)
        return Part(self.part, self.lines + more.lines, self.digest ^ more.digest, latest)

    @property
    def seal(self) -> int:
        """Digest of the line itself."""
        return line_seal((self.part, self.lines, self.digest, self.latest_unix_us))


def rows_of(device_no: int | str) -> str:
    """The part with the measurements of a device."""
    return f"rows of device {device_no}"


def seal_of(table: Table, line: Mapping[str, Any]) -> int:
    """The digest of one line of a small table."""
    values = ((line[name], is_real) for name, is_real in _sealed(table))
    return line_seal(float(value) if is_real and isinstance(value, int) else value for value, is_real in values)


@cache
def _sealed(table: Table) -> tuple[tuple[str, bool], ...]:
    """Columns that a digest is made of, and whether they hold fractions: 30 and 30.0 are one number."""
    told = (column for column in table.columns if not isinstance(column.type, LargeBinary))
    return tuple((column.name, isinstance(column.type, Double)) for column in told)


def parts_of(lines: Iterable[Mapping[str, Any]]) -> list[Part]:
    """What lines of the measurement table add to the parts of their devices."""
    by_device: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_device.setdefault(line["device_no"], []).append(line)
    return [
        Part(rows_of(number)).plus((as_seal(m["row_sha256"]) for m in of), max(m["started_unix_us"] for m in of))
        for number, of in by_device.items()
    ]


def read_parts(connection: Connection, names: Iterable[str] | None = None) -> dict[str, Part]:
    """Parts by name; None: all. Those of whole tables are always there.

    Raises StoreError where a line of the tally was changed, or is missing.
    """
    query = select(tables.tally)
    wanted = None if names is None else list(names)
    if wanted is not None:
        query = query.where(tables.tally.c.part.in_(wanted))
    found = {}
    for line in connection.execute(query).mappings():
        part = Part(line["part"], line["lines"], line["digest"], line["latest_unix_us"])
        if part.seal != line["seal"]:
            raise broken(f"the tally of {part.part!r} was changed")
        found[part.part] = part
    for name in (table.name for table in WHOLE):
        if (wanted is None or name in wanted) and name not in found:
            raise broken(f"the tally of {name!r} is missing")
    return found


def begin(connection: Connection, table: Table) -> None:
    """Begin the tally of a small table that is new in a database that has a tally. The migration that makes it asks."""
    connection.execute(tables.tally.insert(), [_line(Part(table.name))])


def create(connection: Connection) -> None:
    """Begin the tally of a database whose tables are new."""
    connection.execute(tables.tally.insert(), [_line(Part(table.name)) for table in WHOLE])


def add(connection: Connection, more: Iterable[Part]) -> None:
    """Count lines that were added. The connection must be one that writes alone (connect.WRITE)."""
    given = {part.part: part for part in more}
    old = read_parts(connection, given)
    lines = [_line(old.get(name, Part(name)).joined(part)) for name, part in given.items()]
    if fresh := [line for line in lines if line["part"] not in old]:
        connection.execute(tables.tally.insert(), fresh)
    if known := [{"name": line["part"], **line} for line in lines if line["part"] in old]:
        connection.execute(update(tables.tally).where(tables.tally.c.part == bindparam("name")), known)


def _line(part: Part) -> dict[str, Any]:
    return {**vars(part), "seal": part.seal}


def require(found: Part, expected: Part | None) -> None:
    """Raise StoreError where what was read is not what the tally says is there."""
    expected = expected or Part(found.part)
    if (found.lines, found.digest) != (expected.lines, expected.digest):
        said = f"{found.lines} lines found, {expected.lines} written"
        raise broken(f"{found.part!r}: {said}" if found.lines != expected.lines else f"{found.part!r} was changed")


def read_whole(connection: Connection, table: Table) -> list[dict[str, Any]]:
    """Every line of a small table, by its primary key. Raises StoreError where one was changed or is missing."""
    result = connection.execute(select(table))
    names = tuple(result.keys())
    lines = [dict(zip(names, line, strict=True)) for line in result]
    expected = read_parts(connection, [table.name])[table.name]
    require(Part(table.name).plus(seal_of(table, line) for line in lines), expected)
    keys = [column.name for column in table.primary_key]
    # Not in SQL: a server may put texts into another order, and the same records would give another export.
    return sorted(lines, key=lambda line: [line[key] for key in keys])


def broken(why: str) -> StoreError:
    """What is said of a database whose lines are not those that were written."""
    return StoreError("the latency database is not as it was written", why=why, fix=FIX)
