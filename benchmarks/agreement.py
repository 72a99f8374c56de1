"""Our numbers against benchmark_app (OpenVINO) and against a loop written by hand (ONNX Runtime), in turns.

python benchmarks/agreement.py [MODEL...]   random weights, one thread; and what our own loop adds to a run
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import report

from edgevit.devices.registry import local_device
from edgevit.exporting.pipeline import export_subject
from edgevit.measurement.compare import verdict
from edgevit.measurement.crosscheck import AGREEMENT, cross_check
from edgevit.measurement.runner import Protocol, profile
from edgevit.models.source import load_subject
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit_runtime.codec import to_data
from edgevit_runtime.timing import sample, timed

MODELS = ("vanillanet_5", "mobilevig_ti", "hiera_tiny")
ROUNDS = 7  # of one process of each program
EMPTY_RUNS = 200_000
# What an engineer would write in five minutes, in a process of its own. Arguments: the file and its input's shape.
BY_HAND = """
import json, sys, time
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
image = np.random.default_rng(0).standard_normal(json.loads(sys.argv[2])).astype(np.float32)
name = session.get_inputs()[0].name
for _ in range(50):
    session.run(None, {name: image})
times = []
end = time.perf_counter() + 1
while time.perf_counter() < end or len(times) < 100:
    start = time.perf_counter()
    session.run(None, {name: image})
    times.append(time.perf_counter() - start)
print(round(np.median(times) * 1e9))
"""


def main(models: list[str]) -> None:
    logging.disable(logging.WARNING)
    samples_by_program = {}
    with tempfile.TemporaryDirectory() as out:
        for name in models:
            subject = load_subject(name)
            vino = export_subject(subject, ExportRequest("openvino", Path(out)))
            onnx = export_subject(subject, ExportRequest("onnx", Path(out)))
            theirs = cross_check(vino, local_device(), threads=1, rounds=ROUNDS)
            samples_by_program[name] = {"benchmark_app": to_data(theirs), "by_hand": by_hand(onnx)}
    report("agreement", {"agreement": AGREEMENT, "models": samples_by_program, "our_loop": our_loop()})


def by_hand(artifact: Artifact) -> dict[str, object]:
    """Medians of one process each, ours and the loop's, in random order within a round."""
    shape = json.dumps(artifact.inputs[0].at_batch(1).shape)
    command = [sys.executable, "-c", BY_HAND, str(artifact.folder / artifact.payload), shape]

    def ours() -> int:
        row = profile(artifact, local_device(), threads=1, protocol=Protocol(processes=1, percentile=None))
        assert row.p50_ns, row.error
        return row.p50_ns

    def theirs() -> int:
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    order, medians = random.Random(0), dict[Callable[[], int], list[int]]({ours: [], theirs: []})
    for _ in range(ROUNDS):
        for run in order.sample((ours, theirs), 2):
            medians[run].append(run())
    a, b = medians[ours], medians[theirs]
    ratio = statistics.median(a) / statistics.median(b)
    agreement = verdict(min(a) / max(b), ratio, max(a) / min(b), AGREEMENT)
    return {"ours_ns": a, "theirs_ns": b, "ratio": ratio, "verdict": agreement}


def our_loop() -> dict[str, float]:
    """What each run costs beyond itself, and how much of that is in its sample: with a run that does nothing."""
    start = time.perf_counter_ns()
    samples = sample(lambda: None, EMPTY_RUNS, 0)
    whole = time.perf_counter_ns() - start
    empty = [timed(lambda: None) for _ in range(EMPTY_RUNS)]
    return {
        "added_to_a_sample_us": round(statistics.median(empty) / 1e3, 4),
        "between_samples_us": round((whole - sum(samples)) / EMPTY_RUNS / 1e3, 4),
    }


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
