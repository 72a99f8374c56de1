"""Tables of the latency database in SQLAlchemy Core, the same on SQLite and PostgreSQL.

A change here needs a migration in latency_db/migrations/versions; a test compares the two. Values that repeat from row
to row (model, artifact, device, environment) are stored once, under a number that has no meaning outside its database.
"""

from __future__ import annotations

import typing
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.sql.naming import conv
from sqlalchemy.types import TypeEngine

from edgevit.records.model import Provenance
from edgevit.records.origin import OriginKind
from edgevit.records.tuning import OperatorTimeKind
from edgevit_runtime.record import Status

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
# SQLite's INTEGER holds 64 bits and STRICT tables know no BIGINT; PostgreSQL's INTEGER holds 32.
# 64-bit floating point on both.
Real: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")
Wide = BigInteger().with_variant(Integer(), "sqlite")

model = Table(
    "model",
    METADATA,
    Column("model_no", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("family", Text, nullable=False),
    UniqueConstraint("name", "family"),
    sqlite_strict=True,
)

artifact = Table(
    "artifact",
    METADATA,
    Column("artifact_no", Integer, primary_key=True),
    Column("model_no", ForeignKey("model.model_no"), nullable=False),
    Column("target", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size_bytes", Wide, nullable=False),
    Column("graph_digest", Text, nullable=False),  # empty: unknown
    UniqueConstraint("model_no", "target", "sha256", "size_bytes", "graph_digest"),
    CheckConstraint("size_bytes >= 0", "size"),
    CheckConstraint("length(sha256) IN (0, 64)", "sha256"),
    CheckConstraint("length(graph_digest) IN (0, 64)", "graph"),
    sqlite_strict=True,
)

device = Table(
    "device",
    METADATA,
    Column("device_no", Integer, primary_key=True),
    Column("device_id", Text, nullable=False),
    Column("device_class", Text, nullable=False),
    Column("name", Text, nullable=False),  # a label: one device_id may have had several
    UniqueConstraint("device_id", "device_class", "name"),
    sqlite_strict=True,
)

environment = Table(
    "environment",
    METADATA,
    Column("environment_no", Integer, primary_key=True),
    Column("sha256", Text, nullable=False),  # identity.host_sha256
    Column("machine", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("kernel", Text, nullable=False),
    Column("python", Text, nullable=False),
    Column("cpu_model", Text, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory_bytes", Wide),
    Column("silicon_json", Text, nullable=False, server_default=text("'null'")),
    UniqueConstraint("sha256"),
    sqlite_strict=True,
)

TIMES_NS = (
    "p50_ns", "p50_low_ns", "p50_high_ns", "p90_ns", "p90_upper_ns", "p99_ns", "p99_upper_ns",
    "min_ns", "mean_ns", "load_ns", "cold_load_ns", "import_ns", "compile_ns", "first_ns",
)  # fmt: skip
# Columns of TIMES_NS that have no samples.
LOADING_NS = ("load_ns", "cold_load_ns", "import_ns", "compile_ns", "first_ns")
# Columns that may be zero.
SPREADS_NS = ("iqr_ns", "mad_ns")
# A comparison with NULL is NULL, and a CHECK refuses only what is false: absent percentiles pass.
ORDERED_NS = (
    ("min_ns", "p50_ns"), ("p50_low_ns", "p50_ns"), ("p50_ns", "p50_high_ns"), ("p50_ns", "p90_ns"),
    ("p90_ns", "p99_ns"), ("p50_ns", "p99_ns"), ("p90_ns", "p90_upper_ns"), ("p99_ns", "p99_upper_ns"),
    ("import_ns", "load_ns"), ("compile_ns", "load_ns"),
)  # fmt: skip


def _one_of(column: str, kind: object) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, typing.get_args(kind)))})", column)


def _digest(table: str, name: str) -> Column[str]:
    check = CheckConstraint(f"length({name}) IN (0, 64)", conv(f"ck_{table}_{name}"))
    return Column(name, Text, check, nullable=False, server_default=text("''"))


def _configuration() -> list[Column[Any]]:
    """Return the columns of the engine, the device and the settings that a time is of."""
    texts = ("target", "precision", "engine", "engine_version", "provider", "device", "device_id", "device_class")
    numbers = (Column(name, Integer, nullable=False) for name in ("threads", "batch"))
    return [*(Column(name, Text, nullable=False) for name in texts), *numbers]


