"""What share of this machine's limit the smallest model of each family gets, in its best engine; and where it goes.

python benchmarks/roofline_table.py [MODEL...]               random weights, float32, one thread; JSON
python benchmarks/roofline_table.py --markdown RESULT.json   the tables of docs/measure.md
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import report

from edgevit.devices.registry import local_device
from edgevit.exporting.pipeline import export_subject
from edgevit.measurement.noise_floor import measure_peak
from edgevit.measurement.roofline import layer_times, roofline_point
from edgevit.measurement.runner import Protocol, profile_all
from edgevit.models.source import load_subject
from edgevit.records.artifact import ExportRequest
from edgevit_runtime.codec import to_data

MODELS = ("affnet_et", "fmvit_t", "hiera_tiny", "mobilevig_ti", "turbovit", "vanillanet_5")
TARGETS = ("onnx", "openvino", "executorch", "litert", "ncnn")
TELLING = ("onnx", "openvino")  # engines that tell shapes with what their operators take
SLOWEST = 3


def main(models: list[str]) -> None:
    logging.disable(logging.WARNING)
    device = local_device()
    with tempfile.TemporaryDirectory() as out:
        artifacts = {}
        for name in models:
            subject = load_subject(name)
            for target in TARGETS:
                artifact = export_subject(subject, ExportRequest(target, Path(out)))
                artifacts[artifact.sha256] = artifact
        peak = measure_peak(device, threads=1)
        rows = list(profile_all(list(artifacts.values()), device, threads=1, protocol=Protocol(percentile=90)))
        peak_after = measure_peak(device, threads=1)
        rows_against_peak = [roofline_point(row, artifacts[row.artifact_sha256], peak) for row in rows]
        layers = []
        for name in models:
            telling = [row for row in rows if row.model == name and row.target in TELLING]
            best = min(telling, key=lambda row: row.p50_ns or 0)
            table = to_data(layer_times(artifacts[best.artifact_sha256], device, threads=1, peak=peak))
            layers.append(table | {"slowest": table.pop("layers")[:SLOWEST]})
    result = {
        "peak": to_data(peak),
        "peak_after": to_data(peak_after),
        "models": to_data(rows_against_peak),
        "layers": layers,
    }
    report("roofline_table", result)


def markdown(path: Path) -> None:
    """The fastest engine of each model, and the slowest operators of the fastest that tells their shapes."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    peak = results["peak"]
    print(f"Peak, one thread: {peak['gflops']:.0f} GFLOP/s in float32, {peak['gb_per_s']:.1f} GB/s.\n")
    print("| model | best engine | p50 | GFLOP/s | limit | share of it | at best |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in dict.fromkeys(row["model"] for row in results["models"]):
        row = min((row for row in results["models"] if row["model"] == name), key=lambda row: row["p50_ns"])
        print(
            f"| {name} | {row['target']} | {row['p50_ns'] / 1e6:.2f} ms | {row['gflops']:.1f} |"
            f" {row['limit_gflops']:.1f} ({row['bound_by']}) | {row['share']:.0%} | {row['least_ns'] / 1e6:.2f} ms |"
        )
    print("\n| model | in | operator | time | of all | MMACs | of its limit |\n|---|---|---|---:|---:|---:|---:|")
    for table in results["layers"]:
        for layer in table["slowest"]:
            print(
                f"| {table['model']} | {table['target']} | `{layer['name'][-48:]}` ({layer['operator']}) |"
                f" {layer['ns'] / 1e3:.0f} us | {layer['share']:.1%} |"
                f" {'' if layer['macs'] is None else round(layer['macs'] / 1e6, 1)} |"
                f" {'' if layer['limit_share'] is None else format(layer['limit_share'], '.0%')} |"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--markdown"]:
        markdown(Path(sys.argv[2]))
    else:
        main(sys.argv[1:] or list(MODELS))
