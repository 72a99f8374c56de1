"""Training-form export against folded export in ONNX Runtime, one thread, interleaved in one run.

python benchmarks/fold_gain.py [MODEL...]   random weights; processes of all models and forms in random order
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

from common import report

from edgevit.devices.registry import local_device
from edgevit.exporting.pipeline import export_subject
from edgevit.measurement.runner import Protocol, profile_all
from edgevit.models.source import load_subject
from edgevit.records.artifact import ExportRequest

MODELS = ("mobilevig_ti", "mobilevig_b", "vanillanet_5", "vanillanet_9")


def main(models: list[str]) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as out:
        artifacts = []
        for name in models:
            subject = load_subject(name)
            artifacts += [
                export_subject(subject, ExportRequest("onnx", Path(out), unfolded=form)) for form in (True, False)
            ]
        protocol = Protocol(percentile=None)
        rows = list(profile_all(artifacts, local_device(), threads=1, protocol=protocol))
    forms = {artifact.sha256: "folded" if artifact.folded else "training" for artifact in artifacts}
    results: dict[str, dict[str, object]] = {name: {} for name in models}
    for row in rows:
        form = forms[row.artifact_sha256]
        results[row.model][f"{form}_p50_ms"] = row.p50_ns / 1e6 if row.p50_ns else row.status
        results[row.model][f"{form}_of_processes_ms"] = [row.p50_low_ns, row.p50_high_ns]
        results[row.model][f"{form}_grade"] = row.grade
    for values in results.values():
        values["speedup"] = round(values["training_p50_ms"] / values["folded_p50_ms"], 3)  # type: ignore[operator]
    report("fold_gain", {"threads": 1, "engine": "onnxruntime", "protocol": vars(protocol), "models": results})


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
