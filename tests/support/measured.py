"""Rows for tests: measurements with samples that agree with their summary, as the profiler would write them."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from edgevit.records.identity import identify, identify_accuracy, identify_graph
from edgevit.records.measurement import Accuracy, Measurement, NoiseFloor
from edgevit.records.model import Graph, ModelCard, OperatorCost
from edgevit.records.network import Network
from edgevit_runtime.record import CoreCluster, Host, Silicon, Snapshot, TensorSpec, VendorSummary

HOST = Host("aarch64", "Linux", "6.6.1", "3.11.7", "Cortex-A76", 4, 8_000_000_000)
SILICON = Silicon("AuthenticAMD", 25, 1, 1, ("avx2",), (CoreCluster(2, "", None, (("L2", 512),)),), "KVM", 1.5)
INPUT = TensorSpec("x", (1, 3, 224, 224))
# Flags that other work on this machine may raise: a test on real times allows them.
FLAGS_OF_LOAD = frozenset({"bimodal", "busy", "drifting", "not_warm", "stolen"})
SAMPLES = ((5_000_000, 5_100_000, 5_300_000), (5_050_000, 5_120_000, 6_000_000))


NETWORK = Network(
    "file", "d" * 64, "e" * 64, "2.9.0", file="best.pt", key="ema", dynamic_batch=True, options=(("opset", "18"),)
)


def snapshot(unix_ns: int = 1) -> Snapshot:
    return Snapshot(unix_ns, (0, 1, 2, 3), "performance", 2_400_000, None, 0.5, 3, 900, None)


def summary(samples_ns: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the columns that follow from samples: percentiles are nearest ranks, upper bounds the largest sample."""
    samples = sorted(value for process in samples_ns for value in process)
    medians = sorted(round(statistics.median(process)) for process in samples_ns)
    rank = {share: samples[math.ceil(share * len(samples)) - 1] for share in (0.9, 0.99)}
    return {
        "samples_ns": tuple(map(tuple, samples_ns)),
        "snapshots": tuple(snapshot(i) for i in range(2 * len(samples_ns))),
        "processes": len(samples_ns),
        "runs": len(samples),
        "p50_ns": round(statistics.median(medians)),
        "p50_low_ns": medians[0],
        "p50_high_ns": medians[-1],
        "p90_ns": rank[0.9],
        "p90_upper_ns": samples[-1],
        "p99_ns": rank[0.99],
        "p99_upper_ns": samples[-1],
        "min_ns": samples[0],
        "mean_ns": round(statistics.mean(samples)),
        "iqr_ns": 0,
        "mad_ns": 40_000,
    }


NO_TIMES: dict[str, Any] = {
    "samples_ns": (), "snapshots": (), "processes": 0, "runs": 0, "load_ns": None, "first_ns": None, "grade": "",
    **{name: None for name in summary(SAMPLES) if name.endswith("_ns") and name != "samples_ns"},
}  # fmt: skip
_BASE = Measurement(
    measurement_id="",
    measurement_key="",
    status="ok",
    error="",
    provenance="measured",
    model="net_s",
    family="net",
    target="onnx",
    precision="fp32",
    artifact_sha256="a" * 64,
    artifact_bytes=4_000_000,
    engine="onnxruntime",
    engine_version="1.31.1",
    provider="CPUExecutionProvider",
    device="pi5",
    device_id="pi-0001",
    device_class="raspberry-pi-5",
    compute_unit="cpu",
    threads=4,
    batch=1,
    inputs=(INPUT,),
    parity_status="passed",
    protocol_version=1,
    started="2026-11-21T10:00:00+00:00",
    load_ns=90_000_000,
    first_ns=20_000_000,
    peak_rss_bytes=200_000_000,
    grade="A",
    flags=(),
    host=HOST,
    nonce="0",
    **summary(SAMPLES),
)


def measured(samples_ns: Sequence[Sequence[int]] = SAMPLES, **changes: Any) -> Measurement:
    """Return an identified row with these samples."""
    return identify(dataclasses.replace(_BASE, **(summary(samples_ns) | changes)))


