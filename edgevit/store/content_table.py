"""Small tables whose records are named by the digest of their contents: accuracies, graphs and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Table

from edgevit.errors import StoreError
from edgevit.store import partition_checksums, small_tables
from edgevit.store.validate import unstorable
from edgevit_runtime.codec import RecordError, from_json, to_json

Record = TypeVar("Record")


@dataclass(frozen=True)
class ContentTable(Generic[Record]):
    """A table of records, each of which is in it once.

    name: of one record; its id is the column NAME_id. digest: computes the id from the contents. lists: the types of
    fields that are kept as JSON, in columns FIELD_json. problems: yields what cannot be true of a record. location:
    names a record for a person. fix: advice where one is refused. pack, unpack: change fields into what is kept, and
    back.
    """

    table: Table
    name: str
    record_type: Callable[..., Record]
    digest: Callable[[Record], str]
    lists: Mapping[str, Any]
    problems: Callable[[Record], Iterable[str]]
    location: Callable[[Record], str]
    fix: str
    pack: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    unpack: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    def validate(self, record: Record) -> None:
        """Check a record before it enters the database. Raises StoreError with the first problem."""
        if problem := next(self._all_problems(record), ""):
            raise StoreError(f"the {self.name} is refused", where=self.location(record), why=problem, fix=self.fix)

    def _all_problems(self, record: Record) -> Iterator[str]:
        yield from unstorable(record, self.name)
        yield from self.problems(record)
        if getattr(record, self.id_name) != self.digest(record):
            yield f"the {self.id_name} is not that of its contents: identity.identify_{self.name} makes it"

    def insert(self, connection: Connection, record: Record) -> bool:
        """Add a validated record and return whether it is new. Its id is the digest of its contents."""
        fields = {name: self.pack[name](value) if name in self.pack else value for name, value in vars(record).items()}
        values = {name: value for name, value in fields.items() if name not in self.lists}
        values |= {f"{name}_json": to_json(fields[name]) for name in self.lists}
        return small_tables.add_row(connection, self.table, values)

    def read(self, connection: Connection) -> list[Record]:
        """Return every record, by id. Raises StoreError where one was changed or is missing."""
        return [self._from_row(row) for row in partition_checksums.read_table(connection, self.table)]

    def _from_row(self, row: dict[str, Any]) -> Record:
        try:
            for name, kind in self.lists.items():
                row[name] = from_json(kind, row.pop(f"{name}_json"))
        except RecordError as error:
            raise partition_checksums.damage_error(f"{self.name} {row[self.id_name][:12]}: {error}") from error
        return self.record_type(**row | {name: change(row[name]) for name, change in self.unpack.items()})

    @property
    def id_name(self) -> str:
        """The field that names a record."""
        return f"{self.name}_id"
