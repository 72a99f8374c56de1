"""Operators of networks by the digest of their graph, and an index from models to devices with their rows.

Latencies of models that a device never ran are predicted from both.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgevit.store import partition_checksums, tables

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and its partition if the database has partitions; an older database gets all of them later."""
    op.create_table(
        "graph",
        sa.Column("graph_id", sa.Text(), nullable=False),
        sa.Column("graph_digest", sa.Text(), nullable=False),
        sa.Column("operators_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("graph_id", name=op.f("pk_graph")),
        sa.CheckConstraint("length(graph_id) = 64 AND length(graph_digest) = 64", name=op.f("ck_graph_digests")),
        sqlite_strict=True,
    )
    _index("artifact_no", "device_no")
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT count(*) FROM tally")).scalar_one():
        partition_checksums.add_table(connection, tables.graph)


def downgrade() -> None:
    """Drop the operators; features of models without measurements then come from the cards alone."""
    op.drop_table("graph")
    op.execute("DELETE FROM tally WHERE part = 'graph'")
    _index("artifact_no")


def _index(*columns: str) -> None:
    """Replace the index of artifacts. With the device, it alone answers which devices have rows of a model."""
    op.drop_index("ix_measurement_artifact", "measurement")
    op.create_index("ix_measurement_artifact", "measurement", list(columns))
