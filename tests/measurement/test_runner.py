"""The profile room: rounds of fresh processes, and a row for whatever comes of them."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest

from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import DeviceError, UnknownNameError, UsageError
from edgevit.measurement import runner as room
from edgevit.measurement.runner import Protocol, profile, profile_all
from edgevit.measurement.summary import runs_needed
from edgevit.records.identity import validate_identity
from edgevit.records.measurement import Measurement
from edgevit_runtime.record import Recipe, Reply, Snapshot, TensorSpec, Timing, from_json, to_json
from support import toys
from support.speed import seconds

SHORT = Protocol(processes=3, min_runs=5, min_ns=0, percentile=None, timeout_s=seconds(30))


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """make(text, name) -> an artifact of the fake engine, which edgevit does not know."""

    class Module:
        RECIPE = Recipe("fake", ".txt", "fake-engine", ("fp32",), (), "")

    recipe = toys.fake_recipe(tmp_path)
    monkeypatch.setattr(room, "pack", lambda target, path: pack_recipe(recipe, path))
    monkeypatch.setattr(room, "load_recipe", lambda target: Module)
    return lambda text, name: toys.fake_artifact(tmp_path / name, text, name)


class Recorder:
    """A transport that runs nothing: a reply for each artifact's name, and a list of who was asked."""

    def __init__(self, replies=None, stolen=0, emulated=""):
        self.asked, self.jobs, self.replies, self.stolen = [], [], replies or {}, stolen
        self.emulated = emulated

    def run(self, device, files, job, *, timeout_s):
        name = files["artifact"].name
        self.asked.append(name)
        self.jobs.append(job)
        queue = self.replies.get(name, [])
        return queue.pop(0) if queue else self.reply(len(self.asked))

    def reply(self, number):
        moment = Snapshot(1, (0,), None, None, None, None, 0, 0, None)
        after = dataclasses.replace(moment, steal_ticks=self.stolen, total_ticks=100)
        samples = tuple(10_000_000 + number for _ in range(133))
        timing = Timing(10 * number, 20 * number, (), samples, True, number, moment, after)
        return Reply("ok", timing=timing, emulated=self.emulated)


@pytest.fixture
def recorder(monkeypatch, fakes):
    def use(**options):
        made = Recorder(**options)
        monkeypatch.setattr(room, "load_transport", lambda name: made)
        return made

    return use


def test_never_imports_torch():
    code = "import sys, edgevit.measurement.runner, edgevit.devices.transports.local; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=seconds(60))


@pytest.mark.onnx
def test_row_of_a_real_model(tmp_path):
    artifact = toys.onnx_artifact(tmp_path / "toy")
    row = profile(artifact, toys.LOCAL, threads=2, protocol=Protocol.quick(batch=3))
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


def test_misbehaving_artifacts_cost_their_own_rows(fakes):
    texts = {"segv run": "crashed", "exit load": "crashed", "hang run": "timeout", "raise run": "failed",
             "import load": "unsupported", "work run": "ok"}  # fmt: skip
    artifacts = [fakes(text, text.replace(" ", "-")) for text in texts]
    protocol = dataclasses.replace(SHORT, timeout_s=seconds(3))
    rows = {row.model: row for row in profile_all(artifacts, toys.LOCAL, threads=1, protocol=protocol)}
    assert {name.replace("-", " "): row.status for name, row in rows.items()} == texts
    for row in rows.values():
        validate_identity(row)
        assert row.engine == "fake-engine"
        assert (row.p50_ns is None) == (row.status != "ok") == bool(row.error)
    assert rows["work-run"].processes == 3


def test_rounds_are_interleaved_in_random_order(fakes, recorder):
    artifacts = [fakes("work run", name) for name in "abcdef"]
    orders = []
    for seed in (0, 0, 1):
        asked = recorder().asked
        transport_rows = list(room.profile_all(artifacts, toys.LOCAL, threads=1, protocol=SHORT, seed=seed))
        assert len(transport_rows) == 6
        turns = [asked[i : i + 6] for i in (0, 6, 12)]
        assert [sorted(turn) for turn in turns] == [list("abcdef")] * 3
        assert len({tuple(turn) for turn in turns}) > 1
        orders.append(room.load_transport("local").asked)
    assert orders[0] == orders[1] != orders[2]


