"""Origins of records: which installation measured them, or who read them from where and when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KINDS = "kind IN ('measured', 'imported', 'merged', 'published', 'shipped', 'unrecorded')"
# The records of before, by the expression that names one.
NAMES = {
    "measurement": "measurement_id",
    "accuracy": "accuracy_id",
    "graph": "graph_id",
    "confusion": "confusion_id",
    "noise": "device_id || ' ' || started",
}


def upgrade() -> None:
    """Add three tables. The origin of the records that are there already is unknown."""
    op.create_table(
        "origin",
        sa.Column("origin_no", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("written_by", sa.Text(), nullable=False),
        sa.Column("since", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("origin_no", name=op.f("pk_origin")),
        sa.CheckConstraint(KINDS, name=op.f("ck_origin_kind")),
        sqlite_strict=True,
    )
    op.create_table(
        "record_origin",
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("origin_no", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", "origin_no", name=op.f("pk_record_origin")),
        sa.ForeignKeyConstraint(["origin_no"], ["origin.origin_no"], name=op.f("fk_record_origin_origin_no")),
        sqlite_strict=True,
    )
    op.create_table(
        "trust",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("is_trusted", sa.Integer(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("since", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_trust")),
        sa.CheckConstraint("is_trusted IN (0, 1)", name=op.f("ck_trust_decision")),
        sqlite_strict=True,
    )
    connection = op.get_bind()
    if any(connection.execute(sa.text(f"SELECT 1 FROM {table} LIMIT 1")).first() for table in NAMES):
        unrecorded = "INSERT INTO origin (kind, source, installation, written_by, since) VALUES"
        op.execute(f"{unrecorded} ('unrecorded', 'unrecorded', '', '', '')")
        number = "(SELECT origin_no FROM origin WHERE kind = 'unrecorded')"
        for table, name in NAMES.items():
            op.execute(f"INSERT INTO record_origin (record_id, origin_no) SELECT {name}, {number} FROM {table}")


def downgrade() -> None:
    """Drop the origins, and what was decided on them."""
    op.drop_table("trust")
    op.drop_table("record_origin")
    op.drop_table("origin")
