"""Measurement runner: rounds of fresh processes, and a row for each outcome."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import DeviceError, UnknownNameError, UsageError
from edgevit.measurement import runner as room
from edgevit.measurement.runner import Protocol, profile, profile_all
from edgevit.measurement.summary import runs_needed
from edgevit.records.artifact import Artifact
from edgevit.records.identity import validate_identity
from edgevit.records.measurement import Device, Measurement
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import Host, Job, Recipe, Reply, Snapshot, TensorSpec, Timing
from support import toys
from support.speed import seconds
from support.warmup import shorten_warmups

SHORT = Protocol(processes=3, min_runs=5, min_ns=0, percentile=None, timeout_s=seconds(30))


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Artifact]:
    """make(text, name) -> an artifact of the fake engine, which edgevit does not know."""

    class Module:
        RECIPE = Recipe("fake", ".txt", "fake-engine", ("fp32",), (), "")

    recipe = toys.fake_recipe(tmp_path)
    monkeypatch.setattr(room, "pack", lambda target, path: pack_recipe(recipe, path))
    monkeypatch.setattr(room, "load_recipe", lambda target: Module)
    return lambda text, name: toys.fake_artifact(tmp_path / name, text, name)


class Recorder:
    """A transport that runs nothing: a reply for each artifact's name, and a list of who was asked."""

    def __init__(
        self,
        replies: dict[str, list[Reply]] | None = None,
        stolen: int = 0,
        emulated: str = "",
        host: Host | None = None,
    ) -> None:
        self.names: list[str] = []
        self.jobs: list[Job] = []
        self.replies, self.stolen = replies or {}, stolen
        self.emulated, self.host = emulated, host

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        name = files["artifact"].name
        self.names.append(name)
        self.jobs.append(job)
        queue = self.replies.get(name, [])
        return queue.pop(0) if queue else self.reply(len(self.names))

    def reply(self, number: int) -> Reply:
        moment = Snapshot(1, (0,), None, None, None, None, 0, 0, None)
        after = dataclasses.replace(moment, steal_ticks=self.stolen, total_ticks=100)
        samples = tuple(10_000_000 + number for _ in range(133))
        timing = Timing(10 * number, 20 * number, (), samples, True, number, moment, after)
        return Reply("ok", timing=timing, emulated=self.emulated, host=self.host)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, fakes: Callable[[str, str], Artifact]) -> Callable[..., Recorder]:
    def use(**options: Any) -> Recorder:
        transport = Recorder(**options)
        monkeypatch.setattr(room, "load_transport", lambda name: transport)
        return transport

    return use


def test_never_imports_torch() -> None:
    code = "import sys, edgevit.measurement.runner, edgevit.devices.transports.local; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=seconds(60))


@pytest.mark.onnx
def test_row_of_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_warmups(monkeypatch)
    artifact = toys.onnx_artifact(tmp_path / "toy")
    row: Any = profile(artifact, toys.LOCAL, threads=2, protocol=Protocol.quick(batch=3))
    assert (row.status, row.error, row.provenance) == ("ok", "", "measured")
    assert (row.engine, row.provider, row.threads, row.batch) == ("onnxruntime", "CPUExecutionProvider", 2, 3)
    assert row.engine_version
    assert row.inputs == (TensorSpec("x", (3, 4)),)
    assert [len(samples) for samples in row.samples_ns] == [32, 32]
    assert (row.processes, row.runs, len(row.snapshots)) == (2, 64, 4)
    assert row.min_ns <= row.p50_low_ns <= row.p50_ns <= row.p50_high_ns <= row.p90_ns <= row.p99_ns
    assert row.p90_upper_ns >= row.p90_ns, "64 runs bound a p90"
    assert row.p99_upper_ns is None, "and no p99"
    assert row.load_ns > row.first_ns > 0
    assert row.peak_rss_bytes > 10_000_000
    assert {"few_processes", "too_short"} <= set(row.flags)
    assert row.grade in ("C", "D")
    assert row.parity_status == "unverified"
    assert row.started.endswith("+00:00")
    validate_identity(row)
    assert from_json(Measurement, to_json(row)) == row


