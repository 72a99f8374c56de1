"""Why a model is as fast as it is: against what the machine does at best, and operator by operator.

A run cannot be faster than its products at the machine's peak, nor than its weights, inputs and outputs take through
memory once. What layers pass to each other is not counted, as it may stay in a cache: the limit is one that nothing
beats but a cache that holds the weights from run to run, or an engine with better products than NumPy's.
(Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009.)
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack
from edgevit.measurement.noise_floor import Peak
from edgevit.measurement.runner import Protocol
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact
from edgevit.records.measurement import Device, Measurement
from edgevit_runtime.record import Job, LayerTime

LAYER_RUNS = 20  # whose median an operator's time is: engines count in microseconds, and one run is noise
_FOLDER = "artifact"
_OF_THE_PEAK = "fp32"  # the precision that the peak is measured in


@dataclass(frozen=True)
class RooflinePoint:
    """One model against the machine's limit at its intensity. FLOPs are two per multiply-accumulate."""

    model: str
    target: str
    precision: str
    threads: int
    p50_ns: int
    gflops: float
    flop_per_byte: float
    bound_by: str  # compute or memory
    limit_gflops: float
    share: float  # of the limit
    least_ns: float  # what a run would take at the limit
    note: str


@dataclass(frozen=True)
class Layer:
    """One operator as the engine runs it. share: of all operators' time; limit_share: of its own limit."""

    name: str
    operator: str
    ns: int
    share: float
    macs: int | None
    bytes: int | None
    limit_share: float | None


@dataclass(frozen=True)
class LayerTable:
    """The operators of one artifact, slowest first; none where the engine does not tell, and `note` says so."""

    model: str
    target: str
    precision: str
    layers: tuple[Layer, ...]
    by_operator: dict[str, float]  # share of all operators' time
    note: str


def roofline_point(row: Measurement, artifact: Artifact, peak: Peak) -> RooflinePoint:
    """Hold a row that ran against the machine's peak. Raises ValueError for one without a latency."""
    if not row.p50_ns:
        raise ValueError(f"{row.model} has no latency")
    flops = 2 * artifact.macs * row.batch
    ends = [spec.at_batch(row.batch).nbytes for spec in (*artifact.inputs, *artifact.outputs)]
    moved = artifact.size_bytes + sum(ends)
    least_ns, bound_by = _least(flops, moved, peak)
    notes = [f"computes in {row.precision}, the peak is in float32"] if row.precision != _OF_THE_PEAK else []
    if row.p50_ns < least_ns:
        notes.append("beats the limit: products better than NumPy's, or weights that stay in a cache")
    return RooflinePoint(
        model=row.model,
        target=row.target,
        precision=row.precision,
        threads=row.threads,
        p50_ns=row.p50_ns,
        gflops=flops / row.p50_ns,
        flop_per_byte=flops / moved,
        bound_by=bound_by,
        limit_gflops=flops / least_ns,
        share=least_ns / row.p50_ns,
        least_ns=least_ns,
        note="; ".join(notes),
    )


def _least(flops: int, moved: int, peak: Peak) -> tuple[float, str]:
    """Nanoseconds at least, and what they are spent on. min(peak, intensity x bandwidth), as a time."""
    compute_ns, memory_ns = flops / peak.gflops, moved / peak.gb_per_s
    return max(compute_ns, memory_ns), "compute" if compute_ns >= memory_ns else "memory"


def layer_times(
    artifact: Artifact, device: Device, *, threads: int, batch: int = 1, peak: Peak | None = None
) -> LayerTable:
    """What each operator takes, in a process of its own. With a peak, each is held against its own limit, too."""
    recipe = load_recipe(artifact.target).RECIPE
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        files = {WORKER: pack(recipe.target, Path(folder) / WORKER), _FOLDER: artifact.folder}
        job = Job(
            task="layers",
            target=recipe.target,
            folder=_FOLDER,
            payload=artifact.payload,
            sha256=artifact.sha256,
            threads=threads,
            batch=batch,
            min_runs=LAYER_RUNS,
        )
        transport = load_transport(device.transport)
        reply = transport.run(device, files, job, timeout_s=Protocol().timeout_s)
    names = (artifact.model, artifact.target, artifact.precision)
    if reply.status != "ok":
        return LayerTable(*names, (), {}, f"{reply.status}: {reply.error}")
    return _table(names, reply.layers, peak)


def _table(names: tuple[str, str, str], told: Sequence[LayerTime], peak: Peak | None) -> LayerTable:
    total = sum(item.ns for item in told) or 1
    layers = [
        Layer(item.name, item.operator, item.ns, item.ns / total, item.macs, item.bytes, _limit_share(item, peak))
        for item in sorted(told, key=lambda item: -item.ns)
    ]
    by_operator: dict[str, float] = {}
    for layer in layers:
        by_operator[layer.operator] = by_operator.get(layer.operator, 0.0) + layer.share
    note = f"{len(told)} operators, {total / 1e6:.2f} ms together, medians of {LAYER_RUNS} runs that were traced"
    return LayerTable(*names, tuple(layers), by_operator, note)


def _limit_share(layer: LayerTime, peak: Peak | None) -> float | None:
    """None where the engine does not tell what the operator computes and moves, or its clock is too coarse."""
    if peak is None or layer.macs is None or layer.bytes is None or layer.ns <= 0:
        return None
    return _least(2 * layer.macs, layer.bytes, peak)[0] / layer.ns
