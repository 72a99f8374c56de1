"""What names a measurement: digests of what was measured (the key) and of one act of measuring it (the id).

Two sites that measure the same thing compute the same key, and no two acts share an id, so that merging databases is a
union of sets. Every digest is sha256, in hex, over canonical JSON (edgevit_runtime.record.to_json).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence

from edgevit.errors import StoreError
from edgevit.records.measurement import Accuracy, Measurement
from edgevit.records.model import Graph, OperatorCost
from edgevit_runtime.record import Host, Snapshot, VendorSummary, to_data, to_json


def host_sha256(host: Host | None) -> str:
    """Digest of the environment that stays as it is while a measurement runs; empty where it is not known."""
    return "" if host is None else _sha256(to_json(host))


def samples_sha256(samples_ns: Sequence[Sequence[int]]) -> str:
    """Digest of the raw samples in nanoseconds, per process and in the order they were taken."""
    return _sha256(json.dumps(samples_ns, separators=(",", ":"), allow_nan=False))


def evidence_sha256(
    samples_ns: Sequence[Sequence[int]], snapshots: Sequence[Snapshot], told: Sequence[VendorSummary] = ()
) -> str:
    """Digest of what a row rests on: its raw samples, or what was told in their place, and the snapshots around."""
    what = {"samples": samples_sha256(samples_ns), "snapshots": snapshots}
    return _sha256(to_json({**what, "told": told} if told else what))


def accuracy_id(accuracy: Accuracy) -> str:
    """Digest of all that an accuracy says, but for the id itself: the same statement has the same id everywhere."""
    said = {name: value for name, value in to_data(accuracy).items() if name != "accuracy_id"}
    for name in ("value", "error"):  # 75 and 75.0 are one number, and two texts
        said[name] = None if said[name] is None else float(said[name])
    return _sha256(to_json(said))


def graph_id(graph: Graph) -> str:
    """Digest of a network's digest and operators: the same list has the same id everywhere."""
    numbers = ("macs", "parameters", "activations")  # 75 and 75.0 are one number, and two texts
    listed = [[item.kind, *(float(getattr(item, name)) for name in numbers), item.count] for item in graph.operators]
    return _sha256(to_json({"graph_digest": graph.graph_digest, "operators": listed}))


def identify_graph(graph_digest: str, operators: Iterable[OperatorCost]) -> Graph:
    """A graph with its id; `operators` are merged (edgevit.count.merged)."""
    graph = Graph("", graph_digest, tuple(operators))
    return dataclasses.replace(graph, graph_id=graph_id(graph))


def identify_accuracy(accuracy: Accuracy) -> Accuracy:
    """The accuracy with its id filled in."""
    return dataclasses.replace(accuracy, accuracy_id=accuracy_id(accuracy))


def measurement_key(
    *,
    artifact: str,
    engine: str,
    engine_version: str,
    provider: str,
    device_id: str,
    host: Host | None,
    compute_unit: str,
    threads: int,
    affinity: Sequence[int],
    precision: str,
    shapes: Sequence[Sequence[int]],
    batch: int,
    protocol_version: int,
    rate_hz: float | None = None,
) -> str:
    """Digest of what is measured; a sweep asks the database for it before measuring.

    `artifact` is the artifact's sha256, or "model/target" where nothing could be built. `shapes` are those of the
    inputs, in their order. `affinity` holds the cores that the process is held to. `rate_hz` is in the
    digest only where there is one.
    """
    what = {
        "artifact": artifact,
        "engine": [engine, engine_version],
        "provider": provider,
        "device_id": device_id,
        "environment": host_sha256(host),
        "compute_unit": compute_unit,
        "threads": threads,
        "affinity": sorted(affinity),
        "precision": precision,
        "shapes": shapes,
        "batch": batch,
        "protocol_version": protocol_version,
    }
    return _sha256(to_json(what if rate_hz is None else {**what, "rate_hz": float(rate_hz)}))


def measurement_id(
    key: str, started: str, nonce: str, samples_ns: Sequence[Sequence[int]], told: Sequence[VendorSummary] = ()
) -> str:
    """Digest of one act of measuring `key`: when it started (ISO 8601), its nonce and its raw samples in ns.

    What a vendor's program told in place of samples is in the digest only where there is such.
    """
    what = {"key": key, "started": started, "nonce": nonce, "samples": samples_sha256(samples_ns)}
    return _sha256(to_json({**what, "told": told} if told else what))


def identify(measurement: Measurement) -> Measurement:
    """The row with its key and id filled in; identifying it again changes nothing.

    Where they are not set, the affinity is read off the first snapshot, and a measured row gets a random nonce.
    A published row keeps the nonce it has, so that transcribing one table twice gives one row.
    """
    affinity = measurement.affinity
    if not affinity and measurement.snapshots:
        affinity = measurement.snapshots[0].affinity
    nonce = measurement.nonce
    if not nonce and measurement.provenance == "measured":
        nonce = secrets.token_hex(16)
    row = dataclasses.replace(measurement, affinity=affinity, nonce=nonce)
    key = _key_of(row)
    return dataclasses.replace(
        row, measurement_key=key, measurement_id=measurement_id(key, row.started, nonce, row.samples_ns, row.told)
    )


def validate_identity(measurement: Measurement) -> None:
    """Check that key and id are the digests of the row they name. The row must hold its samples (LatencyDB.get).

    Raises StoreError with the part that disagrees: the row was altered, damaged or never identified.
    """
    if measurement.measurement_key != (key := _key_of(measurement)):
        why = f"what was measured gives {key[:12]}..., the row says {measurement.measurement_key[:12]!r}"
        raise StoreError("the measurement_key is not that of the row", why=why, fix=_ALTERED)
    started, nonce = measurement.started, measurement.nonce
    found = measurement_id(key, started, nonce, measurement.samples_ns, measurement.told)
    if measurement.measurement_id != found:
        why = f"key, start, nonce and samples give {found[:12]}..., the row says {measurement.measurement_id[:12]!r}"
        raise StoreError("the measurement_id is not that of the row", why=why, fix=_ALTERED)


_ALTERED = "the row was altered after it was measured: fetch it from its source again, or measure again"


def _key_of(row: Measurement) -> str:
    return measurement_key(
        artifact=row.artifact_sha256 or f"{row.model}/{row.target}",
        engine=row.engine,
        engine_version=row.engine_version,
        provider=row.provider,
        device_id=row.device_id,
        host=row.host,
        compute_unit=row.compute_unit,
        threads=row.threads,
        affinity=row.affinity,
        precision=row.precision,
        shapes=[spec.shape for spec in row.inputs],
        batch=row.batch,
        protocol_version=row.protocol_version,
        rate_hz=row.rate_hz,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
