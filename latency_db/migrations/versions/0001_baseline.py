"""The first tables.

A migration spells its tables out and imports nothing of edgevit, whose tables continue to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "model",
        sa.Column("model_no", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_no", name=op.f("pk_model")),
        sa.UniqueConstraint("name", "family", name=op.f("uq_model")),
        sqlite_strict=True,
    )
    op.create_table(
        "artifact",
        sa.Column("artifact_no", sa.Integer(), nullable=False),
        sa.Column("model_no", sa.Integer(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", WIDE, nullable=False),
        sa.UniqueConstraint("model_no", "target", "sha256", "size_bytes", name=op.f("uq_artifact")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_artifact_size")),
        sa.CheckConstraint("length(sha256) IN (0, 64)", name=op.f("ck_artifact_sha256")),
        sa.ForeignKeyConstraint(["model_no"], ["model.model_no"], name=op.f("fk_artifact_model_no")),
        sa.PrimaryKeyConstraint("artifact_no", name=op.f("pk_artifact")),
        sqlite_strict=True,
    )
    op.create_table(
        "device",
        sa.Column("device_no", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("device_class", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device_no", name=op.f("pk_device")),
        sa.UniqueConstraint("device_id", "device_class", "name", name=op.f("uq_device")),
        sqlite_strict=True,
    )
    op.create_table(
        "environment",
        sa.Column("environment_no", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("kernel", sa.Text(), nullable=False),
        sa.Column("python", sa.Text(), nullable=False),
        sa.Column("cpu_model", sa.Text(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory_bytes", WIDE),
        sa.PrimaryKeyConstraint("environment_no", name=op.f("pk_environment")),
        sa.UniqueConstraint("sha256", name=op.f("uq_environment")),
        sqlite_strict=True,
    )
    _measurement()
    _sample_and_meta()


def _sample_and_meta() -> None:
    op.create_table(
        "sample",
        sa.Column("measurement_id", sa.Text(), nullable=False),
        sa.Column("process", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("runs", sa.Integer()),
        sa.Column("samples_zlib", sa.LargeBinary()),
        sa.Column("snapshots_json", sa.Text(), nullable=False),
        sa.CheckConstraint("(runs IS NULL) = (samples_zlib IS NULL)", name=op.f("ck_sample_runs")),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurement.measurement_id"], name=op.f("fk_sample_measurement_id")
        ),
        sa.PrimaryKeyConstraint("measurement_id", "process", name=op.f("pk_sample")),
        sqlite_strict=True,
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
        sqlite_strict=True,
    )


def _measurement() -> None:
    op.create_table(
        "measurement",
        *_measurement_columns(),
        *_measurement_checks(),
        sa.ForeignKeyConstraint(["artifact_no"], ["artifact.artifact_no"], name=op.f("fk_measurement_artifact_no")),
        sa.ForeignKeyConstraint(["device_no"], ["device.device_no"], name=op.f("fk_measurement_device_no")),
        sa.ForeignKeyConstraint(
            ["environment_no"], ["environment.environment_no"], name=op.f("fk_measurement_environment_no")
        ),
        sa.PrimaryKeyConstraint("measurement_id", name=op.f("pk_measurement")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_measurement_key"), "measurement", ["measurement_key"])
    op.create_index(op.f("ix_measurement_device"), "measurement", ["device_no", "started_unix_us"])
    op.create_index(op.f("ix_measurement_artifact"), "measurement", ["artifact_no"])


def _measurement_columns() -> Sequence[sa.Column[Any]]:
    return (
        sa.Column("measurement_id", sa.Text(), nullable=False),
        sa.Column("measurement_key", sa.Text(), nullable=False),
        sa.Column("artifact_no", sa.Integer(), nullable=False),
        sa.Column("device_no", sa.Integer(), nullable=False),
        sa.Column("environment_no", sa.Integer()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("engine_version", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("compute_unit", sa.Text(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("affinity_json", sa.Text(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("inputs_json", sa.Text(), nullable=False),
        sa.Column("parity_status", sa.Text(), nullable=False),
        sa.Column("protocol_version", sa.Integer(), nullable=False),
        sa.Column("started", sa.Text(), nullable=False),
        sa.Column("started_unix_us", WIDE, nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("processes", sa.Integer(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("p50_ns", WIDE),
        sa.Column("p50_low_ns", WIDE),
        sa.Column("p50_high_ns", WIDE),
        sa.Column("p90_ns", WIDE),
        sa.Column("p90_upper_ns", WIDE),
        sa.Column("p99_ns", WIDE),
        sa.Column("p99_upper_ns", WIDE),
        sa.Column("min_ns", WIDE),
        sa.Column("mean_ns", WIDE),
        sa.Column("load_ns", WIDE),
        sa.Column("first_ns", WIDE),
        sa.Column("iqr_ns", WIDE),
        sa.Column("mad_ns", WIDE),
        sa.Column("peak_rss_bytes", WIDE),
        sa.Column("grade", sa.Text(), nullable=False),
        sa.Column("flags_json", sa.Text(), nullable=False),
    )


def _measurement_checks() -> Sequence[sa.CheckConstraint]:
    return (
        sa.CheckConstraint(
            "status IN ('ok', 'failed', 'crashed', 'timeout', 'unsupported', 'throttled')",
            name=op.f("ck_measurement_status"),
        ),
        sa.CheckConstraint(
            "provenance IN ('published', 'measured', 'predicted', 'reconstructed')",
            name=op.f("ck_measurement_provenance"),
        ),
        sa.CheckConstraint(
            "length(measurement_id) = 64 AND length(measurement_key) = 64", name=op.f("ck_measurement_digests")
        ),
        sa.CheckConstraint(
            "p50_ns > 0 AND p50_low_ns > 0 AND p50_high_ns > 0 AND p90_ns > 0 AND p90_upper_ns > 0"
            " AND p99_ns > 0 AND p99_upper_ns > 0 AND min_ns > 0 AND mean_ns > 0 AND load_ns > 0 AND first_ns > 0",
            name=op.f("ck_measurement_positive"),
        ),
        sa.CheckConstraint("iqr_ns >= 0 AND mad_ns >= 0", name=op.f("ck_measurement_spread")),
        sa.CheckConstraint(
            "min_ns <= p50_ns AND p50_low_ns <= p50_ns AND p50_ns <= p50_high_ns AND p50_ns <= p90_ns"
            " AND p90_ns <= p99_ns AND p50_ns <= p99_ns AND p90_ns <= p90_upper_ns AND p99_ns <= p99_upper_ns",
            name=op.f("ck_measurement_ordered"),
        ),
        sa.CheckConstraint("status <> 'ok' OR p50_ns IS NOT NULL", name=op.f("ck_measurement_timed")),
        sa.CheckConstraint(
            "batch > 0 AND threads >= 0 AND processes >= 0 AND runs >= 0", name=op.f("ck_measurement_counts")
        ),
    )


def downgrade() -> None:
    for table in ("sample", "measurement", "environment", "device", "artifact", "model", "meta"):
        op.drop_table(table)
