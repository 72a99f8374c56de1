"""The table of artifacts that were built here and may run their own code."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "built",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("built", sa.Text(), nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_built_sha256")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_built")),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("built")