def test_failed_artifact_is_not_run_again(fakes, recorder):
    good = Recorder().reply(1)
    transport = recorder(replies={"b": [good, Reply("crashed", "boom")]})
    steps: list[room.Progress] = []
    artifacts = [fakes("work run", name) for name in "ab"]
    rows = list(profile_all(artifacts, toys.LOCAL, threads=1, protocol=SHORT, on_progress=steps.append))
    assert sorted(transport.asked) == ["a"] * 3 + ["b"] * 2
    assert [row.model for row in rows] == ["b", "a"], "the failure is known first"
    assert (rows[0].status, rows[0].error, rows[0].p50_ns, rows[0].grade) == ("crashed", "boom", None, "")
    assert rows[0].engine == "fake-engine", "known even where no reply names it"
    assert (rows[0].processes, rows[0].runs) == (1, 133), "what the first process measured is kept"
    assert rows[0].samples_ns == (good.timing.samples_ns,)
    assert [step.finished for step in steps] == [1, 2, 3, 4, 5]
    assert [step.total for step in steps] == [6, 6, 6, 6, 5]
    assert sorted(step.status for step in steps) == ["crashed"] + ["ok"] * 4


def test_row_summarises_its_processes(fakes, recorder):
    recorder()
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1)
    assert (row.p50_ns, row.p50_low_ns, row.p50_high_ns) == (10_000_003, 10_000_001, 10_000_005)
    assert (row.load_ns, row.first_ns, row.peak_rss_bytes) == (30, 60, 5)
    assert (row.processes, row.runs, row.grade, row.flags) == (5, 665, "A", ())
    assert row.p99_upper_ns == 10_000_005


@pytest.mark.parametrize(("ticks", "flags"), [(1, ()), (2, ("stolen",))])
def test_stolen_time_is_flagged(fakes, recorder, ticks, flags):
    recorder(stolen=ticks)
    assert profile(fakes("work run", "a"), toys.LOCAL, threads=1).flags == flags


def test_emulation_is_flagged(fakes, recorder):
    recorder(emulated="qemu-aarch64")
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1)
    assert row.flags == ("emulated",)
    validate_identity(row)


# Gates


