"""Fixed workloads in real worker processes: a device's noise floor and its peak."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevit.devices.transports import load_transport
from edgevit.errors import DeviceError
from edgevit.measurement import noise_floor, workloads
from edgevit.measurement.noise_floor import Peak, measure_noise, measure_peak, run_workload
from edgevit.records.measurement import Device
from edgevit_runtime.record import Job, Reply, Snapshot, Timing, UnsupportedError
from support import toys

MS = 1_000_000
MOMENT = Snapshot(1, (0,), None, None, None, None, None, None, None)
Array = NDArray[Any]
# Texts of the workloads that ran, and the samples of each workload's text.
Times = tuple[list[str], dict[str, Any]]


def test_a_workload_runs_as_an_artifact_does() -> None:
    timing = run_workload(toys.LOCAL, "mixed", threads=1, min_runs=3, min_ns=0)
    assert len(timing.samples_ns) == 3 and min(timing.samples_ns) > 100_000


@pytest.mark.parametrize("threads", [1, 3])
def test_triad_is_a_triad(threads: int, tmp_path: Path) -> None:
    """Every item of it, with the last chunk and part shorter than the others."""
    run = workloads._triad(1, threads, Watched)
    run()
    a, b, c = Watched.arrays[:3]
    assert a.size == 250_000 and np.array_equal(a, b + 3 * c)
    assert workloads.triad_bytes(1) == 3 * a.nbytes


class Watched:
    """NumPy that keeps its arrays, with ones that differ from item to item."""

    float32, multiply, add = np.float32, np.multiply, np.add
    arrays: ClassVar[list[np.ndarray]] = []

    @classmethod
    def ones(cls, size: int, dtype: Any) -> Array:
        array = np.random.default_rng(len(cls.arrays)).random(size, dtype)
        cls.arrays.append(array)
        return array

    @staticmethod
    def empty(size: int, dtype: Any) -> Array:
        Watched.arrays, array = Watched.arrays[-3:], np.empty(size, dtype)
        return array


def test_gemm_multiplies(tmp_path: Path) -> None:
    product: Any = workloads._gemm(64, 1, np)()
    assert np.allclose(product, 64 * 0.25)
    assert workloads.gemm_macs(64) == 64 * 64 * 64


def test_a_device_without_numpy_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.txt").write_text("gemm 8")
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(UnsupportedError, match="NumPy"):
        workloads.load(tmp_path / "w.txt", threads=1)


def test_a_workload_that_does_not_run_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="did not run") as caught:
        run_workload(toys.LOCAL, "gemm nothing", threads=1)
    assert "failed" in caught.value.why and caught.value.where == "local"


def test_an_emulated_device_has_neither_noise_nor_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    local = load_transport("local")
    monkeypatch.setattr(
        noise_floor,
        "load_transport",
        lambda name: SimpleNamespace(
            run=lambda *args, **options: dataclasses.replace(local.run(*args, **options), emulated="qemu-aarch64")
        ),
    )
    with pytest.raises(DeviceError, match="emulated by qemu-aarch64"):
        run_workload(toys.LOCAL, "mixed", threads=1, min_runs=1, min_ns=0)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """The runs of each workload, given instead of made."""
    texts: list[str] = []
    samples_of: dict[str, Any] = {}

    def fake(device: Device, text: str, *, threads: int, min_runs: int = 10, **others: Any) -> Timing:
        texts.append(text)
        samples = samples_of[text]
        samples = samples.pop(0) if isinstance(samples, list) else samples
        return Timing(1, 1, (), samples, True, None, MOMENT, MOMENT)

    monkeypatch.setattr(noise_floor, "run_workload", fake)
    return texts, samples_of


def test_noise_is_the_range_of_the_repeats(times: Times) -> None:
    texts, samples_of = times
    samples_of["mixed"] = [
        (value * MS,) for headline in (100, 102, 101, 99, 100) for value in (headline, headline, 999, 1, headline)
    ]
    progress: list[int] = []
    floor = measure_noise(toys.LOCAL, on_progress=progress.append)
    assert floor.share == pytest.approx(0.03)
    assert [value // MS for value in floor.p50s_ns] == [100, 102, 101, 99, 100], "medians of five processes"
    assert (len(texts), progress) == (25, [1, 2, 3, 4, 5])
    assert (floor.device_id, floor.workload, floor.threads) == ("unit", "mixed", 1)


@pytest.mark.parametrize(("quick", "least"), [(False, (10, 1000 * MS)), (True, (3, 100 * MS))])
def test_a_peak_has_no_warm_up_and_a_quick_one_fewer_runs(
    quick: bool, least: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the fastest run counts."""
    jobs: list[Job] = []

    def run(device: Device, files: Any, job: Job, *, timeout_s: float) -> Reply:
        jobs.append(job)
        return Reply("ok", timing=Timing(1, 1, (), (MS,), True, None, MOMENT, MOMENT))

    monkeypatch.setattr(noise_floor, "load_transport", lambda name: SimpleNamespace(run=run))
    measure_peak(toys.LOCAL, threads=1, quick=quick)
    assert len(jobs) == len(workloads.GEMM_SIZES) + 1
    assert {(job.min_runs, job.min_ns) for job in jobs} == {least}
    assert {(job.warmup_min_runs, job.warmup_min_ns, job.warmup_max_ns) for job in jobs} == {(1, 0, 0)}


def test_peak_is_the_best_of_all(times: Times) -> None:
    _, samples_of = times
    samples_of |= {
        f"gemm {size}": (10**9, 2 * size**3 // (100 if size == 512 else 50)) for size in workloads.GEMM_SIZES
    }
    samples_of["triad 64"] = (10**9, workloads.triad_bytes(64) // 10)
    peak = measure_peak(toys.LOCAL, threads=2)
    assert dataclasses.replace(peak, gflops=round(peak.gflops), gb_per_s=round(peak.gb_per_s)) == Peak(
        "local", 2, 100, 10
    )
