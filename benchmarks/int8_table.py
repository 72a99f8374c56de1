"""Speed, size and noise of int8 against fp32 on each engine, one thread, pairs interleaved in one run.

python benchmarks/int8_table.py [--out FOLDER] [--targets T,..] [--data FOLDER] [--no-times] [MODEL...]

Random weights; without --data the samples are the photographs that ship. Artifacts stay in the folder, and one that is
there is not exported again.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from common import report

from edgevit.artifacts.folder import folder_of, open_artifact
from edgevit.devices.registry import local_device
from edgevit.errors import EdgevitError
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.preparation import Preparation
from edgevit.measurement.runner import Protocol, profile_all
from edgevit.models.source import load_subject
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.quantization import QuantizationRequest

MODELS = ("vanillanet_5", "mobilevig_ti", "fmvit_t", "affnet_et", "turbovit", "hiera_tiny")
TARGETS = ("onnx", "openvino", "ncnn", "litert", "executorch")
PROCESSES, MIN_RUNS, MIN_NS = 5, 20, 500_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--out", type=Path, default=Path("artifacts"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--no-times", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    results: dict[str, Any] = {}
    pairs: dict[str, tuple[Artifact, Artifact]] = {}
    for name in arguments.models:
        prepared = Preparation(load_subject(name), ExportRequest("", Path(), model=name))
        for target in arguments.targets.split(","):
            key = f"{name} {target}"
            try:
                made = [exported(prepared, name, target, form, arguments) for form in ("fp32", "int8")]
            except EdgevitError as error:
                results[key] = {"refused": f"{error.what}: {error.why}"}
                continue
            pairs[key] = (made[0], made[1])
            results[key] = facts(*made)
            print(key, results[key], flush=True)
    if not arguments.no_times:
        for key, times in timed(pairs).items():
            results[key] |= times
    report("int8_table", {"threads": 1, "data": str(arguments.data or "photographs that ship"), "cells": results})


def exported(prepared: Preparation, name: str, target: str, precision: str, arguments: argparse.Namespace) -> Artifact:
    """Return an artifact from the folder, or export it."""
    asked = QuantizationRequest(arguments.data)
    request = ExportRequest(target, arguments.out, precision, name, quantization=asked)
    folder = folder_of(request)
    if folder.exists():
        return open_artifact(folder)
    return export_subject(prepared.subject, request, preparation=prepared)


def facts(single: Artifact, rounded: Artifact) -> dict[str, Any]:
    """Return what the manifests tell."""
    report_of, parity = rounded.quantization, rounded.parity
    assert report_of is not None and parity is not None
    engine = next((check.snr_db for check in parity.checks[::-1] if check.against == "simulation"), None)
    return {
        "status": parity.status,
        "snr_db": parity.snr_db,
        "top1_agreement": parity.top1_agreement,
        "simulated_snr_db": report_of.snr_db,
        "rounded_snr_db": report_of.steps[0].snr_db,
        "engine_against_simulation_db": engine,
        "layers": len(report_of.layers),
        "excluded": len(report_of.excluded),
        "int8_kernels": None if rounded.operators.int8 is None else sum(rounded.operators.int8.values()),
        "size": round(rounded.size_bytes / single.size_bytes, 3),
        "params": rounded.params,
    }


def timed(pairs: dict[str, tuple[Artifact, Artifact]]) -> dict[str, dict[str, Any]]:
    """Return the speed of int8 over fp32 in each cell whose engine runs here."""
    here = {key: pair for key, pair in pairs.items() if not load_recipe(pair[0].target).RECIPE.needs}
    protocol = Protocol(processes=PROCESSES, min_runs=MIN_RUNS, min_ns=MIN_NS, percentile=None)
    results: dict[str, dict[str, Any]] = {}
    for key, pair in here.items():
        rows = {
            row.artifact_sha256: row for row in profile_all(list(pair), local_device(), threads=1, protocol=protocol)
        }
        single, rounded = (rows[artifact.sha256] for artifact in pair)
        if single.p50_ns and rounded.p50_ns:
            results[key] = {
                "speed": round(single.p50_ns / rounded.p50_ns, 2),
                "fp32_ms": single.p50_ns / 1e6,
                "int8_ms": rounded.p50_ns / 1e6,
                "grades": single.grade + rounded.grade,
            }
            print(key, results[key], flush=True)
    return results


if __name__ == "__main__":
    main()
