"""What every benchmark shares: one JSON object on standard output that says where and with what it was measured."""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgevit_runtime.codec import to_data
from edgevit_runtime.environment import host, snapshot

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


def reference_file(name: str) -> Path | None:
    """Where a file of other people's measurements is; None, and said on standard error, where it is not.

    They are no part of this repository: EDGEVIT_REFERENCE_DATA names their folder, by default ../shared/data.
    """
    folder = os.environ.get("EDGEVIT_REFERENCE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    file = Path(folder) / name
    if file.is_file():
        return file
    print(f"reference data absent: {file}", file=sys.stderr)
    return None


def spread_ms(samples_ns: Sequence[int]) -> dict[str, float]:
    """Median and quartiles of raw nanoseconds, in milliseconds."""
    quartiles = statistics.quantiles(samples_ns, n=4)
    names = ("p25_ms", "p50_ms", "p75_ms")
    return {name: round(value / 1e6, 3) for name, value in zip(names, quartiles, strict=True)}
