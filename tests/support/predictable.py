"""Ten networks whose latencies follow from their sizes, on two devices: what tests of predictions predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgevit.records.measurement import Measurement
from edgevit.records.model import OperatorCost
from support.measured import card, measured

MS = 1_000_000
SIZES = {f"net_{number}": 1.5**number for number in range(10)}
CARDS = {name: card(name, 60.0 + number) for number, name in enumerate(SIZES)}
SLOW = {"device": "pi4", "device_id": "pi-4", "device_class": "raspberry-pi-4"}


def row(model: str, ms: float, **changes: Any) -> Measurement:
    """Return a row whose percentiles all are this latency."""
    samples = [[round(ms * MS)] * 3] * 2
    identity = {
        "model": model,
        "artifact_sha256": f"{sum(map(ord, model)):064x}",
        "nonce": f"{model} {sorted(changes)}",
    }
    return measured(samples, **{**identity, **changes})


def rows(names: Sequence[str], factor: float = 1.0, **changes: Any) -> list[Measurement]:
    """Return a row for each network, whose latency is its size times the factor."""
    return [row(name, factor * SIZES[name], **changes) for name in names]


def costs(size: float) -> tuple[OperatorCost, ...]:
    """Return the operators of a network of this size."""
    return (OperatorCost("convolution 3x3", 1e8 * size, 1e6, 1e6, 20), OperatorCost("relu", 0.0, 0.0, 1e6, 20))
