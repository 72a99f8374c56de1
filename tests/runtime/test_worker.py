"""The device side: worker, timing, environment, and the file they travel in."""

from __future__ import annotations

import base64
import dataclasses
import gc
import itertools
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevit_runtime
from edgevit.devices.worker_archive import pack, pack_recipe
from edgevit_runtime import environment, power, timing
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import ITEM_BYTES, Job, Reply, TensorSpec
from support import toys
from support.speed import seconds

RUNTIME = Path(edgevit_runtime.__file__).parent


# --- the packed worker


def run_worker(folder: Path, recipe: Path, job: Job, *options: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    pack_recipe(recipe, folder / "worker.pyz")
    (folder / "job.json").write_text(to_json(job))
    command = [sys.executable, "-I", *options, "worker.pyz", "job.json", "reply.json"]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds(30))
    path = folder / "reply.json"
    return process, from_json(Reply, path.read_bytes()) if path.exists() else None


def test_pack_is_deterministic_and_holds_one_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack("onnx", tmp_path / "a.pyz").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    os.utime(RUNTIME / "record.py")
    assert pack("onnx", tmp_path / "b.pyz").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "a.pyz") as archive:
        names = archive.namelist()
    assert [name for name in names if name.startswith("edgevit_recipes/")] == [
        "edgevit_recipes/__init__.py",
        "edgevit_recipes/onnx.py",
    ]
    assert {name.partition("/")[0] for name in names} == {"__main__.py", "edgevit_runtime", "edgevit_recipes"}


def test_worker_runs_without_site_packages(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact")
    process, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact), "-S")
    assert (process.returncode, process.stderr) == (0, "")
    assert (reply.status, reply.error, reply.engine, reply.engine_version) == ("ok", "", "fake-engine", "1.0")
    assert len(reply.timing.samples_ns) == 5
    assert min(reply.timing.samples_ns) > 500_000  # the fake sleeps for half a millisecond
    assert reply.timing.load_ns > 0 and reply.timing.first_ns > 500_000
    assert reply.timing.before.unix_ns < reply.timing.after.unix_ns
    assert reply.host.cores >= 1
    assert not list(tmp_path.glob("reply.json.*")), "a temporary file was left"


def test_recipe_does_not_hide_the_distribution_of_its_name(tmp_path: Path) -> None:
    recipe = tmp_path / "onnx.py"
    recipe.write_text(
        toys.FAKE_RECIPE.replace("text = path", "import onnx; assert onnx.helper; text = path").replace(
            '"fake"', '"onnx"'
        )
    )
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "artifact"), target="onnx")
    process, reply = run_worker(tmp_path, recipe, toys.job_for(artifact))
    assert (process.stderr, reply.status) == ("", "ok")


def test_infer_returns_outputs_in_order(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact")
    sets = [(bytes([i]) * 32, bytes([i + 10]) * 4) for i in range(3)]  # batch 2: 2x4 floats, 2x2 bytes
    (tmp_path / "feeds.bin").write_bytes(b"".join(itertools.chain(*sets)))
    job = toys.job_for(artifact, task="infer", batch=2, feeds="feeds.bin", count=3)
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), job)
    assert reply.status == "ok"
    assert reply.timing is None
    assert [tuple(map(base64.b64decode, outputs)) for outputs in reply.results] == [pair[::-1] for pair in sets]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "the artifact is damaged"),
        ({"payload": "../secret.txt"}, "is not inside the artifact"),
        ({"folder": "nowhere"}, "there is no artifact"),
    ],
)
def test_engine_never_sees_a_wrong_artifact(tmp_path: Path, change: dict[str, object], message: str) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact", f"work load {tmp_path}/loaded")
    (tmp_path / "secret.txt").write_text(f"work load {tmp_path}/loaded")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact, **change))
    assert reply.status == "failed"
    assert message in reply.error
    assert not (tmp_path / "loaded").exists()


def test_link_inside_an_artifact_is_refused(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact")
    (artifact.folder / "more").symlink_to("/etc/hostname")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert reply.status == "failed"
    assert "link" in reply.error


def test_feeds_of_another_size_are_refused(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact")
    (tmp_path / "feeds.bin").write_bytes(bytes(35))
    job = toys.job_for(artifact, task="infer", batch=2, feeds="feeds.bin", count=1)
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), job)
    assert (reply.status, reply.error) == ("failed", "feeds.bin has 35 bytes, 1 x 36 expected")


