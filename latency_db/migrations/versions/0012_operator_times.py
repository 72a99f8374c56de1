"""Times of operators in several forms, and the tunings that follow from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edgevit.store import partition_checksums, tables

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TEXTS = ("target", "precision", "engine", "engine_version", "provider", "device", "device_id", "device_class")
KINDS = "kind IN ('alone', 'layer')"
ORDERED = "p50_low_ns > 0 AND p50_low_ns <= p50_ns AND p50_ns <= p50_high_ns"
WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add two tables, and their partitions if the database has partitions."""
    op.create_table(
        "operator_time",
        *_texts("operator_time_id", "kind", "site", "operator", "form", *TEXTS),
        *_numbers("threads", "batch"),
        sa.Column("macs", WIDE, nullable=True),
        sa.Column("moved_bytes", WIDE, nullable=True),
        *(sa.Column(name, WIDE, nullable=False) for name in ("p50_ns", "p50_low_ns", "p50_high_ns")),
        *_numbers("processes", "runs"),
        *_texts("started"),
        *_numbers("protocol_version"),
        sa.PrimaryKeyConstraint("operator_time_id", name=op.f("pk_operator_time")),
        sa.CheckConstraint(KINDS, name=op.f("ck_operator_time_kind")),
        sa.CheckConstraint("length(operator_time_id) = 64", name=op.f("ck_operator_time_digest")),
        sa.CheckConstraint(ORDERED, name=op.f("ck_operator_time_ordered")),
        sqlite_strict=True,
    )
    op.create_index("ix_operator_time_site", "operator_time", ["site", "target"])
    op.create_table(
        "tuning",
        *_texts("tuning_id", "model", "family", "graph_digest", *TEXTS),
        *_numbers("threads", "batch"),
        *_texts("forms_json", "gain_json", "over_default_json", "tried_json"),
        *_numbers("complete"),
        *_texts("started"),
        *_numbers("protocol_version"),
        sa.PrimaryKeyConstraint("tuning_id", name=op.f("pk_tuning")),
        sa.CheckConstraint("length(tuning_id) = 64 AND length(graph_digest) = 64", name=op.f("ck_tuning_digests")),
        sqlite_strict=True,
    )
    op.create_index("ix_tuning_model", "tuning", ["model", "target"])
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT count(*) FROM tally")).scalar_one():
        partition_checksums.add_table(connection, tables.operator_time)
        partition_checksums.add_table(connection, tables.tuning)


def downgrade() -> None:
    """Drop both tables: older programs have no place for their records."""
    op.drop_table("operator_time")
    op.drop_table("tuning")
    op.execute("DELETE FROM tally WHERE part IN ('operator_time', 'tuning')")


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer(), nullable=False) for name in names]
