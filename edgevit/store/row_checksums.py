"""Checksums of stored rows; every reader notices a changed bit.

The id of a measurement covers what was measured and the raw samples. It does not cover the summary, the grade or the
labels. The checksum of a row does: it is made of every column of the row, and of the digest of its samples and
snapshots. A listing can be checked without its samples. The checksum is exported with the row.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any

# Hex digits of a digest that make an integer: 60 bits, which every database holds.
SHORT_HEX_DIGITS = 15
# default=str: a damaged file may hold bytes where a text was written, and then the digest is another.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False)
# The columns of a row (rows.head_query) in its digest, in the order of this list, which never changes. The names are
# not in the digest: that would take twice as long, and a choice waits for the digests of many rows.
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
# Columns of later schemas, with their empty values. The digest has them, with their names, only where they are not
# empty: a new column changes the digest of no older row.
LATER: dict[str, Any] = {"network_json": "null", "host_silicon_json": "null"}
_always = operator.itemgetter(*_ALWAYS)


def row_sha256(values: Mapping[str, Any]) -> str:
    """Compute the digest of a row, from the columns of rows.head_query by name."""
    later = [[name, values[name]] for name, empty in LATER.items() if values[name] != empty]
    return _digest([*_always(values), *later])


def line_checksum(values: Iterable[Any]) -> int:
    """Compute the checksum of one row of a small table, as an integer of 60 bits."""
    return shorten(_digest(list(values)))


def shorten(sha256: str) -> int:
    """Return a digest in hex as an integer of 60 bits. Raises ValueError for a text that is no digest."""
    return int(sha256[:SHORT_HEX_DIGITS], 16)


def _digest(values: Any) -> str:
    return hashlib.sha256(_ENCODER.encode(values).encode("ascii")).hexdigest()
