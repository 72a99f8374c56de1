"""Origins of records: which installation measured them, or from which file or database who read them, and when."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import platformdirs
from sqlalchemy import ColumnElement, Connection, Insert, Table, delete, func, select, text

from edgevit.concurrency.created_once import read_or_create
from edgevit.errors import StoreError, UnknownNameError
from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.records.origin import TRUSTED_KINDS, Origin, OriginKind, OriginPolicy, SourceSummary
from edgevit.store import tables
from edgevit.store.connect import POSTGRES
from edgevit.store.content_tables import CONTENT_TABLES, ContentRecord, table_of
from edgevit.store.small_tables import noise_id

_ID_BYTES = 8
_BUILT = "built "  # before the digest of code
_BATCH = 500  # of ids in one statement
# What names a record of each table, as record_id() does.
NAMES: tuple[tuple[Table, ColumnElement[str]], ...] = (
    (tables.measurement, tables.measurement.c.measurement_id),
    *((content.table, content.table.c[content.id_name]) for content in CONTENT_TABLES.values()),
    (tables.noise, tables.noise.c.device_id + " " + tables.noise.c.started),
)


@dataclass
class Writer:
    """Records the origin of what one import adds, or of what is measured. An import has one number in a database."""

    kind: OriginKind
    source: str = ""  # empty: this installation
    forgotten: int = 0  # records that were not added, because their source was forgotten here
    _number: int | None = field(default=None, init=False)

    def record(self, connection: Connection, ids: Collection[str]) -> None:
        """Record that these records have this origin too. The connection must be one that writes."""
        if not ids:
            return
        number = self._number or _number(connection, self.kind, self.source or installation_id())
        # What is measured looks its number up each time: the transaction that made it may have been rolled back.
        self._number = None if self.kind == "measured" else number
        values = [{"record_id": record_id, "origin_no": number} for record_id in dict.fromkeys(ids)]
        connection.execute(_insert_absent(connection), values)


def record_id(record: Measurement | NoiseFloor | ContentRecord) -> str:
    """Return what names a record among all kinds."""
    match record:
        case Measurement():
            return record.measurement_id
        case NoiseFloor():
            return noise_id(record)
        case _:
            return str(getattr(record, table_of(record).id_name))


def built_id(digest: str) -> str:
    """Return what names the digest of code among all records."""
    return f"{_BUILT}{digest}"


def built(connection: Connection) -> frozenset[str]:
    """Return the digests of the code that this installation, or one that is trusted, built."""
    kinds = _all(connection)
    numbers = {number for number in _deciding(connection, "trusted") if kinds[number].kind == "measured"}
    link = tables.record_origin.c
    recorded = select(link.record_id).where(link.origin_no.in_(numbers), link.record_id.startswith(_BUILT))
    ids = frozenset(connection.execute(recorded).scalars())
    digests = connection.execute(select(tables.built.c.sha256)).scalars()
    return frozenset(digest for digest in digests if built_id(digest) in ids)


def installation_id() -> str:
    """Return the id of this user's edgevit, made at first use. Raises StoreError if it cannot be kept."""
    path = platformdirs.user_data_path("edgevit") / "installation-id"
    try:
        return read_or_create(path, lambda: secrets.token_hex(_ID_BYTES).encode()).decode("ascii", "replace").strip()
    except OSError as error:
        raise StoreError(
            "this installation's id cannot be kept",
            where=str(path),
            why=str(error.strerror),
            fix="make the folder writable, or set XDG_DATA_HOME to one that is",
        ) from error


def origins_of(connection: Connection, ids: Iterable[str]) -> dict[str, tuple[Origin, ...]]:
    """Return the origins of records, oldest first. A record without any is not in the result."""
    wanted = list(dict.fromkeys(ids))
    origins = _all(connection)
    found: dict[str, list[int]] = {}
    table = tables.record_origin
    for start in range(0, len(wanted), _BATCH):
        query = select(table).where(table.c.record_id.in_(wanted[start : start + _BATCH]))
        for name, number in connection.execute(query):
            found.setdefault(name, []).append(number)
    return {name: tuple(origins[number] for number in sorted(numbers)) for name, numbers in found.items()}


