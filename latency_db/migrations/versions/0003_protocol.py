"""Parts of loading, rates, discarded blocks and energy of a measurement; noise floors; summaries of vendors' programs.

SQLite cannot change the checks of a table. Measurements and their samples are copied aside, and go into new tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
NEW_TIMES = ("cold_load_ns", "import_ns", "compile_ns")
TOLD = "samples_zlib IS NULL OR told_json IS NULL"
NEW = (*NEW_TIMES, "energy_j", "rate_hz", "missed", "discarded")


def upgrade() -> None:
    _rebuild(new=True)
    op.create_table(
        "noise",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("started", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("workload", sa.Text(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("share", REAL, nullable=False),
        sa.Column("p50s_ns_json", sa.Text(), nullable=False),
        sa.Column("protocol_version", sa.Integer(), nullable=False),
        sa.CheckConstraint("share >= 0", name=op.f("ck_noise_share")),
        sa.PrimaryKeyConstraint("device_id", "started", name=op.f("pk_noise")),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """Drop rows of a rate, which older tables cannot distinguish from others, and rows without samples."""
    op.drop_table("noise")
    op.execute("CREATE TEMPORARY TABLE lost AS SELECT measurement_id FROM measurement WHERE rate_hz IS NOT NULL "
               "UNION SELECT measurement_id FROM sample WHERE told_json IS NOT NULL")  # fmt: skip
    for table in ("sample", "measurement"):
        op.execute(f"DELETE FROM {table} WHERE measurement_id IN (SELECT measurement_id FROM lost)")
    op.execute("DROP TABLE lost")
    _rebuild(new=False)


def _rebuild(*, new: bool) -> None:
    columns = [column["name"] for column in sa.inspect(op.get_bind()).get_columns("measurement")]
    op.execute("CREATE TEMPORARY TABLE kept_sample AS SELECT * FROM sample")
    op.execute("CREATE TEMPORARY TABLE kept_measurement AS SELECT * FROM measurement")
    op.drop_table("sample")
    op.drop_table("measurement")
    _measurement(new=new)
    _sample(new=new)
    names = ", ".join(name for name in columns if name not in NEW)
    more, values = (", discarded", ", 0") if new else ("", "")
    op.execute(f"INSERT INTO measurement ({names}{more}) SELECT {names}{values} FROM kept_measurement")
    parts = "measurement_id, process, runs, samples_zlib, snapshots_json"
    op.execute(f"INSERT INTO sample ({parts}) SELECT {parts} FROM kept_sample")
    op.execute("DROP TABLE kept_sample")
    op.execute("DROP TABLE kept_measurement")


def _new_columns() -> Sequence[sa.Column[object]]:
    return (
        sa.Column("energy_j", REAL),
        sa.Column("rate_hz", REAL),
        sa.Column("missed", sa.Integer()),
        sa.Column("discarded", sa.Integer(), nullable=False),
    )


def _new_checks() -> Sequence[sa.CheckConstraint]:
    return (
        sa.CheckConstraint("discarded >= 0 AND missed >= 0", name=op.f("ck_measurement_blocks")),
        sa.CheckConstraint("energy_j > 0 AND rate_hz > 0", name=op.f("ck_measurement_rates")),
        sa.CheckConstraint("missed IS NULL OR rate_hz IS NOT NULL", name=op.f("ck_measurement_missed")),
    )


def _sample(*, new: bool) -> None:
    op.create_table(
        "sample",
        sa.Column("measurement_id", sa.Text(), nullable=False),
        sa.Column("process", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("runs", sa.Integer()),
        sa.Column("samples_zlib", sa.LargeBinary()),
        *((sa.Column("told_json", sa.Text()),) if new else ()),
        sa.Column("snapshots_json", sa.Text(), nullable=False),
        sa.CheckConstraint("(runs IS NULL) = (samples_zlib IS NULL)", name=op.f("ck_sample_runs")),
        *((sa.CheckConstraint(TOLD, name=op.f("ck_sample_told")),) if new else ()),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurement.measurement_id"], name=op.f("fk_sample_measurement_id")
        ),
        sa.PrimaryKeyConstraint("measurement_id", "process", name=op.f("pk_sample")),
        sqlite_strict=True,
    )


def _measurement(*, new: bool) -> None:
    op.create_table(
        "measurement",
        *_measurement_columns(new=new),
        *_measurement_checks(new=new),
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


def _measurement_columns(*, new: bool) -> Sequence[sa.Column[Any]]:
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
        *(sa.Column(name, WIDE) for name in NEW_TIMES if new),
        sa.Column("first_ns", WIDE),
        sa.Column("iqr_ns", WIDE),
        sa.Column("mad_ns", WIDE),
        sa.Column("peak_rss_bytes", WIDE),
        *(_new_columns() if new else ()),
        sa.Column("grade", sa.Text(), nullable=False),
        sa.Column("flags_json", sa.Text(), nullable=False),
    )


def _measurement_checks(*, new: bool) -> Sequence[sa.CheckConstraint]:
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
            " AND p99_ns > 0 AND p99_upper_ns > 0 AND min_ns > 0 AND mean_ns > 0 AND load_ns > 0"
            + "".join(f" AND {name} > 0" for name in NEW_TIMES if new)
            + " AND first_ns > 0",
            name=op.f("ck_measurement_positive"),
        ),
        sa.CheckConstraint("iqr_ns >= 0 AND mad_ns >= 0", name=op.f("ck_measurement_spread")),
        sa.CheckConstraint(
            "min_ns <= p50_ns AND p50_low_ns <= p50_ns AND p50_ns <= p50_high_ns AND p50_ns <= p90_ns"
            " AND p90_ns <= p99_ns AND p50_ns <= p99_ns AND p90_ns <= p90_upper_ns AND p99_ns <= p99_upper_ns"
            + (" AND import_ns <= load_ns AND compile_ns <= load_ns" if new else ""),
            name=op.f("ck_measurement_ordered"),
        ),
        sa.CheckConstraint(
            "status <> 'ok' OR p50_ns IS NOT NULL" + (" OR mean_ns IS NOT NULL" if new else ""),
            name=op.f("ck_measurement_timed"),
        ),
        sa.CheckConstraint(
            "batch > 0 AND threads >= 0 AND processes >= 0 AND runs >= 0", name=op.f("ck_measurement_counts")
        ),
        *(_new_checks() if new else ()),
    )