measurement = Table(
    "measurement",
    METADATA,
    Column("measurement_id", Text, primary_key=True),
    Column("measurement_key", Text, nullable=False),
    Column("artifact_no", ForeignKey("artifact.artifact_no"), nullable=False),
    Column("device_no", ForeignKey("device.device_no"), nullable=False),
    Column("environment_no", ForeignKey("environment.environment_no")),
    Column("status", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("provenance", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("precision", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("engine_version", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("compute_unit", Text, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("affinity_json", Text, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("inputs_json", Text, nullable=False),
    Column("parity_status", Text, nullable=False),
    Column("protocol_version", Integer, nullable=False),
    Column("started", Text, nullable=False),  # ISO 8601, unchanged: the id is made of this text
    Column("started_unix_us", Wide, nullable=False),  # the same instant, to sort by
    Column("nonce", Text, nullable=False),
    Column("processes", Integer, nullable=False),
    Column("runs", Integer, nullable=False),
    *(Column(name, Wide) for name in TIMES_NS + SPREADS_NS),
    Column("peak_rss_bytes", Wide),
    Column("energy_j", Real),  # per run
    Column("rate_hz", Real),  # NULL: run after run
    Column("missed", Integer),
    Column("discarded", Integer, nullable=False),
    Column("grade", Text, nullable=False),
    Column("flags_json", Text, nullable=False),
    Column("licence", Text, nullable=False, server_default=text("''")),
    # Names of the fields that the source of a published row leaves out.
    Column("untold_json", Text, nullable=False, server_default=text("'[]'")),
    # See records.network.Network; null: not recorded.
    Column("network_json", Text, nullable=False, server_default=text("'null'")),
    # See row_checksums.py; empty only while a migration is under way.
    _digest("measurement", "evidence_sha256"),
    _digest("measurement", "row_sha256"),
    _one_of("status", Status),
    _one_of("provenance", Provenance),
    CheckConstraint("length(measurement_id) = 64 AND length(measurement_key) = 64", "digests"),
    CheckConstraint(" AND ".join(f"{name} > 0" for name in TIMES_NS), "positive"),
    CheckConstraint(" AND ".join(f"{name} >= 0" for name in SPREADS_NS), "spread"),
    CheckConstraint(" AND ".join(f"{low} <= {high}" for low, high in ORDERED_NS), "ordered"),
    CheckConstraint("status <> 'ok' OR p50_ns IS NOT NULL OR mean_ns IS NOT NULL", "timed"),
    CheckConstraint("batch > 0 AND threads >= 0 AND processes >= 0 AND runs >= 0", "counts"),
    CheckConstraint("discarded >= 0 AND missed >= 0", "blocks"),
    CheckConstraint("energy_j > 0 AND rate_hz > 0", "rates"),
    CheckConstraint("missed IS NULL OR rate_hz IS NOT NULL", "missed"),
    Index("ix_measurement_key", "measurement_key"),
    Index("ix_measurement_device", "device_no", "started_unix_us"),
    # The index alone answers which devices have rows of a model.
    Index("ix_measurement_artifact", "artifact_no", "device_no"),
    sqlite_strict=True,
)

sample = Table(
    "sample",
    METADATA,
    Column("measurement_id", ForeignKey("measurement.measurement_id"), primary_key=True),
    Column("process", Integer, primary_key=True, autoincrement=False),
    Column("runs", Integer),  # NULL: no samples, snapshots only
    Column("samples_zlib", LargeBinary),  # see rows.pack
    Column("told_json", Text),  # the summary that a vendor's program reports in place of samples
    Column("snapshots_json", Text, nullable=False),  # before and after
    CheckConstraint("(runs IS NULL) = (samples_zlib IS NULL)", "runs"),
    CheckConstraint("samples_zlib IS NULL OR told_json IS NULL", "told"),
    sqlite_strict=True,
)

# Digests of code that was built here: payloads that are code, and models of artifacts (artifacts/trust.py).
built = Table(
    "built",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("target", Text, nullable=False),
    Column("built", Text, nullable=False),  # ISO 8601, UTC
    CheckConstraint("length(sha256) = 64", "sha256"),
    sqlite_strict=True,
)

# Differences between repeats of one workload on a device; see edgevit/measurement/noise_floor.py.
noise = Table(
    "noise",
    METADATA,
    Column("device_id", Text, primary_key=True),
    Column("started", Text, primary_key=True),  # ISO 8601, UTC
    Column("device", Text, nullable=False),
    Column("workload", Text, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("share", Real, nullable=False),
    Column("p50s_ns_json", Text, nullable=False),
    Column("protocol_version", Integer, nullable=False),
    CheckConstraint("share >= 0", "share"),
    sqlite_strict=True,
)

# See records.measurement.Accuracy; the id is the digest of all other columns.
accuracy = Table(
    "accuracy",
    METADATA,
    Column("accuracy_id", Text, primary_key=True),
    Column("provenance", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("metric", Text, nullable=False),  # with its unit: top1_percent
    Column("value", Real, nullable=False),
    Column("error", Real),
    Column("examples", Wide),
    Column("source", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("untold_json", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("precision", Text, nullable=False),
    Column("artifact_sha256", Text, nullable=False),
    Column("graph_digest", Text, nullable=False),
    Column("weights_sha256", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("engine_version", Text, nullable=False),
    Column("input_size_json", Text, nullable=False),
    Column("dataset_sha256", Text, nullable=False),
    Column("started", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("assumed_json", Text, nullable=False, server_default=text("'[]'")),
    Column("preprocessing_json", Text, nullable=False, server_default=text("'null'")),
    Column("network_json", Text, nullable=False, server_default=text("'null'")),
    _one_of("provenance", Provenance),
    CheckConstraint("length(accuracy_id) = 64", "digest"),
    CheckConstraint("value >= 0 AND (metric NOT IN ('top1_percent', 'top5_percent') OR value <= 100)", "percent"),
    CheckConstraint("error >= 0 AND examples > 0", "error"),
    CheckConstraint("provenance <> 'published' OR source <> ''", "source"),
    Index("ix_accuracy_model", "model", "dataset"),
    sqlite_strict=True,
)

# See records.measurement.Confusion; the id is the digest of the other columns.
confusion = Table(
    "confusion",
    METADATA,
    Column("confusion_id", Text, primary_key=True),
    Column("accuracy_id", Text, nullable=False),
    Column("labels_json", Text, nullable=False),
    Column("counts_json", Text, nullable=False),
    CheckConstraint("length(confusion_id) = 64 AND length(accuracy_id) = 64", "digests"),
    sqlite_strict=True,
)

# See records.model.Graph; the id is the digest of the other columns.
graph = Table(
    "graph",
    METADATA,
    Column("graph_id", Text, primary_key=True),
    Column("graph_digest", Text, nullable=False),
    Column("operators_json", Text, nullable=False),
    CheckConstraint("length(graph_id) = 64 AND length(graph_digest) = 64", "digests"),
    sqlite_strict=True,
)

# See records.tuning.OperatorTime; the id is the digest of the other columns.
operator_time = Table(
    "operator_time",
    METADATA,
    Column("operator_time_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("form", Text, nullable=False),
    *_configuration(),
    Column("macs", Wide),
    Column("moved_bytes", Wide),
    Column("p50_ns", Wide, nullable=False),
    Column("p50_low_ns", Wide, nullable=False),
    Column("p50_high_ns", Wide, nullable=False),
    Column("processes", Integer, nullable=False),
    Column("runs", Integer, nullable=False),
    Column("started", Text, nullable=False),
    Column("protocol_version", Integer, nullable=False),
    _one_of("kind", OperatorTimeKind),
    CheckConstraint("length(operator_time_id) = 64", "digest"),
    CheckConstraint("p50_low_ns > 0 AND p50_low_ns <= p50_ns AND p50_ns <= p50_high_ns", "ordered"),
    Index("ix_operator_time_site", "site", "target"),
    sqlite_strict=True,
)

# See records.tuning.Tuning; the id is the digest of the other columns.
tuning = Table(
    "tuning",
    METADATA,
    Column("tuning_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("graph_digest", Text, nullable=False),
    *_configuration(),
    Column("forms_json", Text, nullable=False),
    Column("gain_json", Text, nullable=False),
    Column("over_default_json", Text, nullable=False),
    Column("tried_json", Text, nullable=False),
    Column("complete", Integer, nullable=False),
    Column("started", Text, nullable=False),
    Column("protocol_version", Integer, nullable=False),
    CheckConstraint("length(tuning_id) = 64 AND length(graph_digest) = 64", "digests"),
    Index("ix_tuning_model", "model", "target"),
    sqlite_strict=True,
)

# See records.origin.Origin. Beside the records, and in no digest: two databases may have one record from two sources.
origin = Table(
    "origin",
    METADATA,
    Column("origin_no", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("installation", Text, nullable=False),
    Column("written_by", Text, nullable=False),
    Column("since", Text, nullable=False),  # ISO 8601, UTC
    _one_of("kind", OriginKind),
    sqlite_strict=True,
)

# Sources that somebody decided to trust, or not to.
trust = Table(
    "trust",
    METADATA,
    Column("source", Text, primary_key=True),  # of origins
    Column("is_trusted", Integer, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("since", Text, nullable=False),  # ISO 8601, UTC
    CheckConstraint("is_trusted IN (0, 1)", "decision"),
    sqlite_strict=True,
)

# Records that were deleted because their source was forgotten; see forgetting.py.
forgotten = Table(
    "forgotten",
    METADATA,
    Column("record_id", Text, primary_key=True),  # origins.record_id
    Column("source", Text, nullable=False),
    Column("since", Text, nullable=False),  # ISO 8601, UTC
    Column("forgotten_by", Text, nullable=False),
    sqlite_strict=True,
)

record_origin = Table(
    "record_origin",
    METADATA,
    Column("record_id", Text, primary_key=True),  # origins.record_id
    Column("origin_no", ForeignKey("origin.origin_no"), primary_key=True),
    sqlite_strict=True,
)

# Derived from rows and noise floors by epochs.py, and stored for people and for SQL.
epoch = Table(
    "epoch",
    METADATA,
    Column("device_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("device", Text, nullable=False),
    Column("started", Text, nullable=False),  # ISO 8601, UTC
    Column("measurement_id", ForeignKey("measurement.measurement_id"), nullable=False),
    Column("reference_id", ForeignKey("measurement.measurement_id"), nullable=False),
    Column("ratio", Real, nullable=False),
    Column("limit_share", Real, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint("number > 0 AND ratio > 0 AND limit_share > 0", "positive"),
    sqlite_strict=True,
)

# Requests of sweeps on this machine; they are not exported.
sweep = Table(
    "sweep",
    METADATA,
    Column("sweep_id", Text, primary_key=True),
    Column("started", Text, nullable=False),  # ISO 8601, UTC
    Column("device_id", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("asked_json", Text, nullable=False),
    CheckConstraint("threads > 0", "threads"),
    sqlite_strict=True,
)

# The rows that a sweep added.
sweep_row = Table(
    "sweep_row",
    METADATA,
    Column("sweep_id", ForeignKey("sweep.sweep_id"), primary_key=True),
    Column("measurement_id", ForeignKey("measurement.measurement_id"), primary_key=True),
    sqlite_strict=True,
)

# Names that a user gave to rows; see tags.py.
tag = Table(
    "tag",
    METADATA,
    Column("tag", Text, primary_key=True),
    Column("measurement_id", ForeignKey("measurement.measurement_id"), primary_key=True),
    Column("tagged", Text, nullable=False),  # ISO 8601, UTC
    CheckConstraint("tag <> ''", "name"),
    sqlite_strict=True,
)

# Refused records as they came, with the reason; never read for an answer.
quarantine = Table(
    "quarantine",
    METADATA,
    Column("quarantine_id", Text, primary_key=True),  # sha256 of content and reason
    Column("noticed", Text, nullable=False),  # ISO 8601, UTC
    Column("place", Text, nullable=False),  # "rows.jsonl, line 3"
    Column("reason", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),  # the line, or the readable columns as JSON
    Column("size_bytes", Wide, nullable=False),  # of the content before it was cut
    CheckConstraint("length(quarantine_id) = 64", "digest"),
    CheckConstraint("size_bytes >= 0", "size"),
    sqlite_strict=True,
)

# Row counts and checksums of partitions; see partition_checksums.py.
partition_checksum = Table(
    "tally",
    METADATA,
    Column("part", Text, primary_key=True),
    Column("lines", Wide, nullable=False),
    Column("digest", Wide, nullable=False),
    Column("latest_unix_us", Wide),
    Column("seal", Wide, nullable=False),  # checksum of the row itself
    CheckConstraint("lines >= 0", "lines"),
    sqlite_strict=True,
)

meta = Table(
    "meta",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)
