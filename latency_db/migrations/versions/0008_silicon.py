"""The silicon of the machines that rows were measured on; classes of older rows that claim no more than is known."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from edgevit.store import checked_rows, tables
from edgevit.store.unknown_silicon import supported_class

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

EMPTY = "null"
OF_SILICON = f"SELECT environment_no FROM environment WHERE silicon_json <> '{EMPTY}'"
ROWS_OF_SILICON = f"SELECT measurement_id FROM measurement WHERE environment_no IN ({OF_SILICON})"


def upgrade() -> None:
    """Add a column to environments, and rename the classes of devices whose silicon nothing tells."""
    op.execute(f"ALTER TABLE environment ADD COLUMN silicon_json TEXT DEFAULT '{EMPTY}' NOT NULL")
    connection = op.get_bind()
    renamed = dict(_renamed(connection))

    def changed(row: dict[str, Any]) -> dict[str, Any]:
        name = renamed.get(row["device_no"])
        return {"device_class": name} if name else {}

    if renamed:
        checked_rows.change(connection, changed)
    rename = sa.text("UPDATE device SET device_class = :name WHERE device_no = :number")
    for number, name in renamed.items():
        connection.execute(rename, {"name": name, "number": number})
    if renamed:
        checked_rows.recount(connection, tables.device)


def downgrade() -> None:
    """Drop the rows that tell their silicon, since their keys are digests of it, and the column."""
    connection = op.get_bind()
    if connection.execute(sa.text(f"SELECT count(*) FROM ({ROWS_OF_SILICON}) AS rows_of_silicon")).scalar_one():
        op.execute(f"DELETE FROM epoch WHERE measurement_id IN ({ROWS_OF_SILICON})")
        op.execute(f"DELETE FROM epoch WHERE reference_id IN ({ROWS_OF_SILICON})")
        for table in ("sweep_row", "sample", "measurement"):
            op.execute(f"DELETE FROM {table} WHERE measurement_id IN ({ROWS_OF_SILICON})")
        op.execute("DELETE FROM environment WHERE silicon_json <> 'null'")
        checked_rows.change(connection, lambda row: {})
        checked_rows.recount(connection, tables.sweep_row)
    op.execute("ALTER TABLE environment DROP COLUMN silicon_json")


def _renamed(connection: sa.Connection) -> list[tuple[int, str]]:
    """Return the devices whose class claims more than the name of their processor supports, with another class.

    Emulated ones have no class of silicon, and devices of published rows have no host.
    """
    query = sa.text(
        "SELECT DISTINCT device.device_no, device.device_class, environment.cpu_model FROM measurement "
        "JOIN device ON device.device_no = measurement.device_no "
        "JOIN environment ON environment.environment_no = measurement.environment_no "
        "WHERE device.device_class NOT LIKE '%emulated-by%'"
    )
    classes = {number: (old, supported_class(old, cpu_model)) for number, old, cpu_model in connection.execute(query)}
    return [(number, new) for number, (old, new) in sorted(classes.items()) if new != old]