def test_fixed_batch_is_not_reported_as_another(tmp_path: Path) -> None:
    recipe = toys.fake_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("(-1, ", "(1, "))
    artifact = toys.fake_artifact(tmp_path / "artifact")
    _, reply = run_worker(tmp_path, recipe, toys.job_for(artifact, batch=4))
    assert reply.status == "failed"
    assert "fixed batch" in reply.error


def test_missing_engine_is_unsupported(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact", "import load")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert reply.status == "unsupported"
    assert "an_engine_that_is_not_installed" in reply.error
    assert reply.host is not None


def test_a_processor_that_lacks_an_instruction_set_is_named_as_data(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact", "processor load")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert (reply.status, reply.missing_instructions) == ("unsupported", "bf16")
    assert reply.error == "needs a processor with bf16: this engine computes in f32 on this one"


def test_crash_leaves_a_reply_that_knows_where_it_happened(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact", "segv load")
    process, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert process.returncode < 0
    assert (reply.status, reply.engine) == ("crashed", "fake-engine")
    assert reply.host is not None


@pytest.mark.parametrize("target", ["../evil", "os.path", ""])
def test_target_must_be_a_name(tmp_path: Path, target: str) -> None:
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "artifact"), target=target)
    process, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert (process.returncode, reply) == (1, None)
    assert "is not the name of a target" in process.stderr


def test_worker_volunteers_when_memory_runs_out(tmp_path: Path) -> None:
    if not Path("/proc/self/oom_score_adj").exists():
        pytest.skip("not Linux")
    recipe = toys.fake_recipe(tmp_path)
    text = "raise RuntimeError(Path('/proc/self/oom_score_adj').read_text())"
    recipe.write_text(recipe.read_text().replace("text = path.read_text()", text))
    process, _ = run_worker(tmp_path, recipe, toys.job_for(toys.fake_artifact(tmp_path / "artifact")))
    assert "RuntimeError: 1000" in process.stderr


# --- noise


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
def test_noise_has_the_size_and_is_seeded(dtype: str) -> None:
    spec = TensorSpec("x", (-1, 3, 50, 50), dtype)
    (raw,) = timing.noise([spec], 2, seed=7)
    assert len(raw) == 2 * 3 * 50 * 50 * ITEM_BYTES[dtype]
    assert (raw,) == timing.noise([spec], 2, seed=7)
    assert (raw,) != timing.noise([spec], 2, seed=8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_float_noise_is_gaussian(dtype: str) -> None:
    import ml_dtypes

    (raw,) = timing.noise([TensorSpec("x", (10_000,), dtype)], 1, seed=0)
    values = np.frombuffer(raw, dtype=ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype).astype(np.float64)
    assert abs(values.mean()) < 0.05
    assert 0.95 < values.std() < 1.05
    assert (values[:4096] == values[4096:8192]).all()


def test_wide_integer_noise_is_a_valid_index_anywhere() -> None:
    (raw,) = timing.noise([TensorSpec("x", (999,), "int64")], 1, seed=0)
    assert set(np.frombuffer(raw, np.int64)) == {0, 1}


# --- warm-up and samples, on a clock that only runs() advance


class Clock:
    def __init__(self, costs: Iterable[int]) -> None:
        self.now, self.costs = 0, iter(costs)

    def perf_counter_ns(self) -> int:
        return self.now

    def run(self) -> None:
        self.now += next(self.costs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[int]], Clock]:
    def make(costs: Iterable[int]) -> Clock:
        fake_clock = Clock(costs)
        monkeypatch.setattr(timing, "time", fake_clock)
        return fake_clock

    return make


JOB = Job("time", "t", "f", "p", "", 1)
MS = 1_000_000


def test_warm_up_makes_ten_runs_and_half_a_second(clock: Callable[[Iterable[int]], Clock]) -> None:
    assert timing.warm_up(clock(itertools.repeat(100 * MS)).run, JOB) == timing.Warmup((100 * MS,) * 10, True)
    assert len(timing.warm_up(clock(itertools.repeat(10 * MS)).run, JOB).times_ns) == 50


def test_warm_up_goes_on_until_the_times_settle(clock: Callable[[Iterable[int]], Clock]) -> None:
    costs = itertools.chain(itertools.repeat(20 * MS, 15), itertools.repeat(10 * MS))
    result = timing.warm_up(clock(costs).run, JOB)
    assert result.warm
    assert len(result.times_ns) > 60, "the second half must outgrow the slow start"
    assert sum(result.times_ns) < 5_000 * MS


def test_warm_up_gives_up_after_five_seconds_and_says_so(clock: Callable[[Iterable[int]], Clock]) -> None:
    result = timing.warm_up(clock(int(MS * 1.05**i) for i in itertools.count()).run, JOB)
    assert not result.warm
    assert 5_000 * MS <= sum(result.times_ns) < 5_600 * MS


@pytest.mark.parametrize(
    ("times", "expected"), [([100, 102], True), ([100, 103], False), ([103, 100], False), ([5], False)]
)
def test_settled(times: list[int], expected: bool) -> None:
    assert timing.settled(times) is expected


def test_sample_meets_both_minima(clock: Callable[[Iterable[int]], Clock]) -> None:
    assert len(timing.sample(clock(itertools.repeat(MS)).run, 100, 0)) == 100
    assert len(timing.sample(clock(itertools.repeat(MS)).run, 100, 1_000 * MS)) == 1000
    costs = [5, 3, 9, 4]
    assert timing.sample(clock(costs).run, 4, 0) == (5, 3, 9, 4)


# --- a camera's frames


class PacedClock(Clock):
    """Time passes in runs and in sleeps, and sleeps end late."""

    def __init__(self, costs: Iterable[int], late: int = 0) -> None:
        super().__init__(costs)
        self.late = late

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9) + self.late