def test_misbehaving_artifacts_cost_their_own_rows(
    fakes: Callable[[str, str], Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_warmups(monkeypatch)
    texts = {"segv run": "crashed", "exit load": "crashed", "hang run": "timeout", "raise run": "failed",
             "import load": "unsupported", "work run": "ok"}  # fmt: skip
    artifacts = [fakes(text, text.replace(" ", "-")) for text in texts]
    protocol = dataclasses.replace(SHORT, timeout_s=seconds(2))
    rows = {row.model: row for row in profile_all(artifacts, toys.LOCAL, threads=1, protocol=protocol)}
    assert {name.replace("-", " "): row.status for name, row in rows.items()} == texts
    for row in rows.values():
        validate_identity(row)
        assert row.engine == "fake-engine"
        assert (row.p50_ns is None) == (row.status != "ok") == bool(row.error)
    assert rows["work-run"].processes == 3


def test_rounds_are_interleaved_in_random_order(
    fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]
) -> None:
    artifacts = [fakes("work run", name) for name in "abcdef"]
    orders = []
    for seed in (0, 0, 1):
        transport = recorder()
        transport_rows = list(room.profile_all(artifacts, toys.LOCAL, threads=1, protocol=SHORT, seed=seed))
        assert len(transport_rows) == 6
        turns = [transport.names[i : i + 6] for i in (0, 6, 12)]
        assert [sorted(turn) for turn in turns] == [list("abcdef")] * 3
        assert len({tuple(turn) for turn in turns}) > 1
        orders.append(transport.names)
    assert orders[0] == orders[1] != orders[2]


def test_failed_artifact_is_not_run_again(
    fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]
) -> None:
    good = Recorder().reply(1)
    transport = recorder(replies={"b": [good, Reply("crashed", "boom")]})
    steps: list[room.Progress] = []
    artifacts = [fakes("work run", name) for name in "ab"]
    rows = list(profile_all(artifacts, toys.LOCAL, threads=1, protocol=SHORT, on_progress=steps.append))
    assert sorted(transport.names) == ["a"] * 3 + ["b"] * 2
    assert [row.model for row in rows] == ["b", "a"], "the failure is known first"
    assert (rows[0].status, rows[0].error, rows[0].p50_ns, rows[0].grade) == ("crashed", "boom", None, "")
    assert rows[0].engine == "fake-engine", "known even where no reply names it"
    assert (rows[0].processes, rows[0].runs) == (1, 133), "what the first process measured is kept"
    assert good.timing is not None and rows[0].samples_ns == (good.timing.samples_ns,)
    assert [step.finished for step in steps] == [1, 2, 3, 4, 5]
    assert [step.total for step in steps] == [6, 6, 6, 6, 5]
    assert sorted(step.status for step in steps) == ["crashed"] + ["ok"] * 4


def test_row_summarises_its_processes(fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]) -> None:
    recorder()
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1)
    assert (row.p50_ns, row.p50_low_ns, row.p50_high_ns) == (10_000_003, 10_000_001, 10_000_005)
    assert (row.load_ns, row.first_ns, row.peak_rss_bytes) == (30, 60, 5)
    assert (row.processes, row.runs, row.grade, row.flags) == (5, 665, "A", ())
    assert row.p99_upper_ns == 10_000_005


@pytest.mark.parametrize(("ticks", "flags"), [(1, ()), (2, ("stolen",))])
def test_stolen_time_is_flagged(
    fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder], ticks: int, flags: tuple[str, ...]
) -> None:
    recorder(stolen=ticks)
    assert profile(fakes("work run", "a"), toys.LOCAL, threads=1).flags == flags


def test_threads_without_cores_are_flagged(
    fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]
) -> None:
    """The process may run on one core, of a machine with four."""
    recorder(host=Host("x86_64", "Linux", "6.1", "3.11.7", "AMD EPYC", 4, None))
    artifact = fakes("work run", "a")
    flags = [profile(artifact, toys.LOCAL, threads=threads).flags for threads in (1, 2)]
    assert flags == [(), ("oversubscribed",)]


def test_emulation_is_flagged(fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]) -> None:
    recorder(emulated="qemu-aarch64")
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1)
    assert row.flags == ("emulated",)
    validate_identity(row)


# Gates


