"""Schema revisions: which one a database has, and the migration of an older one.

Alembic takes 0.2 s to import, more than a whole choice may cost. The revision is read with plain SQL, and Alembic is
imported only for a migration.
"""

from __future__ import annotations

import importlib.resources
import logging
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from edgevit.errors import StoreError
from edgevit.store.checksum_backfill import backfill_checksums
from edgevit.store.connect import WRITE, describe

if TYPE_CHECKING:
    from alembic.config import Config

_LOG = logging.getLogger(__name__)
# The newest file of latency_db/migrations/versions; a test compares the two.
HEAD = "0012"
_SHOWN = 100  # characters of a name


def ensure_schema(engine: Engine) -> None:
    """Create or migrate the tables, in one transaction, unless they are up to date already.

    Raises StoreError for a database of another program, or of a newer edgevit, and for one with triggers.
    """
    with engine.connect() as connection:
        _refuse_triggers(connection)
        if revision(connection) == HEAD:
            return
    with engine.execution_options(**WRITE).begin() as connection:
        # Read again: another process may have migrated while this one waited for the lock.
        current = revision(connection)
        if current != HEAD:
            _migrate(connection, current)


def revision(connection: Connection) -> str | None:
    """Return the revision of a database; None: it has no tables of ours yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    rows = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return ", ".join(sorted(rows)) or None


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for these migrations; there is no alembic.ini."""
    from alembic.config import Config

    folder = importlib.resources.files("edgevit.latency_db") / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _migrate(connection: Connection, current: str | None) -> None:
    from alembic import command

    config = alembic_config(connection)
    if current is None:
        _refuse_foreign(connection)
    require_supported(connection, current)
    _LOG.debug("migrating %s from revision %s to %s", describe(connection.engine.url), current or "none", HEAD)
    command.upgrade(config, "head")
    backfill_checksums(connection)


def require_supported(connection: Connection, current: str | None) -> None:
    """Raise StoreError for a revision that no migration here has: a newer edgevit wrote the database."""
    from alembic.script import ScriptDirectory

    revisions = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if current is not None and current not in revisions:
        location = describe(connection.engine.url)
        why = f"it has the revision {current}, this edgevit knows none later than {HEAD}: a newer edgevit wrote it"
        raise StoreError(
            "the latency database is too new", where=location, why=why, fix="pip install --upgrade edgevit"
        )


def _refuse_triggers(connection: Connection) -> None:
    """Raise StoreError for an SQLite file with triggers, which would change or add what edgevit writes into it."""
    if connection.dialect.name != "sqlite":
        return
    names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
    if names:
        location = describe(connection.engine.url)
        why = f"{str(names[0])[:_SHOWN]!r} would change what is written, and edgevit makes none"
        fix = "take a file of your own; if the trigger is yours: sqlite3 FILE 'DROP TRIGGER NAME'"
        raise StoreError("the database has triggers", where=location, why=why, fix=fix)


def _refuse_foreign(connection: Connection) -> None:
    # A PostgreSQL database may be shared with others; an SQLite file with tables in it belongs to another program.
    if connection.dialect.name == "sqlite" and (tables := inspect(connection).get_table_names()):
        why = f"the file holds the tables {', '.join(tables[:4])}, and no revision of edgevit"
        location = describe(connection.engine.url)
        raise StoreError("not a latency database", where=location, why=why, fix="name another file with --db")
