"""Operators' times of an engine's own trace, as records of the database."""

from __future__ import annotations

import hashlib

from edgevit.measurement.roofline import LAYER_RUNS, Layer, LayerTable
from edgevit.records.identity import identify_operator_time
from edgevit.records.measurement import Measurement
from edgevit.records.tuning import OperatorTime, configuration_of

_DIGITS = 32


def layer_records(table: LayerTable, row: Measurement) -> list[OperatorTime]:
    """Return the times of a table as records. row: of the same artifact, measured in the same run.

    Layers whose time the engine's clock does not resolve are left out.
    """
    return [_record(layer, row) for layer in table.layers if layer.ns > 0]


def _record(layer: Layer, row: Measurement) -> OperatorTime:
    signature = f"{layer.operator} {layer.macs} {layer.bytes}"
    return identify_operator_time(
        OperatorTime(
            operator_time_id="",
            kind="layer",
            site=hashlib.sha256(signature.encode()).hexdigest()[:_DIGITS],
            operator=layer.operator,
            form="",
            macs=layer.macs,
            moved_bytes=layer.bytes,
            p50_ns=layer.ns,
            p50_low_ns=layer.ns,
            p50_high_ns=layer.ns,
            processes=1,
            runs=LAYER_RUNS,
            started=row.started,
            **configuration_of(row),
        )
    )
