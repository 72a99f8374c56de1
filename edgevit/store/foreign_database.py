"""Foreign databases: opened for reading only, and validated record by record."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event

from edgevit.concurrency.scratch import scratch_folder
from edgevit.errors import StoreError
from edgevit.store import exchange, queries, schema, small_tables
from edgevit.store.connect import BUSY_SECONDS, create, database_url, describe, translate_errors
from edgevit.store.content_tables import CONTENT_TABLES
from edgevit.store.json_records import ParsedRecord
from edgevit.store.refusals import RefusalReason
from edgevit.store.sqlite_schema import expected_schema, schema_of

_LOG = logging.getLogger(__name__)
# Limit for a text or blob: a hostile file may claim any size.
_MAX_VALUE_BYTES = 64 * 2**20
# cell_size_check: a page whose entries overlap is refused. mmap_size: a file that is cut short is an error, no signal.
_PRAGMAS = ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0")


@contextmanager
def open_foreign(source: str) -> Iterator[Engine]:
    """Open a database for reading: the path of an SQLite file, or a URL. An older file is migrated as a copy.

    Raises StoreError for what is no latency database, or was written by a newer edgevit. It also raises where tables,
    views or triggers differ from those that edgevit makes.
    """
    address = database_url(source)
    with ExitStack() as undo, translate_errors(address):
        if address.get_backend_name() != "sqlite":
            engine = create(address)
            undo.callback(engine.dispose)
            _require_head(engine)
        else:
            engine = _open_sqlite(address, undo)
        yield engine


def _require_head(engine: Engine) -> None:
    with engine.connect() as connection:
        revision = schema.revision(connection)
    if revision != schema.HEAD:
        why = f"its revision is {revision or 'none'}, this edgevit has {schema.HEAD}"
        fix = "open it once with this edgevit and a user who may change it: edgevit db stats --db URL"
        raise StoreError("the other database is of another revision", where=describe(engine.url), why=why, fix=fix)


def require_existing(address: URL) -> Path:
    """Return the path of an SQLite database. Raises StoreError if it does not exist."""
    path = Path(str(address.database))
    if not path.is_file():
        raise StoreError("there is no such database", where=str(path), fix="name an SQLite file, or a URL")
    return path


def _open_sqlite(address: URL, undo: ExitStack) -> Engine:
    path = require_existing(address)
    engine = read_only(path, address)
    undo.callback(engine.dispose)
    with engine.connect() as connection:
        revision = schema.revision(connection)
        schema.require_supported(connection, revision)
        if revision is None:
            raise StoreError("not a latency database", where=str(path), why="it has no revision of edgevit")
        differences = schema_of(connection) ^ expected_schema(revision)
    if differences:
        why = f"its tables are not those of revision {revision}: {'; '.join(sorted(differences)[:3])}"
        raise StoreError("the other database is not one that edgevit made", where=str(path), why=why[:400])
    if revision == schema.HEAD:
        return engine
    _LOG.debug("%s has revision %s: migrating a copy", path, revision)
    folder = undo.enter_context(scratch_folder())
    copy = create(URL.create("sqlite", database=str(_copy(path, Path(folder)))))
    undo.callback(copy.dispose)
    schema.ensure_schema(copy)
    return copy


def read_only(path: Path, url: URL | None = None) -> Engine:
    """Create an engine on an SQLite file that never writes to it and allows no functions with side effects."""
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


def _copy(path: Path, folder: Path) -> Path:
    copy = folder / "copy.db"
    with closing(_connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def parse_records(engine: Engine) -> Iterator[ParsedRecord]:
    """Yield all portable records, each on its own; damaged or missing ones come as refusals."""
    name = describe(engine.url)
    try:
        yield from _measurements(engine, name)
        with engine.connect() as connection:
            exchange.count_measurements(connection)
    except StoreError as error:
        yield ParsedRecord(name, None, RefusalReason("missing_rows", f"{error.what}: {error.why}"), b"")
    for read in (small_tables.noise_floors, *(table.read for table in CONTENT_TABLES.values())):
        try:
            with translate_errors(engine.url), engine.connect() as connection:
                records: Sequence[Any] = read(connection)
        except StoreError as error:
            yield ParsedRecord(name, None, RefusalReason("damaged", f"{error.what}: {error.why}"), b"")
        else:
            yield from (ParsedRecord(f"{name}, {type(record).__name__}", record, None, b"") for record in records)


def _measurements(engine: Engine, name: str) -> Iterator[ParsedRecord]:
    last = ""
    while True:
        with translate_errors(engine.url), engine.connect() as connection:
            ids = queries.next_ids(connection, last, exchange.BATCH_ROWS)
            batch = queries.fetch_each(connection, ids)
        for row_id, row in batch.items():
            location = f"{name}, measurement {str(row_id)[:12]}"
            if isinstance(row, queries.DamagedRow):
                refusal = RefusalReason("damaged", f"{row.error.what}: {row.error.why}")
                yield ParsedRecord(location, None, refusal, row.content)
            else:
                yield ParsedRecord(location, row, None, b"")
        if not ids:
            return
        last = ids[-1]
