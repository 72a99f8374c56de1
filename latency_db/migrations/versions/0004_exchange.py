"""Checksums of rows and tables, graphs of artifacts, licences of published rows; accuracies, epochs, quarantine.

Columns are added where possible. Only artifacts, whose unique constraint changes, go into a new table on SQLite.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
PROVENANCE = "provenance IN ('published', 'measured', 'predicted', 'reconstructed')"
ADDED = {
    "licence": "TEXT DEFAULT '' NOT NULL",
    "untold_json": "TEXT DEFAULT '[]' NOT NULL",
    "evidence_sha256": "TEXT DEFAULT '' NOT NULL CONSTRAINT ck_measurement_evidence_sha256"
    " CHECK (length(evidence_sha256) IN (0, 64))",
    "row_sha256": "TEXT DEFAULT '' NOT NULL CONSTRAINT ck_measurement_row_sha256 CHECK (length(row_sha256) IN (0, 64))",
}
# Fields that no published row had up to this revision.
UNTOLD = '["host","licence","p90_ns","p99_ns","samples"]'
UNIQUE = ["model_no", "target", "sha256", "size_bytes"]
TABLES = ("sweep_row", "sweep", "epoch", "accuracy", "quarantine", "tally")


def upgrade() -> None:
    """Add columns and tables; edgevit.store.checksum_backfill gives rows their checksums afterwards."""
    _artifact(graph=True)
    for name, kind in ADDED.items():
        op.execute(f"ALTER TABLE measurement ADD COLUMN {name} {kind}")
    op.execute(f"UPDATE measurement SET untold_json = '{UNTOLD}' WHERE provenance = 'published'")
    _accuracy()
    _epoch()
    _sweep()
    _quarantine()
    _tally()


def downgrade() -> None:
    """Drop accuracies, sweeps, epochs and the quarantine, and digests of graphs and licences with them."""
    for name in TABLES:
        op.drop_table(name)
    for name in reversed(ADDED):
        op.execute(f"ALTER TABLE measurement DROP COLUMN {name}")
    _artifact(graph=False)


def _artifact(*, graph: bool) -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    if sqlite:
        # Rows refer to artifacts, whose table is dropped for a moment.
        op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute("CREATE TEMPORARY TABLE kept_artifact AS SELECT * FROM artifact")
    if not graph:
        _merge_lines()
    if sqlite:
        op.drop_table("artifact")
        _new_artifact(graph=graph)
        names = ", ".join(["artifact_no", *UNIQUE])
        more, values = (", graph_digest", ", ''") if graph else ("", "")
        op.execute(f"INSERT INTO artifact ({names}{more}) SELECT {names}{values} FROM kept_artifact")
    else:
        _alter_artifact(graph=graph)
    op.execute("DROP TABLE kept_artifact")


def _merge_lines() -> None:
    """Merge rows that differ by their graph alone."""
    same = " AND ".join(f"other.{name} = old.{name}" for name in UNIQUE)
    first = f"(SELECT min(other.artifact_no) FROM kept_artifact other, kept_artifact old WHERE {same} AND"
    op.execute(f"UPDATE measurement SET artifact_no = {first} old.artifact_no = measurement.artifact_no)")
    for name in ("artifact", "kept_artifact"):
        op.execute(f"DELETE FROM {name} WHERE artifact_no NOT IN (SELECT artifact_no FROM measurement)")


def _alter_artifact(*, graph: bool) -> None:
    op.drop_constraint("uq_artifact", "artifact")
    if graph:
        check = "CONSTRAINT ck_artifact_graph CHECK (length(graph_digest) IN (0, 64))"
        op.execute(f"ALTER TABLE artifact ADD COLUMN graph_digest TEXT DEFAULT '' NOT NULL {check}")
        op.execute("ALTER TABLE artifact ALTER COLUMN graph_digest DROP DEFAULT")
        op.create_unique_constraint("uq_artifact", "artifact", [*UNIQUE, "graph_digest"])
    else:
        op.execute("ALTER TABLE artifact DROP COLUMN graph_digest")
        op.create_unique_constraint("uq_artifact", "artifact", UNIQUE)


def _new_artifact(*, graph: bool) -> None:
    check = sa.CheckConstraint("length(graph_digest) IN (0, 64)", name=op.f("ck_artifact_graph"))
    op.create_table(
        "artifact",
        sa.Column("artifact_no", sa.Integer(), nullable=False),
        sa.Column("model_no", sa.Integer(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", WIDE, nullable=False),
        *((sa.Column("graph_digest", sa.Text(), nullable=False), check) if graph else ()),
        sa.PrimaryKeyConstraint("artifact_no", name=op.f("pk_artifact")),
        sa.UniqueConstraint(*UNIQUE, *(["graph_digest"] if graph else []), name=op.f("uq_artifact")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_artifact_size")),
        sa.CheckConstraint("length(sha256) IN (0, 64)", name=op.f("ck_artifact_sha256")),
        sa.ForeignKeyConstraint(["model_no"], ["model.model_no"], name=op.f("fk_artifact_model_no")),
        sqlite_strict=True,
    )


def _accuracy() -> None:
    texts = ("provenance", "model", "family", "dataset", "metric")
    more = (
        "source", "licence", "untold_json", "target", "precision", "artifact_sha256", "graph_digest", "weights_sha256",
        "engine", "engine_version", "input_size_json", "dataset_sha256", "started", "note",
    )  # fmt: skip
    op.create_table(
        "accuracy",
        sa.Column("accuracy_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        sa.Column("value", REAL, nullable=False),
        sa.Column("error", REAL),
        sa.Column("examples", WIDE),
        *(sa.Column(name, sa.Text(), nullable=False) for name in more),
        sa.PrimaryKeyConstraint("accuracy_id", name=op.f("pk_accuracy")),
        sa.CheckConstraint(PROVENANCE, name=op.f("ck_accuracy_provenance")),
        sa.CheckConstraint("length(accuracy_id) = 64", name=op.f("ck_accuracy_digest")),
        sa.CheckConstraint(
            "value >= 0 AND (metric NOT IN ('top1_percent', 'top5_percent') OR value <= 100)",
            name=op.f("ck_accuracy_percent"),
        ),
        sa.CheckConstraint("error >= 0 AND examples > 0", name=op.f("ck_accuracy_error")),
        sa.CheckConstraint("provenance <> 'published' OR source <> ''", name=op.f("ck_accuracy_source")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_accuracy_model"), "accuracy", ["model", "dataset"])


def _epoch() -> None:
    rows = ("measurement_id", "reference_id")
    op.create_table(
        "epoch",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("started", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in rows),
        sa.Column("ratio", REAL, nullable=False),
        sa.Column("limit_share", REAL, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "number", name=op.f("pk_epoch")),
        sa.CheckConstraint("number > 0 AND ratio > 0 AND limit_share > 0", name=op.f("ck_epoch_positive")),
        *(sa.ForeignKeyConstraint([n], ["measurement.measurement_id"], name=op.f(f"fk_epoch_{n}")) for n in rows),
        sqlite_strict=True,
    )


def _sweep() -> None:
    op.create_table(
        "sweep",
        sa.Column("sweep_id", sa.Text(), nullable=False),
        sa.Column("started", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("asked_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sweep_id", name=op.f("pk_sweep")),
        sa.CheckConstraint("threads > 0", name=op.f("ck_sweep_threads")),
        sqlite_strict=True,
    )
    op.create_table(
        "sweep_row",
        sa.Column("sweep_id", sa.Text(), nullable=False),
        sa.Column("measurement_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sweep_id", "measurement_id", name=op.f("pk_sweep_row")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.sweep_id"], name=op.f("fk_sweep_row_sweep_id")),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurement.measurement_id"], name=op.f("fk_sweep_row_measurement_id")
        ),
        sqlite_strict=True,
    )


def _quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("quarantine_id", sa.Text(), nullable=False),
        sa.Column("noticed", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("quarantine_id", name=op.f("pk_quarantine")),
        sa.CheckConstraint("length(quarantine_id) = 64", name=op.f("ck_quarantine_digest")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_quarantine_size")),
        sqlite_strict=True,
    )


def _tally() -> None:
    op.create_table(
        "tally",
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("lines", WIDE, nullable=False),
        sa.Column("digest", WIDE, nullable=False),
        sa.Column("latest_unix_us", WIDE),
        sa.Column("seal", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("part", name=op.f("pk_tally")),
        sa.CheckConstraint("lines >= 0", name=op.f("ck_tally_lines")),
        sqlite_strict=True,
    )
