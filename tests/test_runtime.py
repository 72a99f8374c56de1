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
from pathlib import Path

import numpy as np
import pytest
import toys

import edgevit_runtime
from edgevit.pack import pack, pack_recipe
from edgevit_runtime import environment, timing
from edgevit_runtime.record import ITEM_BYTES, Job, Reply, TensorSpec, from_json, to_json

RUNTIME = Path(edgevit_runtime.__file__).parent


# --- the packed worker


def run_worker(folder: Path, recipe: Path, job: Job, *options: str) -> tuple[subprocess.CompletedProcess, Reply | None]:
    pack_recipe(recipe, folder / "worker.pyz")
    (folder / "job.json").write_text(to_json(job))
    command = [sys.executable, "-I", *options, "worker.pyz", "job.json", "reply.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
    path = folder / "reply.json"
    return done, from_json(Reply, path.read_bytes()) if path.exists() else None


def test_pack_is_deterministic_and_holds_one_recipe(tmp_path, monkeypatch):
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


def test_worker_runs_without_site_packages(tmp_path):
    artifact = toys.fake_artifact(tmp_path / "artifact")
    done, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact), "-S")
    assert (done.returncode, done.stderr) == (0, "")
    assert (reply.status, reply.error, reply.engine, reply.engine_version) == ("ok", "", "fake-engine", "1.0")
    assert len(reply.timing.samples_ns) == 5
    assert min(reply.timing.samples_ns) > 500_000  # the fake sleeps for half a millisecond
    assert reply.timing.load_ns > 0 and reply.timing.first_ns > 500_000
    assert reply.timing.before.unix_ns < reply.timing.after.unix_ns
    assert reply.host.cores >= 1
    assert not list(tmp_path.glob("reply.json.*")), "a temporary file was left"


def test_recipe_does_not_hide_the_distribution_of_its_name(tmp_path):
    recipe = tmp_path / "onnx.py"
    recipe.write_text(
        toys.FAKE_RECIPE.replace("text = path", "import onnx; assert onnx.helper; text = path").replace(
            '"fake"', '"onnx"'
        )
    )
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "artifact"), target="onnx")
    done, reply = run_worker(tmp_path, recipe, toys.job_for(artifact))
    assert (done.stderr, reply.status) == ("", "ok")


def test_infer_returns_outputs_in_order(tmp_path):
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
def test_engine_never_sees_a_wrong_artifact(tmp_path, change, message):
    artifact = toys.fake_artifact(tmp_path / "artifact", f"work load {tmp_path}/loaded")
    (tmp_path / "secret.txt").write_text(f"work load {tmp_path}/loaded")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact, **change))
    assert reply.status == "failed"
    assert message in reply.error
    assert not (tmp_path / "loaded").exists()


def test_link_inside_an_artifact_is_refused(tmp_path):
    artifact = toys.fake_artifact(tmp_path / "artifact")
    (artifact.folder / "more").symlink_to("/etc/hostname")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert reply.status == "failed"
    assert "link" in reply.error


def test_feeds_of_another_size_are_refused(tmp_path):
    artifact = toys.fake_artifact(tmp_path / "artifact")
    (tmp_path / "feeds.bin").write_bytes(bytes(35))
    job = toys.job_for(artifact, task="infer", batch=2, feeds="feeds.bin", count=1)
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), job)
    assert (reply.status, reply.error) == ("failed", "feeds.bin has 35 bytes, 1 x 36 expected")


def test_fixed_batch_is_not_reported_as_another(tmp_path):
    recipe = toys.fake_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("(-1, ", "(1, "))
    artifact = toys.fake_artifact(tmp_path / "artifact")
    _, reply = run_worker(tmp_path, recipe, toys.job_for(artifact, batch=4))
    assert reply.status == "failed"
    assert "fixed batch" in reply.error


def test_missing_engine_is_unsupported(tmp_path):
    artifact = toys.fake_artifact(tmp_path / "artifact", "import load")
    _, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert reply.status == "unsupported"
    assert "an_engine_that_is_not_installed" in reply.error
    assert reply.host is not None


def test_crash_leaves_a_reply_that_knows_where_it_happened(tmp_path):
    artifact = toys.fake_artifact(tmp_path / "artifact", "segv load")
    done, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert done.returncode < 0
    assert (reply.status, reply.engine) == ("crashed", "fake-engine")
    assert reply.host is not None


@pytest.mark.parametrize("target", ["../evil", "os.path", ""])
def test_target_must_be_a_name(tmp_path, target):
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "artifact"), target=target)
    done, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), toys.job_for(artifact))
    assert (done.returncode, reply) == (1, None)
    assert "is not the name of a target" in done.stderr


def test_worker_volunteers_when_memory_runs_out(tmp_path):
    if not Path("/proc/self/oom_score_adj").exists():
        pytest.skip("not Linux")
    recipe = toys.fake_recipe(tmp_path)
    text = "raise RuntimeError(Path('/proc/self/oom_score_adj').read_text())"
    recipe.write_text(recipe.read_text().replace("text = path.read_text()", text))
    done, _ = run_worker(tmp_path, recipe, toys.job_for(toys.fake_artifact(tmp_path / "artifact")))
    assert "RuntimeError: 1000" in done.stderr


