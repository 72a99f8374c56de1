"""Fixed workloads in real worker processes: a device's noise floor and its peak."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from edgevit.devices.transports import load_transport
from edgevit.errors import DeviceError
from edgevit.measurement import noise_floor, workloads
from edgevit.measurement.noise_floor import Peak, measure_noise, measure_peak, run_workload
from edgevit_runtime.record import Snapshot, Timing, UnsupportedError
from support import toys

MS = 1_000_000


def test_a_workload_runs_as_an_artifact_does():
    timing = run_workload(toys.LOCAL, "mixed", threads=1, min_runs=3, min_ns=0)
    assert len(timing.samples_ns) == 3 and min(timing.samples_ns) > 100_000


@pytest.mark.parametrize("threads", [1, 3])
def test_triad_is_a_triad(threads, tmp_path):
    """Every item of it, with the last chunk and part shorter than the others."""
    made = workloads._triad(1, threads, Watched)
    made()
    a, b, c = Watched.made[:3]
    assert a.size == 250_000 and np.array_equal(a, b + 3 * c)
    assert workloads.triad_bytes(1) == 3 * a.nbytes


class Watched:
    """NumPy that keeps its arrays, with ones that differ from item to item."""

    float32, multiply, add = np.float32, np.multiply, np.add
    made: ClassVar[list[np.ndarray]] = []

    @classmethod
    def ones(cls, items, dtype):
        array = np.random.default_rng(len(cls.made)).random(items, dtype)
        cls.made.append(array)
        return array

    @staticmethod
    def empty(items, dtype):
        Watched.made, kept = Watched.made[-3:], np.empty(items, dtype)
        return kept


def test_gemm_multiplies(tmp_path):
    assert np.allclose(workloads._gemm(64, 1, np)(), 64 * 0.25)
    assert workloads.gemm_macs(64) == 64 * 64 * 64


def test_a_device_without_numpy_says_so(tmp_path, monkeypatch):
    (tmp_path / "w.txt").write_text("gemm 8")
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(UnsupportedError, match="NumPy"):
        workloads.load(tmp_path / "w.txt", threads=1)


def test_a_workload_that_does_not_run_is_a_device_error():
    with pytest.raises(DeviceError, match="did not run") as caught:
        run_workload(toys.LOCAL, "gemm nothing", threads=1)
    assert "failed" in caught.value.why and caught.value.where == "local"


def test_an_emulated_device_has_neither_noise_nor_peak(monkeypatch):
    local = load_transport("local")
    monkeypatch.setattr(
        noise_floor,
        "load_transport",
        lambda name: SimpleNamespace(
            run=lambda *args, **how: dataclasses.replace(local.run(*args, **how), emulated="qemu-aarch64")
        ),
    )
    with pytest.raises(DeviceError, match="emulated by qemu-aarch64"):
        run_workload(toys.LOCAL, "mixed", threads=1, min_runs=1, min_ns=0)


@pytest.fixture
def times(monkeypatch):
    """The runs of each workload, given instead of made."""
    moment = Snapshot(1, (0,), None, None, None, None, None, None, None)
    asked, given = [], {}

    def fake(device, text, *, threads, min_runs=10, min_ns=0):
        asked.append(text)
        samples = given[text]
        samples = samples.pop(0) if isinstance(samples, list) else samples
        return Timing(1, 1, (), samples, True, None, moment, moment)

    monkeypatch.setattr(noise_floor, "run_workload", fake)
    return asked, given


def test_noise_is_the_range_of_the_repeats(times):
    asked, given = times
    given["mixed"] = [
        (value * MS,) for headline in (100, 102, 101, 99, 100) for value in (headline, headline, 999, 1, headline)
    ]
    done = []
    floor = measure_noise(toys.LOCAL, on_progress=done.append)
    assert floor.share == pytest.approx(0.03)
    assert [value // MS for value in floor.p50s_ns] == [100, 102, 101, 99, 100], "medians of five processes"
    assert (len(asked), done) == (25, [1, 2, 3, 4, 5])
    assert (floor.device_id, floor.workload, floor.threads) == ("unit", "mixed", 1)


def test_peak_is_the_best_of_all(times):
    _, given = times
    given |= {f"gemm {size}": (10**9, 2 * size**3 // (100 if size == 512 else 50)) for size in workloads.GEMM_SIZES}
    given["triad 64"] = (10**9, workloads.triad_bytes(64) // 10)
    peak = measure_peak(toys.LOCAL, threads=2)
    assert dataclasses.replace(peak, gflops=round(peak.gflops), gb_per_s=round(peak.gb_per_s)) == Peak(
        "local", 2, 100, 10
    )