class Hot(Recorder):
    """The first blocks are measured at half the clock."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.bad = bad

    def reply(self, number: int) -> Reply:
        reply: Any = super().reply(number)
        clock = 900_000 if number <= self.bad else 1_800_000
        after = dataclasses.replace(reply.timing.after, frequency_khz=clock, nominal_khz=1_800_000)
        slowed: Reply = dataclasses.replace(reply, timing=dataclasses.replace(reply.timing, after=after))
        return slowed


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    durations: list[float] = []
    monkeypatch.setattr("time.sleep", durations.append)
    return durations


def test_a_block_that_does_not_count_is_made_again(
    fakes: Callable[[str, str], Artifact], monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    hot = Hot(3)
    monkeypatch.setattr(room, "load_transport", lambda name: hot)
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=dataclasses.replace(SHORT, cool_down_s=7))
    assert (row.status, row.discarded, row.processes, len(hot.names)) == ("ok", 3, 3, 6)
    assert pauses == [7, 7, 7]
    assert row.p50_low_ns == 10_000_004, "samples of a discarded block are not in the row"
    validate_identity(row)


def test_a_device_that_stays_hot_is_throttled(
    fakes: Callable[[str, str], Artifact], monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(room, "load_transport", lambda name: Hot(99))
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=SHORT)
    assert (row.status, row.discarded, row.processes, row.p50_ns) == ("throttled", 4, 0, None)
    assert "4 blocks in a row do not count: the clock was at 50% of its nominal 1.80 GHz" in row.error
    assert len(pauses) == 3, "no pause after the last one"


# Rates, and the parts of a load


def test_a_rate_is_asked_for_and_kept(fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]) -> None:
    transport = recorder()
    protocol = dataclasses.replace(SHORT, rate_hz=30.0, max_memory_bytes=10**9)
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=protocol)
    assert {(job.rate_hz, job.max_memory_bytes) for job in transport.jobs} == {(30.0, 10**9)}
    assert row.rate_hz == 30.0
    assert row.measurement_key != profile(fakes("work run", "b"), toys.LOCAL, threads=1, protocol=SHORT).measurement_key


def test_frames_and_energy_are_summed_up() -> None:
    moment = Snapshot(1, (0,), None, None, None, None, None, None, None)
    base = Timing(100, 9, (), (5_000_000,) * 10, True, None, moment, moment)
    cold = dataclasses.replace(base, load_ns=900, cold=True, missed=2, energy_j=4.0, import_ns=70)
    warm = dataclasses.replace(base, missed=3, energy_j=2.0, import_ns=60, compile_ns=20)
    summary = room._summary([cold, warm, dataclasses.replace(warm, load_ns=120, import_ns=40)], 30.0)
    assert (summary["load_ns"], summary["cold_load_ns"], summary["import_ns"], summary["compile_ns"]) == (
        110,
        900,
        50,
        20,
    )
    assert (summary["missed"], summary["energy_j"]) == (8, 8.0 / 30)
    unmetered = room._summary([cold, dataclasses.replace(warm, energy_j=None)], 30.0)
    assert unmetered["energy_j"] is None, "half of the processes do not speak for all"
    alone = room._summary([cold], None)
    assert (alone["load_ns"], alone["cold_load_ns"], alone["missed"]) == (900, 900, None)


def test_one_process_of_several_starts_cold(
    fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]
) -> None:
    transport = recorder()
    list(profile_all([fakes("work run", name) for name in "ab"], toys.LOCAL, threads=1, protocol=SHORT))
    assert [job.cold for job in transport.jobs] == [True, True, False, False, False, False]
    transport = recorder()
    profile(fakes("work run", "c"), toys.LOCAL, threads=1, protocol=dataclasses.replace(SHORT, processes=1))
    assert [job.cold for job in transport.jobs] == [False], "a cold one is not the usual one"


@pytest.mark.parametrize("percentile", [90, 99])
@pytest.mark.parametrize("processes", [1, 5, 7])
def test_runs_suffice_for_the_percentile(
    fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder], percentile: int, processes: int
) -> None:
    protocol = Protocol(processes=processes, min_runs=2, percentile=percentile)
    transport = recorder()
    profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=protocol)
    needed = runs_needed(percentile / 100)
    assert needed <= sum(job.min_runs for job in transport.jobs) < needed + processes


def test_two_acts_of_measuring_share_a_key_and_no_id(
    fakes: Callable[[str, str], Artifact], recorder: Callable[..., Recorder]
) -> None:
    recorder()
    artifact = fakes("work run", "a")
    first, second = (profile(artifact, toys.LOCAL, threads=1, protocol=SHORT) for _ in range(2))
    assert first.measurement_key == second.measurement_key
    assert first.measurement_id != second.measurement_id
    assert first.nonce != second.nonce


@pytest.mark.parametrize(
    "change",
    [
        *({"processes": 0}, {"min_runs": 0}, {"batch": 0}, {"timeout_s": 0}, {"percentile": 100}, {"percentile": 9}),
        *({"percentile": 50}, {"rate_hz": 0.0}, {"rate_hz": math.nan}, {"max_memory_bytes": 0}),
    ],
)
def test_senseless_settings_are_refused_at_once(tmp_path: Path, change: dict[str, Any]) -> None:
    artifact = toys.fake_artifact(tmp_path / "a")
    with pytest.raises(UsageError):
        profile_all([artifact], toys.LOCAL, threads=1, protocol=dataclasses.replace(SHORT, **change))


def test_unknown_names_are_refused_at_once(tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "a")
    with pytest.raises(UnknownNameError, match="target"):
        profile_all([artifact], toys.LOCAL, threads=1)
    with pytest.raises(UnknownNameError, match="transport"):
        profile_all([artifact], dataclasses.replace(toys.LOCAL, transport="pigeon"), threads=1)


def test_lost_device_ends_the_sweep_and_keeps_earlier_rows(
    fakes: Callable[[str, str], Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(Recorder):
        def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
            if len(self.names) == 3:
                raise DeviceError("gone")
            return super().run(device, files, job, timeout_s=timeout_s)

    monkeypatch.setattr(room, "load_transport", lambda name: Lost({"a": [Reply("failed", "no")]}))
    rows = profile_all([fakes("work run", name) for name in "abc"], toys.LOCAL, threads=1, protocol=SHORT)
    assert next(rows).status == "failed"
    with pytest.raises(DeviceError, match="gone"):
        list(rows)
