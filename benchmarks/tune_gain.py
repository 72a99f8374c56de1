"""Latency of exports in several forms, and of another checkout's exports, in turns; one thread or more.

python benchmarks/tune_gain.py [--against EDGEVIT] [--forms F,..] [--targets T,..] [--threads N] [--out FOLDER]
                               [--tune TIME] [--db URL] [--plain] [MODEL...]

Random weights. EDGEVIT is the command of another checkout, whose files are measured by this one's protocol. --tune
searches first, for so long per cell, and adds the form `tuned`. --plain adds torch.onnx's own export of the unfolded
network to the ONNX cells. Artifacts stay in the folder, and one that is there is not exported again.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import report

import edgevit
from edgevit.artifacts.folder import folder_of, open_artifact, publish, seal
from edgevit.cli.common import parse_duration
from edgevit.devices.registry import local_device
from edgevit.errors import EdgevitError
from edgevit.measurement.runner import Protocol, profile_all
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.sweeps.tunings import with_tuning

MODELS = ("vanillanet_5", "mobilevig_ti", "fmvit_t", "affnet_et", "turbovit", "hiera_tiny")
TARGETS = ("onnx", "openvino", "ncnn", "litert", "executorch")
PROTOCOL = Protocol(processes=5, min_runs=20, min_ns=500_000_000, percentile=None)
OTHER, PLAIN = "other checkout", "unfolded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--against", metavar="EDGEVIT")
    parser.add_argument("--forms", default="portable,default")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("artifacts"))
    parser.add_argument("--tune", metavar="TIME")
    parser.add_argument("--db")
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    cells: dict[str, Any] = {}
    for name in options.models:
        for target in options.targets.split(","):
            key = f"{name} {target}"
            cells[key] = cell(name, target, options)
            print(key, cells[key], file=sys.stderr, flush=True)
    report("tune_gain", {"threads": options.threads, "cells": cells, "geometric_means": means(cells)})


def cell(name: str, target: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the times of one network on one engine in each form, in ms, with the grade of each."""
    forms = [form for form in options.forms.split(",") if form]
    facts: dict[str, Any] = {}
    if options.tune:
        start = time.monotonic()
        seconds = parse_duration(options.tune)
        tuning = edgevit.tune(name, target, threads=options.threads, budget_s=seconds, db=options.db)
        facts["tuning"] = {
            "forms": sorted({one.form for one in tuning.forms}), "sites": len(tuning.forms), "label": tuning.label,
            "tried": len(tuning.tried), "complete": tuning.complete, "seconds": round(time.monotonic() - start),
        }  # fmt: skip
        forms.append("tuned")
    artifacts: dict[str, Artifact] = {}
    for form in forms:
        try:
            artifacts[form] = exported(name, target, form, options)
        except EdgevitError as error:
            facts[form] = f"refused: {error.what}: {error.why}"
    if options.against:
        artifacts[OTHER] = of_other(name, target, next(iter(artifacts.values())), options)
    if options.plain and target == "onnx":
        artifacts[PLAIN] = exported(name, target, "default", options, unfolded=True)
    own = frozenset(artifact.sha256 for artifact in artifacts.values())
    by_digest = {artifact.sha256: artifact for artifact in artifacts.values()}
    rows = {
        row.artifact_sha256: row
        for row in profile_all(
            list(by_digest.values()), local_device(), threads=options.threads, protocol=PROTOCOL, built_here=own
        )
    }
    for form, artifact in artifacts.items():
        row = rows[artifact.sha256]
        if not row.p50_ns:
            facts[form] = f"{row.status}: {row.error}"
            continue
        facts[form] = {
            "p50_ms": row.p50_ns / 1e6,
            "grade": row.grade,
            "peak_mb": round((row.peak_rss_bytes or 0) / 1e6),
        }
        if artifact.forms:
            facts[form]["forms"] = [one.label for one in artifact.forms]
    return facts


def exported(name: str, target: str, form: str, options: argparse.Namespace, *, unfolded: bool = False) -> Artifact:
    """Return an artifact from the folder, or export it."""
    request = ExportRequest(target, options.out, model=name, form=form, unfolded=unfolded)
    request = with_tuning(request, options.db)
    folder = folder_of(request)
    # A later search may have chosen other forms.
    if folder.exists() and form != "tuned":
        return open_artifact(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return edgevit.export(name, target, form=form, unfolded=unfolded, out=options.out, db=options.db, own_process=False)


def of_other(name: str, target: str, like: Artifact, options: argparse.Namespace) -> Artifact:
    """Return an artifact with the payload that another checkout exports, under a manifest of this one."""
    place = options.out / "other" / f"{name}-{target}"
    if place.exists():
        return open_artifact(place)
    folder = options.out / "other" / f".{name}-{target}"
    shutil.rmtree(folder, ignore_errors=True)
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables["EDGEVIT_DB"] = str(options.out / "other.db")
    command = [options.against, "export", name, "--target", target, "--out", str(folder.resolve()), "--quiet"]
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
    [made] = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    payload = next(path for path in made.iterdir() if path.name == like.payload)
    for path in made.iterdir():
        if path.name == "manifest.json":
            path.unlink()
    assert payload.exists()
    return publish(seal(dataclasses.replace(like, folder=made, forms=(), form="default", tuning=None)), place)


def means(cells: dict[str, Any]) -> dict[str, float]:
    """Return the geometric means of speeds over all cells: of each form over the other checkout's, or over portable."""
    base = OTHER if any(OTHER in facts for facts in cells.values()) else "portable"
    ratios: dict[str, list[float]] = {}
    for facts in cells.values():
        times = {form: fact["p50_ms"] for form, fact in facts.items() if isinstance(fact, dict) and "p50_ms" in fact}
        for form, ms in times.items():
            if base in times and form != base:
                ratios.setdefault(f"{form} over {base}", []).append(times[base] / ms)
    return {name: round(math.exp(statistics.fmean(map(math.log, values))), 3) for name, values in ratios.items()}


if __name__ == "__main__":
    main()
