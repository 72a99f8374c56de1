"""The revision of a database, and how an older one is brought up to date.

Alembic takes 0.2 s to import, more than a whole choice may cost: the revision is read with plain SQL, and Alembic is
imported only where there is something to migrate.
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from edgevit.errors import StoreError
from edgevit.store.checksum_backfill import seal_rows
from edgevit.store.connect import WRITE, describe

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0005"  # the newest file of latency_db/migrations/versions; a test compares the two


def ensure_schema(engine: Engine) -> None:
    """Create or migrate the tables, in one transaction, unless they are up to date already.

    Raises StoreError for a database of another program, or of a newer edgevit.
    """
    with engine.connect() as connection:
        if revision(connection) == HEAD:
            return
    with engine.execution_options(**WRITE).begin() as connection:
        found = revision(connection)  # again: another process may have migrated while this one waited for the lock
        if found != HEAD:
            _migrate(connection, found)


def revision(connection: Connection) -> str | None:
    """The revision that the database says it has; None: no tables of ours yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    rows = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return ", ".join(sorted(rows)) or None


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for these migrations; there is no alembic.ini."""
    from alembic.config import Config

    folder = importlib.resources.files("edgevit.latency_db") / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _migrate(connection: Connection, found: str | None) -> None:
    from alembic import command

    config = alembic_config(connection)
    if found is None:
        _refuse_foreign(connection)
    require_known(connection, found)
    command.upgrade(config, "head")
    seal_rows(connection)


def require_known(connection: Connection, found: str | None) -> None:
    """Raise StoreError for a revision that these migrations do not know: a newer edgevit wrote the database."""
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if found is not None and found not in known:
        where = describe(connection.engine.url)
        why = f"it has the revision {found}, this edgevit knows none later than {HEAD}: a newer edgevit wrote it"
        raise StoreError("the latency database is too new", where=where, why=why, fix="pip install --upgrade edgevit")


def _refuse_foreign(connection: Connection) -> None:
    # A PostgreSQL database may be shared with others; an SQLite file with tables in it is somebody's.
    if connection.dialect.name == "sqlite" and (tables := inspect(connection).get_table_names()):
        why = f"the file holds the tables {', '.join(tables[:4])}, and no revision of edgevit"
        where = describe(connection.engine.url)
        raise StoreError("not a latency database", where=where, why=why, fix="name another file with --db")
