"""Published rows: what a source states, its licence, and what it leaves out."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

from edgevit.records.identity import identify
from edgevit.records.measurement import PROTOCOL_VERSION, Measurement
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Status, TensorSpec

# Fields that `untold` names where a row lacks them. No published row has the last two.
_OPTIONAL_FIELDS = (
    "licence", "engine_version", "compute_unit", "threads", "inputs", "started", "artifact_sha256", "artifact_bytes",
    "p90_ns", "p99_ns", "min_ns", "mean_ns", "load_ns", "peak_rss_bytes",
)  # fmt: skip
_NEVER_PUBLISHED = ("samples", "host")
UNDATED = "1970-01-01T00:00:00+00:00"  # start of a row whose source has no date


@dataclass(frozen=True, kw_only=True)
class PublishedValues:
    """Values that a source states for one row; those that it leaves out keep their defaults.

    Times are nanoseconds. `started` is ISO 8601 in UTC: of the run, or of the publication where the source has no
    other. `untold` names fields whose values are placeholders, such as a batch of 1.
    """

    source: str
    licence: str
    model: str
    device: str
    target: str
    precision: str
    engine: str
    p50_ns: int | None
    family: str = ""
    device_class: str = ""
    device_id: str = ""
    engine_version: str = ""
    provider: str = ""
    compute_unit: str = ""
    threads: int = 0
    batch: int = 1
    inputs: tuple[TensorSpec, ...] = ()
    started: str = ""
    artifact_sha256: str = ""
    artifact_bytes: int = 0
    graph_digest: str = ""
    runs: int = 0
    min_ns: int | None = None
    mean_ns: int | None = None
    p90_ns: int | None = None
    p99_ns: int | None = None
    load_ns: int | None = None
    peak_rss_bytes: int | None = None
    status: Status = "ok"
    error: str = ""
    flags: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


def published_row(values: PublishedValues) -> Measurement:
    """Build an identified row of provenance `published` from what its source states.

    The same values give the same row each time, and other values another row. `untold` of the row names what the
    source leaves out. LatencyDB.add validates it like any row.
    """
    fields = dict(vars(values))
    fields |= {
        "device_id": values.device_id or values.device,
        "device_class": values.device_class or values.device,
        "started": values.started or UNDATED,
    }
    row = Measurement(
        measurement_id="",
        measurement_key="",
        provenance="published",
        parity_status="",
        protocol_version=PROTOCOL_VERSION,
        processes=0,
        first_ns=None,
        p50_low_ns=None,
        p50_high_ns=None,
        p90_upper_ns=None,
        p99_upper_ns=None,
        iqr_ns=None,
        mad_ns=None,
        grade="",
        host=None,
        snapshots=(),
        samples_ns=(),
        **fields,
    )
    untold = {name for name in _OPTIONAL_FIELDS if not getattr(row, name)} | {*_NEVER_PUBLISHED, *values.untold}
    if not values.started:
        untold.add("started")
    row = dataclasses.replace(row, untold=tuple(sorted(untold)))
    nonce = row.nonce or hashlib.sha256(to_json(row).encode()).hexdigest()[:32]
    return identify(dataclasses.replace(row, nonce=nonce))