def camera_on(
    monkeypatch: pytest.MonkeyPatch, rate_hz: float, costs: Iterable[int], late: int = 0
) -> tuple[timing.Camera, PacedClock]:
    clock = PacedClock(costs, late)
    monkeypatch.setattr(timing, "time", clock)
    return timing.Camera(rate_hz), clock


def test_a_frame_is_taken_when_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, clock = camera_on(monkeypatch, 100, itertools.repeat(3 * MS), late=MS // 2)
    assert camera.sample(clock.run, 4, 0) == (3 * MS + MS // 2,) * 4, "waking up late is part of it"
    assert clock.now == 43 * MS + MS // 2, "four frames, ten milliseconds apart"
    assert camera.missed == 0


def test_frames_that_arrive_meanwhile_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, clock = camera_on(monkeypatch, 100, [25 * MS, 3 * MS, 10 * MS, MS])
    assert camera.sample(clock.run, 4, 0) == (25 * MS, 3 * MS, 10 * MS, MS), "none is queued: latency does not add up"
    assert camera.missed == 3, "two during the first run, and the one that came just as the third ended"
    assert clock.now == 71 * MS


def test_missed_frames_of_the_warm_up_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, clock = camera_on(monkeypatch, 100, itertools.chain([25 * MS] * 10, itertools.repeat(MS)))
    warm = timing.warm_up(clock.run, dataclasses.replace(JOB, warmup_min_ns=0), camera.frame)
    assert warm.times_ns[:10] == (25 * MS,) * 10
    camera.sample(clock.run, 5, 0)
    assert camera.missed == 0


def test_a_meter_is_read_between_runs(clock: Callable[[Iterable[int]], Clock]) -> None:
    calls = []

    class Meter:
        def start(self) -> None:
            calls.append("start")

        def tick(self) -> None:
            calls.append("tick")

        def stop(self) -> float | None:
            return None

    timing.sample(clock(itertools.repeat(MS)).run, 3, 0, Meter())
    assert calls == ["start", "tick", "tick", "tick"]


def test_a_worker_paces_counts_and_loads_cold(tmp_path: Path) -> None:
    recipe = toys.fake_recipe(tmp_path)
    recipe.write_text(
        recipe.read_text().replace("time.sleep(0.0005)", "time.sleep(0.004)").replace(
            "class Session:", "def import_engine():\n    time.sleep(0.02)\n\n\nclass Session:\n    compile_ns = 7"
        )
    )  # fmt: skip
    artifact = toys.fake_artifact(tmp_path / "artifact")
    _, reply = run_worker(tmp_path, recipe, toys.job_for(artifact, rate_hz=50.0, cold=True, min_runs=10))
    times = reply.timing
    assert (reply.status, times.compile_ns, len(times.samples_ns)) == ("ok", 7, 10)
    assert 20_000_000 <= times.import_ns < times.load_ns
    assert min(times.samples_ns) >= 4_000_000
    assert times.after.unix_ns - times.before.unix_ns > 200_000_000, "ten frames at 50 Hz"
    assert times.missed is not None


def test_a_file_is_taken_out_of_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(5_000_000))
    dropped = environment.drop_from_cache(tmp_path)
    with path.open("rb") as file:  # page by page: pages that are looked at are read, and a kernel thread may hold one
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        cached = [environment._is_cached(file.fileno(), offset) for offset in range(50_000, 5_000_000, 100_000)]
    assert dropped is (sum(cached) < 5), "what it says is how it is, on whatever this folder lies"


def test_a_cache_that_cannot_be_emptied_is_not_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(bytes(100))
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: None)
    assert environment.drop_from_cache(tmp_path) is False


