"""Roofline of a model on a machine, and its operators' times.

A run takes at least as long as its products at the machine's peak. It also takes at least as long as its weights,
inputs and outputs need to pass through memory once. Tensors between layers are not counted, as they may stay in a
cache. So only two things beat the limit: a cache that keeps the weights from run to run, and products faster than
NumPy's.
(Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack
from edgevit.measurement.noise_floor import Peak
from edgevit.measurement.runner import Protocol
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact
from edgevit.records.measurement import Device, Measurement
from edgevit_runtime.record import Job, LayerTime

# An operator's time is the median of so many runs: engines count in microseconds, and one run is noise.
LAYER_RUNS = 20
_FOLDER = "artifact"
_PEAK_PRECISION = "fp32"


@dataclass(frozen=True)
class RooflinePoint:
    """The position of one model below the machine's roofline. FLOPs are two per multiply-accumulate."""

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
    least_ns: float  # duration of a run at the limit
    note: str


@dataclass(frozen=True)
class Layer:
    """The time of one operator as the engine runs it. share: of all operators' time; limit_share: of its own limit."""

    name: str
    operator: str
    ns: int
    share: float
    macs: int | None
    bytes: int | None
    limit_share: float | None


@dataclass(frozen=True)
class LayerTable:
    """The operators of one artifact, slowest first. It is empty where the engine has no times; `note` then says so."""

    model: str
    target: str
    precision: str
    layers: tuple[Layer, ...]
    by_operator: dict[str, float]  # share of all operators' time
    note: str


def roofline_point(row: Measurement, artifact: Artifact, peak: Peak) -> RooflinePoint:
    """Compare a row that ran with the machine's peak. Raises ValueError for a row without a latency."""
    if not row.p50_ns:
        raise ValueError(f"{row.model} has no latency")
    flops = 2 * artifact.macs * row.batch
    ends = [spec.at_batch(row.batch).nbytes for spec in (*artifact.inputs, *artifact.outputs)]
    moved = artifact.size_bytes + sum(ends)
    least_ns, bound_by = _limit_ns(flops, moved, peak)
    notes = [f"computes in {row.precision}, the peak is in float32"] if row.precision != _PEAK_PRECISION else []
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


def _limit_ns(flops: int, moved: int, peak: Peak) -> tuple[float, str]:
    """Return the shortest duration in ns and its bound, compute or memory: min(peak, intensity x bandwidth) as time."""
    compute_ns, memory_ns = flops / peak.gflops, moved / peak.gb_per_s
    return max(compute_ns, memory_ns), "compute" if compute_ns >= memory_ns else "memory"


def layer_times(
    artifact: Artifact, device: Device, *, threads: int, batch: int = 1, peak: Peak | None = None
) -> LayerTable:
    """Measure each operator's time in a separate process. With a peak, each is compared with its own limit."""
    recipe = load_recipe(artifact.target).RECIPE
    with scratch_folder() as folder:
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


def _table(names: tuple[str, str, str], times: Sequence[LayerTime], peak: Peak | None) -> LayerTable:
    total = sum(time.ns for time in times) or 1
    layers = [
        Layer(time.name, time.operator, time.ns, time.ns / total, time.macs, time.bytes, _limit_share(time, peak))
        for time in sorted(times, key=lambda time: -time.ns)
    ]
    by_operator: dict[str, float] = {}
    for layer in layers:
        by_operator[layer.operator] = by_operator.get(layer.operator, 0.0) + layer.share
    note = f"{len(times)} operators, {total / 1e6:.2f} ms together, medians of {LAYER_RUNS} runs that were traced"
    return LayerTable(*names, tuple(layers), by_operator, note)


def _limit_share(layer: LayerTime, peak: Peak | None) -> float | None:
    """Return the share of the operator's own limit. None: its work or traffic is unknown, or the clock too coarse."""
    if peak is None or layer.macs is None or layer.bytes is None or layer.ns <= 0:
        return None
    return _limit_ns(2 * layer.macs, layer.bytes, peak)[0] / layer.ns
