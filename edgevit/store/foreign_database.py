"""Databases of other people: read, never written to, and believed row by row."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event

from edgevit.errors import StoreError
from edgevit.store import accuracies, exchange, graphs, queries, schema, small_tables
from edgevit.store.connect import BUSY_SECONDS, create, database_url, describe, storing
from edgevit.store.json_records import Item
from edgevit.store.sqlite_schema import expected_shape, shape_of

_MAX_VALUE_BYTES = 64 * 2**20  # of a text or blob: a hostile file may claim any size
# cell_size_check: a page whose entries overlap is refused. mmap_size: a file that is cut short is an error, no signal.
_PRAGMAS = ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0")


@contextmanager
def opened(source: str) -> Iterator[Engine]:
    """A database to read from: the path of an SQLite file, or a URL. A file of an older edgevit is migrated as a copy.

    Raises StoreError for what is no latency database, of a newer edgevit, or holds tables, views or triggers that are
    none of ours.
    """
    address = database_url(source)
    with ExitStack() as undo, storing(address):
        if address.get_backend_name() != "sqlite":
            engine = create(address)
            undo.callback(engine.dispose)
            _require_head(engine)
        else:
            engine = _sqlite(address, undo)
        yield engine


def _require_head(engine: Engine) -> None:
    with engine.connect() as connection:
        found = schema.revision(connection)
    if found != schema.HEAD:
        why = f"its revision is {found or 'none'}, this edgevit has {schema.HEAD}"
        fix = "open it once with this edgevit and a user who may change it: edgevit db stats --db URL"
        raise StoreError("the other database is of another revision", where=describe(engine.url), why=why, fix=fix)


def _sqlite(address: URL, undo: ExitStack) -> Engine:
    path = Path(str(address.database))
    if not path.is_file():
        raise StoreError("there is no such database", where=str(path), fix="name an SQLite file, or a URL")
    engine = read_only(path, address)
    undo.callback(engine.dispose)
    with engine.connect() as connection:
        found = schema.revision(connection)
        schema.require_known(connection, found)
        if found is None:
            raise StoreError("not a latency database", where=str(path), why="it has no revision of edgevit")
        strange = shape_of(connection) ^ expected_shape(found)
    if strange:
        why = f"its tables are not those of revision {found}: {'; '.join(sorted(strange)[:3])}"
        raise StoreError("the other database is not one that edgevit made", where=str(path), why=why[:400])
    if found == schema.HEAD:
        return engine
    folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="edgevit-"))
    copy = create(URL.create("sqlite", database=str(_copied(path, Path(folder)))))
    undo.callback(copy.dispose)
    schema.ensure_schema(copy)
    return copy


def read_only(path: Path, url: URL | None = None) -> Engine:
    """An engine on an SQLite file that neither writes to it nor lets it call functions with side effects."""
    engine = create_engine(url or URL.create("sqlite", database=str(path)), creator=partial(_connect, path))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _connect(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _copied(path: Path, folder: Path) -> Path:
    copy = folder / "copy.db"
    with closing(_connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def every_item(engine: Engine) -> Iterator[Item]:
    """All that travels, each for itself; in place of what is damaged or missing an item that says so."""
    name = describe(engine.url)
    try:
        yield from _rows(engine, name)
        with engine.connect() as connection:
            exchange.present(connection)
    except StoreError as error:
        yield Item(name, None, f"{error.what}: {error.why}", b"")
    for read in (accuracies.read, small_tables.noise_floors, graphs.read):
        try:
            with storing(engine.url), engine.connect() as connection:
                records: Sequence[Any] = read(connection)
        except StoreError as error:
            yield Item(name, None, f"{error.what}: {error.why}", b"")
        else:
            yield from (Item(f"{name}, {type(record).__name__}", record, "", b"") for record in records)


def _rows(engine: Engine, name: str) -> Iterator[Item]:
    last = ""
    while True:
        with storing(engine.url), engine.connect() as connection:
            ids = queries.next_ids(connection, last, exchange.BATCH_ROWS)
            batch = queries.fetch_each(connection, ids)
        for row_id, found in batch.items():
            place = f"{name}, measurement {str(row_id)[:12]}"
            if isinstance(found, queries.Damaged):
                yield Item(place, None, f"{found.error.what}: {found.error.why}", found.content)
            else:
                yield Item(place, found, "", b"")
        if not ids:
            return
        last = ids[-1]