# --- noise


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
def test_noise_has_the_size_and_is_seeded(dtype):
    spec = TensorSpec("x", (-1, 3, 50, 50), dtype)
    (raw,) = timing.noise([spec], 2, seed=7)
    assert len(raw) == 2 * 3 * 50 * 50 * ITEM_BYTES[dtype]
    assert (raw,) == timing.noise([spec], 2, seed=7)
    assert (raw,) != timing.noise([spec], 2, seed=8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_float_noise_is_gaussian(dtype):
    import ml_dtypes

    (raw,) = timing.noise([TensorSpec("x", (10_000,), dtype)], 1, seed=0)
    values = np.frombuffer(raw, dtype=ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype).astype(np.float64)
    assert abs(values.mean()) < 0.05
    assert 0.95 < values.std() < 1.05
    assert (values[:4096] == values[4096:8192]).all()


def test_wide_integer_noise_is_a_valid_index_anywhere():
    (raw,) = timing.noise([TensorSpec("x", (999,), "int64")], 1, seed=0)
    assert set(np.frombuffer(raw, np.int64)) == {0, 1}


# --- warm-up and samples, on a clock that only runs() advance


class Clock:
    def __init__(self, costs):
        self.now, self.costs = 0, iter(costs)

    def perf_counter_ns(self):
        return self.now

    def run(self):
        self.now += next(self.costs)


@pytest.fixture
def clock(monkeypatch):
    def make(costs):
        made = Clock(costs)
        monkeypatch.setattr(timing, "time", made)
        return made

    return make


JOB = Job("time", "t", "f", "p", "", 1)
MS = 1_000_000


def test_warm_up_makes_ten_runs_and_half_a_second(clock):
    assert timing.warm_up(clock(itertools.repeat(100 * MS)).run, JOB) == timing.Warmup((100 * MS,) * 10, True)
    assert len(timing.warm_up(clock(itertools.repeat(10 * MS)).run, JOB).times_ns) == 50


def test_warm_up_goes_on_until_the_times_settle(clock):
    costs = itertools.chain(itertools.repeat(20 * MS, 15), itertools.repeat(10 * MS))
    result = timing.warm_up(clock(costs).run, JOB)
    assert result.warm
    assert len(result.times_ns) > 60, "the second half must outgrow the slow start"
    assert sum(result.times_ns) < 5_000 * MS


def test_warm_up_gives_up_after_five_seconds_and_says_so(clock):
    result = timing.warm_up(clock(int(MS * 1.05**i) for i in itertools.count()).run, JOB)
    assert not result.warm
    assert 5_000 * MS <= sum(result.times_ns) < 5_600 * MS


@pytest.mark.parametrize(
    ("times", "expected"), [([100, 102], True), ([100, 103], False), ([103, 100], False), ([5], False)]
)
def test_settled(times, expected):
    assert timing.settled(times) is expected


def test_sample_meets_both_minima(clock):
    assert len(timing.sample(clock(itertools.repeat(MS)).run, 100, 0)) == 100
    assert len(timing.sample(clock(itertools.repeat(MS)).run, 100, 1_000 * MS)) == 1000
    costs = [5, 3, 9, 4]
    assert timing.sample(clock(costs).run, 4, 0) == (5, 3, 9, 4)


def test_garbage_collector_rests_while_sampling():
    seen = []
    timing.sample(lambda: seen.append(gc.isenabled()), 3, 0)
    assert seen == [False] * 3
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


def test_what_a_system_does_not_tell_is_none(tmp_path):
    found = environment.snapshot(tmp_path)
    told = (found.governor, found.frequency_khz, found.temperature_mc, found.steal_ticks, found.total_ticks)
    assert told == (None,) * 5
    assert found.power_source is None


def test_sensor_that_is_off_is_not_a_temperature(tmp_path):
    root = system(
        tmp_path, {"sys/class/thermal/thermal_zone0/temp": "-273000\n", "sys/class/thermal/cooling/temp": "9"}
    )
    assert environment.snapshot(root).temperature_mc is None


def test_snapshot_reads_a_board(tmp_path, monkeypatch):
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
    found = environment.snapshot(root)
    assert found.affinity == (2, 3)
    assert found.governor == "performance,schedutil"
    assert found.frequency_khz == 1_800_000
    assert found.temperature_mc == 51_000
    assert (found.steal_ticks, found.total_ticks) == (42, 470)
    assert found.power_source == "battery"
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
def test_cpu_model(tmp_path, files, expected):
    assert environment.host(system(tmp_path, files)).cpu_model == expected


def test_peak_memory_is_this_process_own():
    big = bytearray(b"x" * 200_000_000)
    code = "from edgevit_runtime.environment import peak_rss_bytes as p; print(p())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30).stdout)
    assert len(big) < environment.peak_rss_bytes()
    assert 1_000_000 < child < 100_000_000, "ru_maxrss would report the parent's peak"
