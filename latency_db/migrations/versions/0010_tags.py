"""Tags of rows: names that a user gives them, outside of their digests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgevit.store import partition_checksums, tables

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and its partition if the database has partitions; an older database gets all of them later."""
    op.create_table(
        "tag",
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("measurement_id", sa.Text(), nullable=False),
        sa.Column("tagged", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tag", "measurement_id", name=op.f("pk_tag")),
        sa.ForeignKeyConstraint(["measurement_id"], ["measurement.measurement_id"], name=op.f("fk_tag_measurement_id")),
        sa.CheckConstraint("tag <> ''", name=op.f("ck_tag_name")),
        sqlite_strict=True,
    )
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT count(*) FROM tally")).scalar_one():
        partition_checksums.add_table(connection, tables.tag)


def downgrade() -> None:
    """Drop the tags; their rows stay."""
    op.drop_table("tag")
    op.execute("DELETE FROM tally WHERE part = 'tag'")