def summaries(connection: Connection) -> list[SourceSummary]:
    """Return every origin with the number of its records, in the order in which they came."""
    number = tables.record_origin.c.origin_no
    counted = connection.execute(select(number, func.count()).group_by(number))
    counts = {int(key): int(count) for key, count in counted}
    deciding = {policy: _deciding(connection, policy) for policy in ("own", "trusted")}
    return [
        SourceSummary(origin, counts.get(key, 0), key in deciding["own"], key in deciding["trusted"])
        for key, origin in sorted(_all(connection).items())
    ]


def without_origin(connection: Connection) -> Iterator[str]:
    """Yield a problem for each table with records whose origin is missing, for `edgevit db check`."""
    known = select(tables.record_origin.c.record_id)
    for table, name in NAMES:
        query = select(func.count()).select_from(table).where(name.not_in(known))
        if count := connection.execute(query).scalar_one():
            yield f"{table.name}: nothing says where {count} records came from"


def undecided(connection: Connection, policy: OriginPolicy) -> dict[str, str]:
    """Return the ids of the records that do not decide by a policy, each with its newest source.

    A record decides if one of its origins does.
    """
    without = _without(connection, _deciding(connection, policy))
    return {record: origin.source for record, origin in without.items()}


def foreign(connection: Connection) -> dict[str, Origin]:
    """Return the newest origin of each record that this installation did not measure, by the record's id."""
    own = installation_id()
    numbers = {number for number, origin in _all(connection).items() if _is_own(origin, own)}
    return _without(connection, numbers)


def _without(connection: Connection, numbers: Collection[int]) -> dict[str, Origin]:
    """Return the newest origin of each record that has none of these origins, by the record's id."""
    others = {number: origin for number, origin in _all(connection).items() if number not in numbers}
    if not others:
        return {}
    number, name = tables.record_origin.c.origin_no, tables.record_origin.c.record_id
    excluded = select(name).where(number.in_(numbers))
    query = select(name, func.max(number)).where(number.in_(others), name.not_in(excluded)).group_by(name)
    return {record: others[newest] for record, newest in connection.execute(query)}


def _is_own(origin: Origin, installation: str) -> bool:
    return origin.kind == "measured" and origin.installation == installation


def decide(connection: Connection, source: str, *, is_trusted: bool) -> None:
    """Trust a source from now on, or no more. Raises UnknownNameError for one that no record came from."""
    known = sorted({origin.source for origin in _all(connection).values()})
    if source not in known:
        raise UnknownNameError("source", source, known or ["none yet"], listing="edgevit db sources")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute(delete(tables.trust).where(tables.trust.c.source == source))
    values = {"source": source, "is_trusted": int(is_trusted), "decided_by": user(connection), "since": now}
    connection.execute(tables.trust.insert().values(values))


def _deciding(connection: Connection, policy: OriginPolicy) -> set[int]:
    """Return the numbers of the origins whose records decide."""
    origins, own = _all(connection), installation_id()
    if policy == "any":
        return set(origins)
    decisions = {
        source: bool(value)
        for source, value in connection.execute(select(tables.trust.c.source, tables.trust.c.is_trusted))
    }
    return {
        number
        for number, origin in origins.items()
        if _is_own(origin, own)
        or (policy == "own" and origin.kind == "published")
        or (policy == "trusted" and decisions.get(origin.source, origin.kind in TRUSTED_KINDS))
    }


def _all(connection: Connection) -> dict[int, Origin]:
    rows = connection.execute(select(tables.origin)).mappings()
    return {
        row["origin_no"]: Origin(row["kind"], row["source"], row["installation"], row["written_by"], row["since"])
        for row in rows
    }


def _number(connection: Connection, kind: OriginKind, source: str) -> int:
    """Return the number of an origin of this installation: a new one for each import, else the present one."""
    values = {"kind": kind, "source": source, "installation": installation_id(), "written_by": user(connection)}
    table = tables.origin
    if kind in ("measured", "shipped"):
        known = [table.c[name] == value for name, value in values.items()]
        number = connection.execute(select(table.c.origin_no).where(*known)).scalar()
        if number is not None:
            return int(number)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = connection.execute(table.insert().values({**values, "since": now}))
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def user(connection: Connection) -> str:
    """Return the role on a server, else the user of this machine; empty where it has no name."""
    if connection.dialect.name == POSTGRES:
        return str(connection.execute(text("SELECT current_user")).scalar_one())
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _insert_absent(connection: Connection) -> Insert:
    """Return an INSERT into record_origin that leaves what is there."""
    if connection.dialect.name == POSTGRES:
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(tables.record_origin).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(tables.record_origin).on_conflict_do_nothing()
