"""What every benchmark shares: one JSON object on standard output that says where and with what it was measured."""

from __future__ import annotations

import importlib.metadata
import json
import statistics
from collections.abc import Sequence
from typing import Any

from edgevit_runtime.environment import host, snapshot
from edgevit_runtime.record import to_data

PACKAGES = ("torch", "onnx", "onnxruntime", "onnxsim")


def report(benchmark: str, result: dict[str, Any]) -> None:
    """Print the result with its provenance."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    origin = {
        "provenance": "measured",
        "host": to_data(host()),
        "load_1min": snapshot().load_1min,
        "versions": versions,
    }
    print(json.dumps({"benchmark": benchmark, **origin, **result}, indent=1))


def spread_ms(samples_ns: Sequence[int]) -> dict[str, float]:
    """Median and quartiles of raw nanoseconds, in milliseconds."""
    quartiles = statistics.quantiles(samples_ns, n=4)
    names = ("p25_ms", "p50_ms", "p75_ms")
    return {name: round(value / 1e6, 3) for name, value in zip(names, quartiles, strict=True)}
