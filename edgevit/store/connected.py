"""A connected database: its engine, its transactions, and how it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, update

from edgevit.store import tables
from edgevit.store.connect import WRITE, describe, require_room, translate_errors


class ConnectedDatabase:
    """A database with its connections, as a context manager that closes them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def location(self) -> str:
        """The file, or the URL without its password."""
        return describe(self._engine.url)

    def require_writable(self) -> None:
        """Raise StoreError where nothing can be written: before a measurement of minutes, and not after it."""
        # SQLite refuses the first statement that may write, and not the start of its transaction.
        nothing = update(tables.meta).where(tables.meta.c.key == "").values(value="")
        with self._transaction(write=True) as connection:
            connection.execute(nothing)
        require_room(self._engine.url)

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Connection]:
        engine = self._engine.execution_options(**WRITE) if write else self._engine
        with translate_errors(self._engine.url), engine.begin() as connection:
            yield connection