class Hot(Recorder):
    """The first blocks are measured at half the clock."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def reply(self, number):
        reply = super().reply(number)
        clock = 900_000 if number <= self.bad else 1_800_000
        after = dataclasses.replace(reply.timing.after, frequency_khz=clock, nominal_khz=1_800_000)
        return dataclasses.replace(reply, timing=dataclasses.replace(reply.timing, after=after))


@pytest.fixture
def pauses(monkeypatch):
    found = []
    monkeypatch.setattr(room.time, "sleep", found.append)
    return found


def test_a_block_that_does_not_count_is_made_again(fakes, monkeypatch, pauses):
    hot = Hot(3)
    monkeypatch.setattr(room, "load_transport", lambda name: hot)
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=dataclasses.replace(SHORT, cool_down_s=7))
    assert (row.status, row.discarded, row.processes, len(hot.asked)) == ("ok", 3, 3, 6)
    assert pauses == [7, 7, 7]
    assert row.p50_low_ns == 10_000_004, "samples of a discarded block are not in the row"
    validate_identity(row)


def test_a_device_that_stays_hot_is_throttled(fakes, monkeypatch, pauses):
    monkeypatch.setattr(room, "load_transport", lambda name: Hot(99))
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=SHORT)
    assert (row.status, row.discarded, row.processes, row.p50_ns) == ("throttled", 4, 0, None)
    assert "4 blocks in a row do not count: the clock was at 50% of its nominal 1.80 GHz" in row.error
    assert len(pauses) == 3, "no pause after the last one"


# Rates, and the parts of a load


def test_a_rate_is_asked_for_and_kept(fakes, recorder):
    transport = recorder()
    protocol = dataclasses.replace(SHORT, rate_hz=30.0, max_memory_bytes=10**9)
    row = profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=protocol)
    assert {(job.rate_hz, job.max_memory_bytes) for job in transport.jobs} == {(30.0, 10**9)}
    assert row.rate_hz == 30.0
    assert row.measurement_key != profile(fakes("work run", "b"), toys.LOCAL, threads=1, protocol=SHORT).measurement_key


def test_frames_and_energy_are_summed_up():
    moment = Snapshot(1, (0,), None, None, None, None, None, None, None)
    base = Timing(100, 9, (), (5_000_000,) * 10, True, None, moment, moment)
    cold = dataclasses.replace(base, load_ns=900, cold=True, missed=2, energy_j=4.0, import_ns=70)
    warm = dataclasses.replace(base, missed=3, energy_j=2.0, import_ns=60, compile_ns=20)
    found = room._summary([cold, warm, dataclasses.replace(warm, load_ns=120, import_ns=40)], 30.0)
    assert (found["load_ns"], found["cold_load_ns"], found["import_ns"], found["compile_ns"]) == (110, 900, 50, 20)
    assert (found["missed"], found["energy_j"]) == (8, 8.0 / 30)
    unmetered = room._summary([cold, dataclasses.replace(warm, energy_j=None)], 30.0)
    assert unmetered["energy_j"] is None, "half of the processes do not speak for all"
    alone = room._summary([cold], None)
    assert (alone["load_ns"], alone["cold_load_ns"], alone["missed"]) == (900, 900, None)


def test_one_process_of_several_starts_cold(fakes, recorder):
    transport = recorder()
    list(profile_all([fakes("work run", name) for name in "ab"], toys.LOCAL, threads=1, protocol=SHORT))
    assert [job.cold for job in transport.jobs] == [True, True, False, False, False, False]
    transport = recorder()
    profile(fakes("work run", "c"), toys.LOCAL, threads=1, protocol=dataclasses.replace(SHORT, processes=1))
    assert [job.cold for job in transport.jobs] == [False], "a cold one is not the usual one"


@pytest.mark.parametrize("percentile", [90, 99])
@pytest.mark.parametrize("processes", [1, 5, 7])
def test_runs_suffice_for_the_percentile(fakes, recorder, percentile, processes):
    protocol = Protocol(processes=processes, min_runs=2, percentile=percentile)
    transport = recorder()
    profile(fakes("work run", "a"), toys.LOCAL, threads=1, protocol=protocol)
    needed = runs_needed(percentile / 100)
    assert needed <= sum(job.min_runs for job in transport.jobs) < needed + processes


def test_two_acts_of_measuring_share_a_key_and_no_id(fakes, recorder):
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
def test_senseless_settings_are_refused_at_once(tmp_path, change):
    artifact = toys.fake_artifact(tmp_path / "a")
    with pytest.raises(UsageError):
        profile_all([artifact], toys.LOCAL, threads=1, protocol=dataclasses.replace(SHORT, **change))


def test_unknown_names_are_refused_at_once(tmp_path):
    artifact = toys.fake_artifact(tmp_path / "a")
    with pytest.raises(UnknownNameError, match="target"):
        profile_all([artifact], toys.LOCAL, threads=1)
    with pytest.raises(UnknownNameError, match="transport"):
        profile_all([artifact], dataclasses.replace(toys.LOCAL, transport="pigeon"), threads=1)


def test_lost_device_ends_the_sweep_and_keeps_earlier_rows(fakes, monkeypatch):
    class Lost(Recorder):
        def run(self, device, files, job, *, timeout_s):
            if len(self.asked) == 3:
                raise DeviceError("gone")
            return super().run(device, files, job, timeout_s=timeout_s)

    monkeypatch.setattr(room, "load_transport", lambda name: Lost({"a": [Reply("failed", "no")]}))
    rows = profile_all([fakes("work run", name) for name in "abc"], toys.LOCAL, threads=1, protocol=SHORT)
    assert next(rows).status == "failed"
    with pytest.raises(DeviceError, match="gone"):
        list(rows)
