"""Environment of Alembic's commands; edgevit.store.schema gives the connection and its transaction."""

from __future__ import annotations

from alembic import context

from edgevit.store.tables import METADATA

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations with edgevit.store.schema.alembic_config(connection)")
context.configure(connection=connection, target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
