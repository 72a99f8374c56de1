"""Digests that identify measurements: the key of a configuration, and the id of one measurement of it.

Two sites that measure the same configuration compute the same key, and no two measurements share an id. So merging
databases is a union of sets. Every digest is a sha256 in hex over canonical JSON (edgevit_runtime.codec.to_json).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgevit.errors import StoreError
from edgevit.records.measurement import Accuracy, Confusion, Measurement
from edgevit.records.model import Graph, OperatorCost
from edgevit.records.tuning import OperatorTime, Tuning
from edgevit_runtime.codec import to_data, to_json
from edgevit_runtime.record import Host, Snapshot, VendorSummary

_LATER = ("runnable", "quota_throttled_us")  # fields of a Snapshot


def host_sha256(host: Host | None) -> str:
    """Return the digest of the environment that is constant during a measurement; empty where it is unknown.

    The silicon is in it only where it is known: older rows keep their keys.
    """
    if host is None:
        return ""
    return _sha256(to_json({name: value for name, value in vars(host).items() if name != "silicon" or value}))


def samples_sha256(samples_ns: Sequence[Sequence[int]]) -> str:
    """Return the digest of the raw samples in nanoseconds, per process and in the order they were taken."""
    return _sha256(json.dumps(samples_ns, separators=(",", ":"), allow_nan=False))


def evidence_sha256(
    samples_ns: Sequence[Sequence[int]], snapshots: Sequence[Snapshot], summaries: Sequence[VendorSummary] = ()
) -> str:
    """Return the digest of a row's evidence: its raw samples or vendor's summaries, and its snapshots."""
    # Later fields are in the digest only where they tell something: older rows keep theirs.
    told = [
        {name: value for name, value in vars(s).items() if name not in _LATER or value is not None} for s in snapshots
    ]
    evidence = {"samples": samples_sha256(samples_ns), "snapshots": told}
    return _sha256(to_json({**evidence, "told": summaries} if summaries else evidence))


def accuracy_id(accuracy: Accuracy) -> str:
    """Return the digest of all fields of an accuracy except the id, so that equal accuracies have equal ids."""
    fields = {name: value for name, value in to_data(accuracy).items() if name != "accuracy_id"}
    # 75 and 75.0 are the same number, and different texts.
    for name in ("value", "error"):
        fields[name] = None if fields[name] is None else float(fields[name])
    # Later fields are in the digest only where they tell something: older accuracies keep their ids.
    for name, empty in (("assumed", []), ("preprocessing", None), ("network", None)):
        if fields[name] == empty:
            del fields[name]
    return _sha256(to_json(fields))


def confusion_id(confusion: Confusion) -> str:
    """Return the digest of an accuracy's id, labels and counts."""
    return _sha256(to_json([confusion.accuracy_id, confusion.labels, confusion.counts]))


def identify_confusion(accuracy_id: str, labels: Sequence[str], counts: Mapping[tuple[int, int], int]) -> Confusion:
    """Return a confusion with its id. counts: number of images by (class of the images, class that was given)."""
    ordered = tuple((actual, predicted, images) for (actual, predicted), images in sorted(counts.items()))
    confusion = Confusion("", accuracy_id, tuple(labels), ordered)
    return dataclasses.replace(confusion, confusion_id=confusion_id(confusion))


def operator_time_id(time: OperatorTime) -> str:
    """Return the digest of all fields of an operator's time except the id."""
    return _contents_sha256(time, "operator_time_id")


def identify_operator_time(time: OperatorTime) -> OperatorTime:
    """Return the operator's time with its id filled in."""
    return dataclasses.replace(time, operator_time_id=operator_time_id(time))


def tuning_id(tuning: Tuning) -> str:
    """Return the digest of all fields of a tuning except the id."""
    return _contents_sha256(tuning, "tuning_id")


def identify_tuning(tuning: Tuning) -> Tuning:
    """Return the tuning with its id filled in."""
    return dataclasses.replace(tuning, tuning_id=tuning_id(tuning))


def _contents_sha256(record: Any, id_name: str) -> str:
    return _sha256(to_json({name: value for name, value in to_data(record).items() if name != id_name}))


