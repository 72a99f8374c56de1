"""Noise floor and peak performance of a device, measured with fixed workloads.

The workloads run as artifacts do: in a fresh worker process, with the same threads, environment and throttling checks.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import DeviceError
from edgevit.measurement import workloads
from edgevit.measurement.runner import Protocol, run_unthrottled
from edgevit.measurement.summary import PROTOCOL_MIN_RUNS, PROTOCOL_PROCESSES
from edgevit.records.measurement import Device, NoiseFloor
from edgevit_runtime.digest import tree_sha256
from edgevit_runtime.record import Job, Timing

NOISE_REPEATS = 5  # of the whole protocol: the range of five contained the true value in 96% of trials
NOISE_WORKLOAD = "mixed"  # needs no engine, so that any device has a floor
PEAK_NS = 1_000_000_000  # duration of the runs, of which the fastest counts
QUICK_PEAK_NS = 100_000_000  # the same in a quick look
_FOLDER, _PAYLOAD = "artifact", "workload.txt"


@dataclass(frozen=True)
class Peak:
    """Peak performance of a machine with these threads: float32 products, and memory read and written in order."""

    device: str
    threads: int
    gflops: float  # 2 per multiply-accumulate
    gb_per_s: float


def measure_noise(
    device: Device, *, threads: int = 1, repeats: int = NOISE_REPEATS, on_progress: Callable[[int], None] | None = None
) -> NoiseFloor:
    """Measure the reference workload repeatedly, each time as the protocol measures a model.

    The repeats follow each other, because compared rows were not measured at the same time either. Raises DeviceError
    where the device cannot run the workload or never cools down.
    """
    started, headlines = datetime.now(UTC).isoformat(timespec="microseconds"), list[int]()
    for _ in range(repeats):
        medians = []
        for _ in range(PROTOCOL_PROCESSES):
            timing = run_workload(device, NOISE_WORKLOAD, threads=threads, min_runs=PROTOCOL_MIN_RUNS)
            medians.append(statistics.median(timing.samples_ns))
        headlines.append(round(statistics.median(medians)))
        if on_progress:
            on_progress(len(headlines))
    share = (max(headlines) - min(headlines)) / statistics.median(headlines)
    return NoiseFloor(device.device_id, device.name, NOISE_WORKLOAD, threads, share, tuple(headlines), started)


def measure_peak(device: Device, *, threads: int, quick: bool = False) -> Peak:
    """Measure the machine's peak, each number from the fastest run. A quick look may miss the fastest.

    Raises DeviceError where NumPy is missing.
    """
    min_runs, min_ns = (3, QUICK_PEAK_NS) if quick else (10, PEAK_NS)

    def fastest(text: str) -> int:
        timing = run_workload(device, text, threads=threads, min_runs=min_runs, min_ns=min_ns, warm_up=False)
        return min(timing.samples_ns)

    gflops = max(2 * workloads.gemm_macs(size) / fastest(f"gemm {size}") for size in workloads.GEMM_SIZES)
    megabytes = workloads.TRIAD_MB
    return Peak(device.name, threads, gflops, workloads.triad_bytes(megabytes) / fastest(f"triad {megabytes}"))


def run_workload(
    device: Device, text: str, *, threads: int, min_runs: int = 10, min_ns: int = PEAK_NS, warm_up: bool = True
) -> Timing:
    """Run one process of a workload of edgevit/measurement/workloads.py, and return its raw times.

    Without a warm-up the first runs are slower, which the fastest run does not show. Raises DeviceError with the
    worker's error where it failed, and for an emulated processor.
    """
    transport, timeout_s = load_transport(device.transport), Protocol().timeout_s
    with scratch_folder() as name:
        folder = Path(name) / _FOLDER
        folder.mkdir()
        (folder / _PAYLOAD).write_text(text, encoding="utf-8")
        worker = pack_recipe(Path(workloads.__file__), Path(name) / WORKER)
        job = Job(
            "time", "workloads", _FOLDER, _PAYLOAD, tree_sha256(folder), threads, min_runs=min_runs, min_ns=min_ns
        )
        if not warm_up:
            job = dataclasses.replace(job, warmup_min_runs=1, warmup_min_ns=0, warmup_max_ns=0)
        files = {WORKER: worker, _FOLDER: folder}
        reply, _ = run_unthrottled(
            lambda: transport.run(device, files, job, timeout_s=timeout_s), Protocol().cool_down_s
        )
    if reply.timing is None:
        raise DeviceError(f"the workload {text!r} did not run", where=device.name, why=f"{reply.status}: {reply.error}")
    if reply.emulated:
        why = f"its processor is emulated by {reply.emulated}: times there say nothing of a real device"
        raise DeviceError("the device has neither a noise floor nor a peak", where=device.name, why=why)
    return reply.timing