def failed(status: str = "crashed", **changes: Any) -> Measurement:
    """Return an identified row of a run that gave no times."""
    return identify(dataclasses.replace(_BASE, **(NO_TIMES | {"status": status, "error": "SIGSEGV"} | changes)))


VENDOR_SUMMARY = VendorSummary(
    median_ns=5_100_000, min_ns=5_000_000, max_ns=5_600_000, mean_ns=5_120_000, runs=100, p95_ns=5_300_000
)


def vendor_row(*, median_ns: int | None = VENDOR_SUMMARY.median_ns, **changes: Any) -> Measurement:
    """Return an identified row of a program that keeps its samples and reports a median, or only a mean."""
    vendor_summary = dataclasses.replace(
        VENDOR_SUMMARY, median_ns=median_ns, p95_ns=VENDOR_SUMMARY.p95_ns if median_ns else None
    )
    times: dict[str, Any] = {
        "p50_ns": median_ns,
        "p50_low_ns": median_ns,
        "p50_high_ns": median_ns,
        "p90_upper_ns": vendor_summary.p95_ns,
    }
    times |= {"min_ns": vendor_summary.min_ns, "mean_ns": vendor_summary.mean_ns}
    facts: dict[str, Any] = {
        "told": (vendor_summary, vendor_summary),
        "processes": 2,
        "runs": 200,
        "grade": "C",
        "engine": "benchmark_model",
    }
    flags = ("summary_only",) if median_ns else ("mean_only", "summary_only")
    return identify(dataclasses.replace(_BASE, **(NO_TIMES | times | facts | {"flags": flags} | changes)))


def published(**changes: Any) -> Measurement:
    """Return an identified row transcribed from a paper: one number, no spread."""
    facts: dict[str, Any] = {
             "provenance": "published", "source": "arXiv:2206.04040", "p50_ns": 1_000_000, "nonce": "", "host": None,
             "licence": "CC-BY-4.0", "untold": ("host", "p90_ns", "p99_ns", "samples")}  # fmt: skip
    unknown: dict[str, Any] = {"artifact_sha256": "", "artifact_bytes": 0, "parity_status": "", "peak_rss_bytes": None}
    return identify(dataclasses.replace(_BASE, **(NO_TIMES | facts | unknown | changes)))


def rated(value: float = 75.0, **changes: Any) -> Accuracy:
    """Return an identified accuracy, published unless the changes say otherwise."""
    facts = {
        "provenance": "published", "model": "net_s", "family": "net", "dataset": "imagenet-1k val",
        "metric": "top1_percent", "error": None, "examples": 50_000, "source": "arXiv:2206.04040",
        "licence": "CC-BY-4.0", "untold": ("error",),
    }  # fmt: skip
    return identify_accuracy(Accuracy(accuracy_id="", value=value, **(facts | changes)))


def floor(share: float = 0.02, **changes: Any) -> NoiseFloor:
    """Return a noise floor of the device of these rows."""
    facts: dict[str, Any] = {
        "device_id": "pi-0001",
        "device": "pi5",
        "workload": "hash",
        "threads": 1,
        "p50s_ns": (10**9, 10**9, 10**9 + round(share * 10**9)) if math.isfinite(share) else (),
    }
    return NoiseFloor(**({"share": share, "started": "2026-11-21T10:00:00+00:00", **facts} | changes))


def operators(macs: float = 9e8, digest: str = "b" * 64) -> Graph:
    """Return an identified graph of two kinds of operators."""
    costs = (OperatorCost("convolution 3x3", macs, 3e6, 2e6, 17), OperatorCost("relu", 0.0, 0.0, 1e6, 17))
    return identify_graph(digest, costs)


def card(name: str = "net_s", top1_percent: float | None = 75.0, **changes: Any) -> ModelCard:
    """Return a card for a model of these tests."""
    facts = {"family": "net", "inputs": (TensorSpec("x", (-1, 3, 224, 224)),), "source": "", "licence": "MIT"}
    return ModelCard(
        name=name, top1_percent=top1_percent, **({"provenance": "published", "top1_source": "paper", **facts} | changes)
    )