def graph_id(graph: Graph) -> str:
    """Return the digest of a network's digest and operators, so that equal lists have equal ids."""
    # 75 and 75.0 are the same number, and different texts.
    numbers = ("macs", "parameters", "activations")
    listed = [[cost.kind, *(float(getattr(cost, name)) for name in numbers), cost.count] for cost in graph.operators]
    return _sha256(to_json({"graph_digest": graph.graph_digest, "operators": listed}))


def identify_graph(graph_digest: str, operators: Iterable[OperatorCost]) -> Graph:
    """Return a graph with its id; `operators` are merged (edgevit.count.merged)."""
    graph = Graph("", graph_digest, tuple(operators))
    return dataclasses.replace(graph, graph_id=graph_id(graph))


def identify_accuracy(accuracy: Accuracy) -> Accuracy:
    """Return the accuracy with its id filled in."""
    return dataclasses.replace(accuracy, accuracy_id=accuracy_id(accuracy))


def measurement_key(row: Measurement) -> str:
    """Return the digest of the measured configuration of a row.

    It covers the artifact, or "model/target" where nothing could be built. It also covers the engine, the device and
    its environment, the cores that the process may run on, the inputs' shapes in their order, and the protocol. A
    camera's rate is in the digest only where the row has one.
    """
    configuration: dict[str, Any] = {
        "artifact": row.artifact_sha256 or f"{row.model}/{row.target}",
        "engine": [row.engine, row.engine_version],
        "provider": row.provider,
        "device_id": row.device_id,
        "environment": host_sha256(row.host),
        "compute_unit": row.compute_unit,
        "threads": row.threads,
        "affinity": sorted(row.affinity),
        "precision": row.precision,
        "shapes": [spec.shape for spec in row.inputs],
        "batch": row.batch,
        "protocol_version": row.protocol_version,
    }
    return _sha256(to_json(configuration | ({} if row.rate_hz is None else {"rate_hz": float(row.rate_hz)})))


def measurement_id(
    key: str, started: str, nonce: str, samples_ns: Sequence[Sequence[int]], summaries: Sequence[VendorSummary] = ()
) -> str:
    """Return the digest of one measurement of `key`: its start (ISO 8601), its nonce and its raw samples in ns.

    A vendor's summaries are in the digest only where the row has some in place of samples.
    """
    identity = {"key": key, "started": started, "nonce": nonce, "samples": samples_sha256(samples_ns)}
    return _sha256(to_json({**identity, "told": summaries} if summaries else identity))


def identify(measurement: Measurement) -> Measurement:
    """Return the row with its key and id filled in; identifying it again changes nothing.

    A row without an affinity takes that of its first snapshot. A measured row without a nonce gets a random one. A
    published row keeps its nonce, so that transcribing one table twice gives one row.
    """
    affinity = measurement.affinity
    if not affinity and measurement.snapshots:
        affinity = measurement.snapshots[0].affinity
    nonce = measurement.nonce
    if not nonce and measurement.provenance == "measured":
        nonce = secrets.token_hex(16)
    row = dataclasses.replace(measurement, affinity=affinity, nonce=nonce)
    key = measurement_key(row)
    return dataclasses.replace(
        row, measurement_key=key, measurement_id=measurement_id(key, row.started, nonce, row.samples_ns, row.told)
    )


def validate_identity(measurement: Measurement) -> None:
    """Check that key and id are the digests of their row. The row must contain its samples (LatencyDB.get).

    Raises StoreError with the part that disagrees, where the row was altered, damaged or never identified.
    """
    if measurement.measurement_key != (key := measurement_key(measurement)):
        why = f"the configuration gives {key[:12]}..., the row has {measurement.measurement_key[:12]!r}"
        raise StoreError("the measurement_key is not that of the row", why=why, fix=_ALTERED)
    started, nonce = measurement.started, measurement.nonce
    expected = measurement_id(key, started, nonce, measurement.samples_ns, measurement.told)
    if measurement.measurement_id != expected:
        why = f"key, start, nonce and samples give {expected[:12]}..., the row has {measurement.measurement_id[:12]!r}"
        raise StoreError("the measurement_id is not that of the row", why=why, fix=_ALTERED)


_ALTERED = "the row was altered after it was measured: fetch it from its source again, or measure again"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
