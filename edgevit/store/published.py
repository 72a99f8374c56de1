"""Rows that somebody else published: what the source says, under which licence, and what it leaves out."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from edgevit.records.identity import identify
from edgevit.records.measurement import PROTOCOL_VERSION, Measurement
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import TensorSpec

# What a row without them does not say; the last two no published row has.
_MAY_BE_UNTOLD = (
    "licence", "engine_version", "compute_unit", "threads", "inputs", "started", "artifact_sha256", "artifact_bytes",
    "p90_ns", "p99_ns", "min_ns", "mean_ns", "load_ns", "peak_rss_bytes",
)  # fmt: skip
_NEVER_TOLD = ("samples", "host")
_TIMES = (
    "p50_ns", "p50_low_ns", "p50_high_ns", "p90_ns", "p90_upper_ns", "p99_ns", "p99_upper_ns", "min_ns", "mean_ns",
    "iqr_ns", "mad_ns", "load_ns", "first_ns", "peak_rss_bytes",
)  # fmt: skip
UNDATED = "1970-01-01T00:00:00+00:00"  # of a source without a date


def published_row(
    *,
    source: str,
    licence: str,
    model: str,
    device: str,
    target: str,
    precision: str,
    engine: str,
    p50_ns: int | None,
    family: str = "",
    device_class: str = "",
    device_id: str = "",
    engine_version: str = "",
    provider: str = "",
    compute_unit: str = "",
    threads: int = 0,
    batch: int = 1,
    inputs: tuple[TensorSpec, ...] = (),
    started: str = "",
    artifact_bytes: int = 0,
    runs: int = 0,
    **others: Any,
) -> Measurement:
    """A row as a source has it, identified: transcribing it twice gives one row, and two numbers of one thing give two.

    Times are nanoseconds. `others` are further fields of a Measurement that the source tells: p90_ns, status, error,
    untold... What it does not tell is left out, and named in `untold`. `started`: ISO 8601, UTC, of the run or, where
    that is not told, of the publication. LatencyDB.add validates it like any row.
    """
    told: dict[str, Any] = {
        **dict.fromkeys(_TIMES),
        **dict.fromkeys(("measurement_id", "measurement_key", "artifact_sha256"), ""),
        **dict.fromkeys(("error", "parity_status", "grade"), ""),
        **dict.fromkeys(("flags", "snapshots", "samples_ns"), ()),
        **{"status": "ok", "provenance": "published", "processes": 0, "host": None},
        **{"protocol_version": PROTOCOL_VERSION, "p50_ns": p50_ns, **others},
    }
    row = Measurement(
        source=source,
        licence=licence,
        model=model,
        family=family,
        target=target,
        precision=precision,
        artifact_bytes=artifact_bytes,
        engine=engine,
        engine_version=engine_version,
        provider=provider,
        device=device,
        device_id=device_id or device,
        device_class=device_class or device,
        compute_unit=compute_unit,
        threads=threads,
        batch=batch,
        inputs=inputs,
        started=started or UNDATED,
        runs=runs,
        **told,
    )
    untold = {name for name in _MAY_BE_UNTOLD if not getattr(row, name)} | {*_NEVER_TOLD, *row.untold}
    row = dataclasses.replace(row, untold=tuple(sorted(untold if started else {*untold, "started"})))
    nonce = row.nonce or hashlib.sha256(to_json(row).encode()).hexdigest()[:32]
    return identify(dataclasses.replace(row, nonce=nonce))