# --- layers


def test_an_engine_that_does_not_tell_is_said_not_to(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact, task="layers"))
    assert (reply.status, reply.layers) == ("unsupported", ())
    assert "fake-engine or its recipe does not report the times of operators" in reply.error


def test_garbage_collector_rests_while_sampling() -> None:
    enabled = []
    timing.sample(lambda: enabled.append(gc.isenabled()), 3, 0)
    assert enabled == [False] * 3
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        timing.sample(lambda: 1 / 0, 3, 0)
    assert gc.isenabled()


# --- environment


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_a_system_does_not_tell_is_none(tmp_path: Path) -> None:
    snapshot = environment.snapshot(tmp_path)
    readings = (
        snapshot.governor,
        snapshot.frequency_khz,
        snapshot.temperature_mc,
        snapshot.steal_ticks,
        snapshot.total_ticks,
    )
    assert readings == (None,) * 5
    assert snapshot.power_source is None


def test_sensor_that_is_off_is_not_a_temperature(tmp_path: Path) -> None:
    root = system(
        tmp_path, {"sys/class/thermal/thermal_zone0/temp": "-273000\n", "sys/class/thermal/cooling/temp": "9"}
    )
    assert environment.snapshot(root).temperature_mc is None


def test_snapshot_reads_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: (2, 3))
    cpu, supply = "sys/devices/system/cpu/cpu", "sys/class/power_supply"
    root = system(
        tmp_path,
        {
            f"{cpu}0/cpufreq/scaling_cur_freq": "9000000\n",  # not ours
            f"{cpu}2/cpufreq/scaling_cur_freq": "600000\n",
            f"{cpu}3/cpufreq/scaling_cur_freq": "1800000\n",
            f"{cpu}2/cpufreq/scaling_governor": "schedutil\n",
            f"{cpu}3/cpufreq/scaling_governor": "performance\n",
            "sys/class/thermal/thermal_zone1/temp": "48200\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/hwmon/hwmon0/temp1_input": "80000\n",
            "sys/class/hwmon/hwmon1/name": "k10temp\n",
            "sys/class/hwmon/hwmon1/temp1_input": "51000\n",
            "proc/stat": "cpu  100 1 20 300 5 0 2 42 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
            f"{supply}/BAT0/type": "Battery\n",
            f"{supply}/BAT0/status": "Discharging\n",
        },
    )
    snapshot = environment.snapshot(root)
    assert snapshot.affinity == (2, 3)
    assert snapshot.governor == "performance,schedutil"
    assert snapshot.frequency_khz == 1_800_000
    assert snapshot.temperature_mc == 51_000
    assert (snapshot.steal_ticks, snapshot.total_ticks) == (42, 470)
    assert snapshot.power_source == "battery"
    system(root, {f"{supply}/AC/type": "Mains\n", f"{supply}/AC/online": "1\n"})
    assert environment.snapshot(root).power_source == "mains"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: Other\n"},
            "AMD EPYC",
        ),
        ({"proc/cpuinfo": "CPU part\t: 0xd08\n", "proc/device-tree/model": "Raspberry Pi 4\0"}, "Raspberry Pi 4"),
        ({"proc/cpuinfo": "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"}, "0x41 0xd0b"),
    ],
)
def test_cpu_model(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert environment.host(system(tmp_path, files)).cpu_model == expected


def test_a_system_that_tells_of_throttling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: (0, 1))
    assert (environment.snapshot(tmp_path).throttled, environment.snapshot(tmp_path).throttle_events) == (None, None)
    cpu = "sys/devices/system/cpu/cpu"
    files = {f"{cpu}0/thermal_throttle/core_throttle_count": "3\n", f"{cpu}0/thermal_throttle/x": "9",
             f"{cpu}0/thermal_throttle/package_throttle_count": "2\n"}  # fmt: skip
    assert environment.snapshot(system(tmp_path / "intel", files)).throttle_events == 5
    for text, expected in (("0\n", False), ("50000\n", False), ("50005\n", True), ("0x4\n", True), ("?\n", None)):
        root = system(tmp_path / "pi", {environment._PI_FILE: text})
        assert environment.snapshot(root).throttled is expected, text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpufreq/cpuinfo_max_freq": "1800000\n"}, 1_800_000),
        ({"cpufreq/cpuinfo_max_freq": "4500000\n", "acpi_cppc/nominal_freq": "2800\n"}, 2_800_000),
        (
            {
                "cpufreq/cpuinfo_max_freq": "4500000\n",
                "cpufreq/base_frequency": "2100000\n",
                "acpi_cppc/nominal_freq": "2800\n",
            },
            2_100_000,
        ),
    ],
)
def test_nominal_clock_is_no_boost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int | None
) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: (1,))
    root = system(tmp_path, {f"sys/devices/system/cpu/cpu1/{name}": text for name, text in files.items()})
    assert environment.snapshot(root).nominal_khz == expected


