"""Accuracies with their preprocessing and what of it was assumed, and the classes that images were given."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgevit.store import partition_checksums, tables

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# In the checksum of a row only where they are not these: older rows keep theirs.
ADDED = {"assumed_json": "[]", "preprocessing_json": "null"}


def upgrade() -> None:
    """Add two columns and a table, and its partition if the database has partitions."""
    for name, empty in ADDED.items():
        op.execute(f"ALTER TABLE accuracy ADD COLUMN {name} TEXT DEFAULT '{empty}' NOT NULL")
    op.create_table(
        "confusion",
        sa.Column("confusion_id", sa.Text(), nullable=False),
        sa.Column("accuracy_id", sa.Text(), nullable=False),
        sa.Column("labels_json", sa.Text(), nullable=False),
        sa.Column("counts_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("confusion_id", name=op.f("pk_confusion")),
        sa.CheckConstraint("length(confusion_id) = 64 AND length(accuracy_id) = 64", name=op.f("ck_confusion_digests")),
        sqlite_strict=True,
    )
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT count(*) FROM tally")).scalar_one():
        partition_checksums.add_table(connection, tables.confusion)


def downgrade() -> None:
    """Drop the confusions, and accuracies that say more than the older schema can."""
    op.drop_table("confusion")
    op.execute("DELETE FROM tally WHERE part = 'confusion'")
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT count(*) FROM tally")).scalar_one():
        # The code's table has columns of later revisions, which this database has not.
        later = {column.name: "null" for column in tables.accuracy.columns}
        rows = [{**later, **row} for row in connection.execute(sa.text("SELECT * FROM accuracy")).mappings()]
        older = [row for row in rows if all(row[name] == empty for name, empty in ADDED.items())]
        op.execute("DELETE FROM tally WHERE part = 'accuracy'")
        partition_checksums.add_table(connection, tables.accuracy)
        checksums = [partition_checksums.checksum_of(tables.accuracy, row) for row in older]
        partition_checksums.add(connection, [partition_checksums.PartitionChecksum("accuracy").plus(checksums)])
    says_more = " OR ".join(f"{name} <> '{empty}'" for name, empty in ADDED.items())
    op.execute(f"DELETE FROM accuracy WHERE {says_more}")
    for name in ADDED:
        op.execute(f"ALTER TABLE accuracy DROP COLUMN {name}")
