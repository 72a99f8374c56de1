"""Whether a measurement repeats itself within what it says: a sweep of eight models, then the same twice more.

python benchmarks/honesty.py [MODEL...]   random weights, ONNX Runtime, one thread; the whole protocol each time

A repeat's headline is the median of five process medians, and the row before states their range. Were all processes
alike and independent, the headline of a repeat would fall into the range of another five in 210 of 252, or 83%, of
cases; so what a row states is that range widened by what the device resolves, on either side
(edgevit/measurement/compare.py).
"""

from __future__ import annotations

import logging
import sys
import tempfile
from itertools import combinations
from pathlib import Path

from common import report

from edgevit.devices.registry import local_device
from edgevit.exporting.pipeline import export_subject
from edgevit.measurement.compare import compare, resolution
from edgevit.measurement.noise_floor import measure_noise
from edgevit.measurement.runner import profile_all
from edgevit.models.source import load_subject
from edgevit.records.artifact import ExportRequest
from edgevit.records.measurement import Measurement
from edgevit_runtime.codec import to_data

MODELS = ("mobilevig_ti", "mobilevig_s", "vanillanet_5", "affnet_et", "affnet_t", "fmvit_t", "turbovit", "hiera_tiny")
SWEEPS = 3  # the first, and its two repeats


def main(models: list[str]) -> None:
    logging.disable(logging.WARNING)
    device = local_device()
    noise = measure_noise(device)
    floor, source = resolution([noise])
    with tempfile.TemporaryDirectory() as out:
        artifacts = [export_subject(load_subject(name), ExportRequest("onnx", Path(out))) for name in models]
        sweeps = [
            {row.model: row for row in profile_all(artifacts, device, threads=1, seed=seed)} for seed in range(SWEEPS)
        ]
    pairs = [(before[name], after[name]) for before, after in combinations(sweeps, 2) for name in models]
    verdicts = [compare(after, before, [noise]).verdict for before, after in pairs]
    result = {
        "noise_floor": to_data(noise),
        "resolution": {"share": floor, "from": source},
        "repeats": len(pairs),
        "within_the_range_of_process_medians": sum(within(*pair, 0.0) for pair in pairs),
        "within_the_range_and_the_resolution": sum(within(*pair, floor) for pair in pairs),
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "models": {
            name: [
                {"p50_ms": headline(row)[0] / 1e6, "of_processes_ms": [ns / 1e6 for ns in headline(row)[1:]],
                 "grade": row.grade, "flags": row.flags, "discarded": row.discarded}
                for row in (sweep[name] for sweep in sweeps)
            ]
            for name in models
        },
    }  # fmt: skip
    report("honesty", result)


def within(before: Measurement, after: Measurement, floor: float) -> bool:
    """Whether the later headline lies in the earlier row's range, widened by the floor."""
    _, low, high = headline(before)
    return low / (1 + floor) <= headline(after)[0] <= high * (1 + floor)


def headline(row: Measurement) -> tuple[int, int, int]:
    """The median, and those of the fastest and the slowest process; every measured row has them."""
    assert row.p50_ns is not None and row.p50_low_ns is not None and row.p50_high_ns is not None
    return row.p50_ns, row.p50_low_ns, row.p50_high_ns


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