# --- energy

RAPL = "sys/class/powercap/intel-rapl"


def test_no_meter_is_no_energy(tmp_path: Path) -> None:
    assert power.meter(tmp_path) is None
    psys = {f"{RAPL}:1/name": "psys", f"{RAPL}:1/energy_uj": "5"}
    cores = {f"{RAPL}:0:0/name": "core", f"{RAPL}:0:0/energy_uj": "5"}
    locked = {f"{RAPL}:0/name": "package-0"}  # energy_uj cannot be read
    assert power.meter(system(tmp_path, psys | cores | locked)) is None


def test_energy_of_all_packages_across_the_end_of_a_counter(tmp_path: Path) -> None:
    root = system(tmp_path, {
        f"{RAPL}:0/name": "package-0\n", f"{RAPL}:0/energy_uj": "1000000\n", f"{RAPL}:0/max_energy_range_uj": "9000000",
        f"{RAPL}:1/name": "package-1\n", f"{RAPL}:1/energy_uj": "8500000\n", f"{RAPL}:1/max_energy_range_uj": "9000000",
        f"{RAPL}:0:0/name": "core\n", f"{RAPL}:0:0/energy_uj": "1\n",
    })  # fmt: skip
    meter: Any = power.meter(root)
    meter.start()
    system(tmp_path, {f"{RAPL}:0/energy_uj": "1500000\n", f"{RAPL}:1/energy_uj": "250000\n"})
    assert meter.stop() == pytest.approx(0.5 + 0.75)
    (root / f"{RAPL}:0/energy_uj").unlink()
    assert meter.stop() is None, "half a machine is not a machine"


def test_power_of_a_jetson_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chip = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    root = system(tmp_path, {
        f"{chip}/in1_label": "VDD_IN\n", f"{chip}/in1_input": "5000\n", f"{chip}/curr1_input": "2000\n",
        f"{chip}/in2_label": "VDD_CPU_GPU_CV\n", f"{chip}/in2_input": "5000\n", f"{chip}/curr2_input": "900\n",
    })  # fmt: skip
    moments = Clock(())
    monkeypatch.setattr(power, "time", moments)
    meter: Any = power.meter(root)
    meter.start()
    moments.now = 50 * MS
    meter.tick()  # too early to ask again
    moments.now = 1_000 * MS
    system(tmp_path, {f"{chip}/curr1_input": "4000\n"})
    meter.tick()
    moments.now = 2_000 * MS
    assert meter.stop() == pytest.approx((10 + 20) / 2 * 1 + 20 * 1)


def test_peak_memory_is_this_process_own() -> None:
    big = bytearray(b"x" * 200_000_000)
    code = "from edgevit_runtime.environment import peak_rss_bytes as p; print(p())"
    child = int(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=seconds(30)).stdout
    )
    peak = environment.peak_rss_bytes()
    assert peak is not None and len(big) < peak
    assert 1_000_000 < child < 100_000_000, "ru_maxrss would report the parent's peak"
