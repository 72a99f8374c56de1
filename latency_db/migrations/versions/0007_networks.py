"""The networks that rows and accuracies are of, by their digests: two checkpoints of one function are told apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgevit.store import checked_rows, partition_checksums, tables

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# In the checksum of a row only where it is not this: older rows keep theirs.
EMPTY = "null"


def upgrade() -> None:
    """Add a column to measurements and to accuracies; what is there already says nothing of its network."""
    for table in ("measurement", "accuracy"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN network_json TEXT DEFAULT '{EMPTY}' NOT NULL")


def downgrade() -> None:
    """Drop the networks of measurements, which get other checksums; and accuracies that say more than before."""
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT count(*) FROM tally")).scalar_one():
        checked_rows.change(connection, lambda row: {"network_json": EMPTY} if row["network_json"] != EMPTY else {})
        accuracies = partition_checksums.read_table(connection, tables.accuracy)
        older = [row for row in accuracies if row["network_json"] == EMPTY]
        op.execute("DELETE FROM tally WHERE part = 'accuracy'")
        partition_checksums.add_table(connection, tables.accuracy)
        checksums = [partition_checksums.checksum_of(tables.accuracy, row) for row in older]
        partition_checksums.add(connection, [partition_checksums.PartitionChecksum("accuracy").plus(checksums)])
    op.execute(f"DELETE FROM accuracy WHERE network_json <> '{EMPTY}'")
    for table in ("measurement", "accuracy"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN network_json")
