"""Rows and statements for tests of the store: one row of each shape, portable records, repeats of one job."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import text

from edgevit.records.identity import identify, identify_confusion
from edgevit.records.measurement import Accuracy, Confusion, Measurement, NoiseFloor
from edgevit.records.model import Graph
from edgevit.records.tuning import OperatorTime, Tuning
from edgevit.store import LatencyDB, PublishedValues, published_row
from edgevit.store.connect import WRITE, create, database_url
from edgevit.store.json_records import PortableRecord
from support.measured import (
    HOST,
    NETWORK,
    SAMPLES,
    SILICON,
    VENDOR_SUMMARY,
    failed,
    floor,
    measured,
    operators,
    published,
    rated,
    snapshot,
    vendor_row,
)
from support.tuned import operator_time, tuning

_SHAPES = {
    "measured": measured(),
    "one process": measured([[7_000]]),
    "crashed at once": failed(host=None),
    "crashed in its second process": failed(samples_ns=SAMPLES[:1], snapshots=(snapshot(1), snapshot(2)), runs=3),
    "odd snapshots": measured(snapshots=(snapshot(1), snapshot(2), snapshot(3))),
    "no snapshots": measured(snapshots=(), affinity=()),
    "unknown memory": measured(host=dataclasses.replace(HOST, memory_bytes=None)),
    "published": published(),
    "flags": measured(flags=("bimodal", "stolen"), error="Füße, 手"),
    "of a camera": measured(rate_hz=30.0, missed=4, discarded=2, energy_j=0.25),
    "parts of loading": measured(import_ns=50_000_000, compile_ns=30_000_000, cold_load_ns=200_000_000),
    "of a checkpoint": measured(network=NETWORK),
    "of known silicon": measured(
        host=dataclasses.replace(HOST, silicon=SILICON),
        snapshots=tuple(dataclasses.replace(snapshot(n), runnable=n, quota_throttled_us=0) for n in range(2)),
    ),
    "told": vendor_row(),
    "told a mean": vendor_row(median_ns=None),
    "told, then crashed": failed(told=(VENDOR_SUMMARY,), snapshots=(snapshot(1), snapshot(2)), runs=100, processes=1),
    "large": measured([[2**62, 2**63 - 1]], artifact_bytes=2**40),
}
# One row of each shape, by a name that is its nonce.
SHAPES = {name: identify(dataclasses.replace(row, nonce=name)) for name, row in _SHAPES.items()}


def execute(url: str, *statements: str) -> Any:
    """Execute SQL without LatencyDB; return the rows of the last statement, if it gives any."""
    engine = create(database_url(url))
    try:
        with engine.execution_options(**WRITE).begin() as connection:
            results = [connection.execute(text(statement)) for statement in statements]
            return results[-1].all() if results[-1].returns_rows else None
    finally:
        engine.dispose()


def variants(count: int) -> list[Measurement]:
    """Return different rows, of a few models on two devices."""
    return [
        measured([[1000 + i, 2000 + i]], model=f"net_{i % 3}", device_id=f"pi-{i % 2}", device=f"pi{i % 2}")
        for i in range(count)
    ]


def transcribed(**changes: Any) -> Measurement:
    """Return a published row of MLPerf, with changes."""
    fields: dict[str, Any] = {
        "source": "MLPerf Inference v3.0", "licence": "Apache-2.0", "model": "resnet50", "device": "rk3588s",
        "target": "armnn", "precision": "int8", "engine": "ArmNN", "p50_ns": 21_000_000,
    }  # fmt: skip
    return published_row(PublishedValues(**(fields | changes)))


def row_of_day(day: int, p50_ns: int, spread: float = 0.005, **changes: Any) -> Measurement:
    """Return a row of five processes whose medians lie this far apart, of a day in November."""
    medians = [round(p50_ns * (1 + spread * turn)) for turn in (-1, -0.5, 0, 0.5, 1)]
    started = f"2026-11-{day:02}T10:00:00+00:00"
    return measured([[ns - 9, ns, ns + 9] for ns in medians], started=started, nonce=f"{day} {p50_ns}", **changes)


# Repeats of one job on one device, the last of them far from the others: it opens an epoch in any order.
_JUMP = [
    measured([[ns, ns + 9, ns + 20]] * 5, nonce=f"jump {ns}", device_id="swapped", started=f"2026-11-2{day}T00:00:00Z")
    for day, ns in enumerate((4_000_000, 4_010_000, 9_000_000), start=1)
]
RECORDS: list[PortableRecord] = [
    *SHAPES.values(), *variants(9), rated(), rated(92.4, metric="top5_percent"), rated(model="net_m"), floor(),
    floor(0.03, started="2026-11-22T10:00:00+00:00"), operators(), operators(8e8), operators(8e8, "c" * 64),
    rated(75.5, network=NETWORK), identify_confusion("a" * 64, ("cat", "dog"), {(0, 0): 5, (0, 1): 1}), *_JUMP,
    operator_time(), operator_time("depthwise_rows", 500_000), operator_time(kind="layer", macs=None), tuning(),
    tuning(model="net_b", forms=(), gain=None, complete=False),
]  # fmt: skip


def add_record(db: LatencyDB, record: PortableRecord) -> None:
    """Add a record of any kind to a database."""
    match record:
        case Measurement():
            db.add(record)
        case Accuracy():
            db.add_accuracy(record)
        case NoiseFloor():
            db.add_noise(record)
        case Graph():
            db.add_graph(record)
        case Confusion():
            db.add_evaluation([], record)
        case OperatorTime():
            db.add_operator_times([record])
        case Tuning():
            db.add_tuning(record)
