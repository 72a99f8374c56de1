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
from edgevit_runtime import environment, timing
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import ITEM_BYTES, Job, Reply, TensorSpec
from support import toys
from support.clocks import Clock
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
    assert process.returncode == 0 and reply is not None and reply.status == "failed"
    assert "is not the name of a target" in reply.error and not process.stderr


def test_a_job_that_makes_no_sense_is_told_and_no_traceback(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact")
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"target": "absent"}, "no recipe for absent"), ({"threads": "many"}, "threads")
    )  # fmt: skip
    for change, words in changes:
        job = dataclasses.replace(toys.job_for(artifact), **change)
        process, reply = run_worker(tmp_path, toys.fake_recipe(tmp_path), job)
        assert process.returncode == 0 and reply is not None and reply.status == "failed"
        assert words in reply.error and "Traceback" not in process.stderr + reply.error


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
