"""Digests of what is stored, so that a changed bit is noticed by whoever reads it.

The id of a measurement names what was measured and the raw samples; it does not cover the summary, the grade or the
labels. The digest of a row does: it is made of every column that a reading gives, and of the digest of the evidence,
so that a listing can be checked without its samples. It travels with the row.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any

SEAL_HEX = 15  # hex digits of a digest that make an integer: 60 bits, which every database holds
# default=str: a damaged file may hold bytes where a text was written, and then the digest is another
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False)
# The columns of a row (rows.head) that its digest is made of, by their place in this list, which never changes: the
# names are not in the digest, because that would take twice as long, and a choice waits for the digests of many rows.
_ALWAYS = (
    "affinity_json", "artifact_bytes", "artifact_sha256", "batch", "cold_load_ns", "compile_ns", "compute_unit",
    "device", "device_class", "device_id", "discarded", "energy_j", "engine", "engine_version", "error",
    "evidence_sha256", "family", "first_ns", "flags_json", "grade", "graph_digest", "host_cores", "host_cpu_model",
    "host_kernel", "host_machine", "host_memory_bytes", "host_python", "host_system", "import_ns", "inputs_json",
    "iqr_ns", "licence", "load_ns", "mad_ns", "mean_ns", "measurement_id", "measurement_key", "min_ns", "missed",
    "model", "nonce", "p50_high_ns", "p50_low_ns", "p50_ns", "p90_ns", "p90_upper_ns", "p99_ns", "p99_upper_ns",
    "parity_status", "peak_rss_bytes", "precision", "processes", "protocol_version", "provenance", "provider",
    "rate_hz", "runs", "source", "started", "started_unix_us", "status", "target", "threads", "untold_json",
)  # fmt: skip
# Columns of later schemas, with what they hold where nothing is told. They are in the digest, with their names, only
# where something is, so that a new column changes the digest of no older row.
LATER: dict[str, Any] = {}
_always = operator.itemgetter(*_ALWAYS)


def row_sha256(values: Mapping[str, Any]) -> str:
    """Digest of a row of the measurement table, joined with those it refers to, by the names of columns (rows.head)."""
    told = [[name, values[name]] for name, nothing in LATER.items() if values[name] != nothing]
    return _digest([*_always(values), *told])


def line_seal(values: Iterable[Any]) -> int:
    """Digest of one line of a small table, as an integer of 60 bits."""
    return as_seal(_digest(list(values)))


def as_seal(sha256: str) -> int:
    """A digest in hex as an integer of 60 bits. Raises ValueError for what is no digest."""
    return int(sha256[:SEAL_HEX], 16)


def _digest(values: Any) -> str:
    return hashlib.sha256(_ENCODER.encode(values).encode("ascii")).hexdigest()
