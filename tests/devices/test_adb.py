"""The adb transport against tests/support/adbd.py, which says what of a phone is real there and what is not.

No phone was at hand. The vendors' programs are scripts that print in their form, where no real one could be had.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevit.artifacts.folder import seal
from edgevit.devices import adb_client
from edgevit.devices.adb_client import Phone
from edgevit.devices.transports import load_transport
from edgevit.devices.transports.adb import _script
from edgevit.errors import DeviceError, UsageError
from edgevit.measurement.runner import Protocol, profile, profile_all
from edgevit.measurement.summary import FEW_PROCESSES
from edgevit.records.artifact import Artifact
from edgevit.records.measurement import MEAN_ONLY, NOT_AS_VERIFIED, SUMMARY_ONLY, Device
from edgevit.store import LatencyDB
from edgevit.sweeps.plan import RowQuery, still_to_measure
from edgevit_runtime.record import Job, Reply, TensorSpec
from support import toys
from support.adbd import ADB, BATTERY, MKSH, PROGRAMS, THERMAL, TMP, TOYBOX, Adbd, Server
from support.command_line import edgevit
from support.command_line import refused as refused_by_cli
from support.measured import FLAGS_OF_LOAD
from support.processes import is_running
from support.shell_names import EVIL, TRAP
from support.speed import seconds, wait_until
from support.system import require_programs
from support.vendor_programs import BENCHMARK_MODEL

QUICK = Protocol(processes=2, min_runs=50, min_ns=0, percentile=None, timeout_s=seconds(60), cool_down_s=0)
BENCHNCNN = """\
echo "loop_count = $1" >&2
echo "num_threads = $2" >&2
echo "  $6  min =    7.80  max =    9.60  avg =    8.05" >&2
"""
EXECUTOR_RUNNER = """\
for word; do case $word in --num_executions=*) runs=${word#*=};; esac; done
echo "I 00:00:00.001 executorch:executor_runner.cpp:536] Model loaded in 1.500000 ms." >&2
i=1; while [ $i -le $runs ]; do
echo "I 00:00:00.002 executorch:executor_runner.cpp:700] Iteration $i of $runs: 2.00000$((i % 2)) ms" >&2
i=$((i + 1)); done
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("adb")) as running:
        yield running


@pytest.fixture(autouse=True)
def own_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: Path(server.variables["HOME"]) / name)


@pytest.fixture
def adbd(tmp_path: Path, server: Server) -> Iterator[Adbd]:
    with Adbd(tmp_path / "phone") as running:
        assert "connected to" in server.adb("connect", running.serial)
        yield running
    server.adb("disconnect", running.serial)


def program(folder: Path, name: str, text: str) -> Path:
    """Write a script that stands in for a vendor's program."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{MKSH}\n{text}")
    return folder / name


@pytest.fixture
def phone(adbd: Adbd, tmp_path: Path) -> Device:
    return adbd.device(benchmark_model=str(program(tmp_path / "programs", "benchmark_model", BENCHMARK_MODEL)))


def artifact_of(folder: Path, text: str = "work", target: str = "litert", name: str = "net") -> Artifact:
    """Return a sealed artifact of one image, whose payload selects the program's behaviour."""
    artifact = toys.fake_artifact(folder, text, name)
    image = (TensorSpec("image", (1, 3, 8, 6)),)
    if target == "ncnn":
        (folder / "payload.txt").unlink()
        (folder / "payload.txt").mkdir()
        (folder / "payload.txt/model.ncnn.param").write_text(text)
    return seal(dataclasses.replace(artifact, target=target, inputs=image, outputs=image, dynamic_batch=False))


@pytest.fixture
def run(phone: Device, tmp_path: Path) -> Callable[..., Reply]:
    """run(text, ...) of an artifact on the phone, whose text says what the program does."""

    def of(
        text: str = "work",
        *,
        device: Device = phone,
        target: str = "litert",
        timeout_s: float = seconds(60),
        **more: Any,
    ) -> Reply:
        shutil.rmtree(tmp_path / "artifact", ignore_errors=True)
        artifact = artifact_of(tmp_path / "artifact", text, target)
        job = dataclasses.replace(toys.job_for(artifact), **{"target": target, "batch": 1, **more})
        return load_transport("adb").run(device, {job.folder: artifact.folder}, job, timeout_s=timeout_s)

    return of


def test_there_is_an_adb_and_androids_shell() -> None:
    require_programs(*PROGRAMS)
    assert ADB and MKSH and TOYBOX


# What it runs


def test_a_row_of_summaries(phone: Device, tmp_path: Path) -> None:
    protocol = dataclasses.replace(QUICK, processes=5, min_runs=120)
    row = profile(artifact_of(tmp_path / "net"), phone, threads=2, protocol=protocol)
    assert (row.status, row.error, row.engine, row.provider) == ("ok", "", "benchmark_model", "XNNPACK")
    assert row.engine_version.startswith("sha256:") and len(row.engine_version) == 7 + 16
    assert (row.p50_ns, row.p50_low_ns, row.p50_high_ns) == (8_000_000,) * 3
    assert (row.mean_ns, row.min_ns, row.load_ns, row.first_ns) == (8_050_250, 7_800_000, 4_321_000, 12_345_000)
    assert (row.processes, row.runs, row.samples_ns, len(row.told)) == (5, 600, (), 5)
    assert (row.p90_ns, row.p99_ns, row.p99_upper_ns, row.iqr_ns, row.mad_ns) == (None,) * 5
    assert row.p90_upper_ns == 8_400_000, "the largest 95th percentile: at most 30 of 600 runs lie above"
    # The stand-in for a phone is this machine, where other tests may run.
    assert set(row.flags) - FLAGS_OF_LOAD == {SUMMARY_ONLY} and row.grade == "B"
    assert row.host is not None
    assert (row.host.system, row.host.cpu_model, row.host.python) == ("Android", "Nobody Chip 9", "")
    assert row.snapshots[0].power_source == "mains" and row.snapshots[1].throttled is False
    with LatencyDB.open(str(tmp_path / "x.db")) as database:
        database.add(row)
        assert database.get(row.measurement_id) == row


def test_what_the_program_is_told(run: Callable[..., Reply]) -> None:
    error = run("environment", threads=3, min_runs=170, min_ns=1_500_000_000).error
    assert "OMP_NUM_THREADS=3" in error and "--num_threads=3" in error and "--use_xnnpack=true" in error
    assert "--num_runs=170" in error and "--min_secs=2" in error and "--warmup_runs=2" in error


def test_a_quick_look_bounds_a_p90_too(phone: Device, tmp_path: Path) -> None:
    row = profile(artifact_of(tmp_path / "net"), phone, threads=1, protocol=Protocol.quick())
    assert (row.runs, row.p90_upper_ns, FEW_PROCESSES in row.flags) == (200, 8_400_000, True)


def test_a_program_that_tells_a_mean_only(adbd: Adbd, tmp_path: Path) -> None:
    device = adbd.device(benchncnn=str(program(tmp_path / "programs", "benchncnn", BENCHNCNN)))
    protocol = dataclasses.replace(QUICK, min_ns=1_000_000_000)
    row = profile(artifact_of(tmp_path / "net", target="ncnn"), device, threads=1, protocol=protocol)
    assert (row.status, row.error, row.p50_ns, row.p50_low_ns, row.p90_upper_ns) == ("ok", "", None, None, None)
    assert (row.mean_ns, row.min_ns, row.load_ns) == (8_050_000, 7_800_000, None)
    assert row.runs == 2 * 125, "a second of runs, as the few before told"
    assert (
        set(row.flags) - FLAGS_OF_LOAD == {SUMMARY_ONLY, MEAN_ONLY, NOT_AS_VERIFIED, FEW_PROCESSES} and row.grade == "C"
    )
    with LatencyDB.open(str(tmp_path / "x.db")) as database:
        database.add(row)
        assert database.get(row.measurement_id) == row


def test_a_program_that_tells_every_run(adbd: Adbd, tmp_path: Path) -> None:
    device = adbd.device(executor_runner=str(program(tmp_path / "programs", "executor_runner", EXECUTOR_RUNNER)))
    row = profile(artifact_of(tmp_path / "net", target="executorch"), device, threads=1, protocol=QUICK)
    assert (row.status, row.error, row.told) == ("ok", "", ())
    assert [len(samples) for samples in row.samples_ns] == [100, 100] and set(row.samples_ns[0]) == {
        2_000_000,
        2_000_001,
    }
    assert (row.p50_ns, row.load_ns, row.first_ns) == (2_000_000, 1_500_000, 2_000_001)
    assert SUMMARY_ONLY not in row.flags and "not_warm" not in row.flags


def test_second_push_is_skipped(adbd: Adbd, run: Callable[..., Reply], phone: Device) -> None:
    adbd.pushed.clear()
    volumes = []
    for text in ("work", "work", "work "):
        before = len(adbd.pushed)
        assert run(text).status == "ok"
        volumes.append(len(adbd.pushed) - before)
    assert volumes == [2, 0, 1], "program and model; nothing; the other model"
    assert all(path.startswith(f"{TMP}/edgevit/files/.") for path in adbd.pushed)


def test_a_damaged_file_is_mended(adbd: Adbd, run: Callable[..., Reply]) -> None:
    assert run().status == "ok"
    [model] = [path for path in (adbd.tmp / "edgevit/files").iterdir() if path.stat().st_size < 10]
    model.write_text("segv")
    assert run().status == "ok"
    assert model.read_text() == "work"


def test_what_arrives_otherwise_is_not_run(
    adbd: Adbd, run: Callable[..., Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    push = adb_client.Link.push
    monkeypatch.setattr(
        adb_client.Link,
        "push",
        lambda self, local, remote: (push(self, local, remote), Path(adbd.here(remote)).write_text("x")),
    )
    with pytest.raises(DeviceError, match="what arrived is not what was sent"):
        run()
    assert not list((adbd.tmp / "edgevit/files").iterdir())


def test_nothing_but_files_is_left(adbd: Adbd, run: Callable[..., Reply]) -> None:
    for text in ("work", "segv"):
        run(text)
    assert not list((adbd.tmp / "edgevit/runs").iterdir())
    assert all(len(path.name) == 64 for path in (adbd.tmp / "edgevit/files").iterdir())


# What a program does


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("segv", "crashed", "benchmark_model was killed by SIGSEGV"),
        ("fail", "failed", "ended with exit code 3\nERROR: Failed to open model"),
        ("garbage", "failed", "what benchmark_model printed cannot be read"),
    ],
)
def test_misbehaving_program_is_a_reply(run: Callable[..., Reply], text: str, status: str, message: str) -> None:
    reply = run(text)
    assert (reply.status, reply.engine, reply.timing) == (status, "benchmark_model", None)
    assert message in reply.error and reply.host is not None


def test_a_crash_is_one_row(phone: Device, tmp_path: Path) -> None:
    artifacts = [artifact_of(tmp_path / name, text, name=name) for name, text in (("a", "segv"), ("b", "work"))]
    rows = list(profile_all(artifacts, phone, threads=1, protocol=QUICK))
    assert [(row.model, row.status) for row in rows] == [("a", "crashed"), ("b", "ok")]


def test_hanging_program_is_stopped_with_its_children(adbd: Adbd, run: Callable[..., Reply], tmp_path: Path) -> None:
    limit_s = seconds(1)
    reply = run(f"hang {tmp_path}/pids", timeout_s=limit_s)
    assert (reply.status, reply.error) == ("timeout", f"no end after {limit_s:g} s")
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)), 2)
    assert not list((adbd.tmp / "edgevit/runs").iterdir())


def test_a_child_that_outlives_its_program_is_ended(run: Callable[..., Reply], tmp_path: Path) -> None:
    begin = time.monotonic()
    assert run(f"work {tmp_path}/pids").status == "ok"
    assert time.monotonic() - begin < seconds(30), "and nobody has waited for it"
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert wait_until(lambda: not any(map(is_running, pids)), 2)


def test_a_program_that_prints_without_end(run: Callable[..., Reply], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_client, "_MAX_OUTPUT_BYTES", 1 << 20)
    with pytest.raises(DeviceError, match="prints without end"):
        run("flood", timeout_s=seconds(30))


def test_a_program_of_another_processor(adbd: Adbd, run: Callable[..., Reply], tmp_path: Path) -> None:
    (tmp_path / "elf").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))
    reply = run(device=adbd.device(benchmark_model=str(tmp_path / "elf")))
    assert reply.status == "unsupported" and "is it built for its processor?" in reply.error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "infer"}, "gives no results"),
        ({"task": "layers"}, "gives no times of operators"),
        ({"rate_hz": 30.0}, "at a camera's rate nothing can be measured over adb"),
        ({"max_memory_bytes": 10**9}, "memory cannot be limited"),
        ({"target": "onnx"}, "no program is known that runs artifacts of onnx"),
        ({"target": "ncnn"}, "--transport adb --option benchncnn=/path/to/benchncnn"),
    ],
)
def test_what_a_phone_cannot_do_is_said(run: Callable[..., Reply], changes: dict[str, object], message: str) -> None:
    reply = run(**changes)
    assert (reply.status, reply.timing, reply.results) == ("unsupported", None, ()) and message in reply.error


def test_another_batch_is_refused(run: Callable[..., Reply]) -> None:
    assert "at its own batch" in run(batch=2).error


def test_an_artifact_that_was_changed_is_not_run(adbd: Adbd, phone: Device, tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path / "net")
    (artifact.folder / "payload.txt").write_text("works")
    row = profile(artifact, phone, threads=1, protocol=QUICK)
    assert row.status == "failed" and "payload.txt was changed" in row.error
    assert not adbd.pushed


# Who it is


def detect(device: Device) -> Reply:
    return load_transport("adb").run(device, {}, Job("detect", "", "", "", "", 1), timeout_s=seconds(60))


def test_detection(phone: Device) -> None:
    reply: Any = detect(phone)
    assert (reply.status, reply.unit, reply.emulated) == ("ok", "8A1X00001", "")
    assert (reply.detected.os, reply.detected.board) == ("Android 14, API 34", "Nobody Stand-in 1")
    assert reply.detected.accelerators == ("GPU, driver adreno",)
    assert list(reply.detected.engines) == ["benchmark_model"]
    assert reply.host.cores == os.cpu_count() and reply.host.memory_bytes > 10**8
    assert reply.host.machine == os.uname().machine and reply.host.kernel == os.uname().release


def test_an_emulator_is_said_to_be_one(tmp_path: Path, server: Server) -> None:
    properties: dict[str, Any] = {"ro.kernel.qemu": "1"}
    with Adbd(tmp_path / "phone", **properties) as emulator:
        server.adb("connect", emulator.serial)
        assert detect(emulator.device()).emulated == "qemu"
        server.adb("disconnect", emulator.serial)


def test_another_unit_behind_a_name_is_noticed(adbd: Adbd, phone: Device, run: Callable[..., Reply]) -> None:
    from edgevit.devices.enroll import detect as look

    device = dataclasses.replace(look(phone).device, name="pixel")
    assert run(device=device).status == "ok"
    adbd.set_output("getprop", "[ro.serialno]: [another]\n[ro.soc.manufacturer]: [Nobody]\n[ro.soc.model]: [Chip 9]\n")
    with pytest.raises(DeviceError, match="pixel is not the device it was"):
        run(device=device)


def test_a_phone_that_throttles_is_no_measurement(adbd: Adbd, phone: Device, tmp_path: Path) -> None:
    adbd.set_dumpsys(BATTERY, THERMAL.replace("Status: 0\nCached", "Status: 3\nCached"))
    row = profile(artifact_of(tmp_path / "net"), phone, threads=1, protocol=QUICK)
    assert row.status == "throttled" and "throttles the processor" in row.error


# Failures, each with what, where, why and how to mend it


def refused(call: Callable[[Device], object], device: Device) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        call(device)
    assert device.name in caught.value.where
    assert caught.value.fix
    return caught.value


def test_no_adb_here(phone: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt install adb" in refused(detect, phone).fix


def test_no_phone(server: Server) -> None:
    assert refused(detect, Device("phone", "", "", "adb")).what == "adb sees no phone"
    error = refused(detect, Device("phone", "", "", "adb", options={"serial": "127.0.0.1:1"}))
    assert (error.what, error.why, error.fix) == (
        "adb does not see the phone",
        "it sees none",
        "adb connect 127.0.0.1:1",
    )


def test_the_only_phone_needs_no_serial_and_of_two_one_must_be_named(
    adbd: Adbd, tmp_path: Path, server: Server
) -> None:
    anyone = dataclasses.replace(adbd.device(), options={})
    assert detect(anyone).status == "ok"
    with Adbd(tmp_path / "other") as other:
        server.adb("connect", other.serial)
        error = refused(detect, anyone)
        assert error.what == "adb sees several phones" and adbd.serial in error.why and "--serial" in error.fix
        assert detect(adbd.device()).status == "ok"
        server.adb("disconnect", other.serial)


def test_a_phone_that_lets_nobody_in(tmp_path: Path, server: Server) -> None:
    with Adbd(tmp_path / "phone", authorized=False) as locked:
        server.adb("connect", locked.serial)
        assert wait_until(lambda: "unauthorized" in server.adb("devices"))
        error = refused(detect, locked.device())
        assert error.what == "the phone does not let us in" and "allow USB debugging" in error.fix
        server.adb("disconnect", locked.serial)


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("offline", "the phone is offline"),
        ("no permissions (user in plugdev group; are your udev rules wrong?)", "this computer may not use"),
        ("recovery", "the phone has not started Android"),
        ("authorizing", "does not let us in"),
    ],
)
def test_states_that_adb_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, problem: str) -> None:
    """adb is a script here: these states need a phone on a cable."""
    script = program(
        tmp_path, "adb", f"echo $* >>{tmp_path}/calls\necho 'List of devices attached'\nprint 'S1\\t{state}\\n'\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert problem in refused(detect, Device("phone", "", "", "adb")).what
    assert (tmp_path / "calls").read_text() == "devices\n", "and nothing else is tried"


def test_full_disk(adbd: Adbd, phone: Device, run: Callable[..., Reply], tmp_path: Path) -> None:
    if os.geteuid():
        pytest.fail("only root can mount a small disk")
    folder = adbd.tmp / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        small = dataclasses.replace(phone, options={**phone.options, "folder": f"{TMP}/small"})
        assert run(device=small).status == "ok"
        with pytest.raises(DeviceError, match="the phone's disk is full") as caught:
            run("x" * 200_000, device=small)
        assert "rm -rf" in caught.value.fix
        assert all(len(path.name) == 64 for path in (folder / "files").iterdir()), "and it is not left full"
        assert run(device=small).status == "ok"
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_cannot_be_written(adbd: Adbd, phone: Device, run: Callable[..., Reply]) -> None:
    (adbd.tmp / "file").write_text("")
    with pytest.raises(DeviceError, match="the phone cannot run a program") as caught:
        run(device=dataclasses.replace(phone, options={**phone.options, "folder": f"{TMP}/file/x"}))
    assert "Not a directory" in caught.value.why and "`folder`" in caught.value.fix


# A connection that breaks


def break_when(condition: Callable[[], bool], adbd: Adbd) -> threading.Thread:
    def run() -> None:
        assert wait_until(condition, 30)
        adbd.break_connections()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_connection_that_breaks_leaves_no_process(adbd: Adbd, run: Callable[..., Reply], tmp_path: Path) -> None:
    thread = break_when((tmp_path / "pids").exists, adbd)
    with pytest.raises(DeviceError, match="the connection to the phone broke") as caught:
        run(f"hang {tmp_path}/pids")
    thread.join()
    assert "the same command goes on" in caught.value.fix
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)))
    assert wait_until(lambda: not list((adbd.tmp / "edgevit/runs").iterdir()))


def test_a_host_that_is_killed_leaves_no_process(adbd: Adbd, phone: Device, tmp_path: Path) -> None:
    """After kill -9 no process here can end the program on the phone."""
    artifact = artifact_of(tmp_path / "net", f"hang {tmp_path}/pids")
    code = (
        "import sys, json\nfrom pathlib import Path\nfrom edgevit.devices.transports import load_transport\n"
        "from edgevit.records.measurement import Device\nfrom edgevit_runtime.record import Job\n"
        "folder, sha256, options = sys.argv[1:]\n"
        "job = Job('time', 'litert', 'artifact', 'payload.txt', sha256, 1)\n"
        "device = Device('phone', '', '', 'adb', options=json.loads(options))\n"
        "load_transport('adb').run(device, {'artifact': Path(folder)}, job, timeout_s=60)\n"
    )
    import json

    arguments = [str(artifact.folder), artifact.sha256, json.dumps(phone.options)]
    host = subprocess.Popen([sys.executable, "-c", code, *arguments])
    assert wait_until((tmp_path / "pids").exists, 30)
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)))


def test_rows_before_the_break_stay_and_the_rest_is_measured_later(
    adbd: Adbd, server: Server, phone: Device, tmp_path: Path
) -> None:
    texts = {"a": "work", "b": f"hang {tmp_path}/pids"}
    artifacts = [artifact_of(tmp_path / name, text, name=name) for name, text in texts.items()]
    protocol = dataclasses.replace(QUICK, processes=1)
    thread = break_when((tmp_path / "pids").exists, adbd)
    database = str(tmp_path / "x.db")
    with LatencyDB.open(database) as database_rows, pytest.raises(DeviceError, match="broke"):
        for row in profile_all(artifacts, phone, threads=1, protocol=protocol, seed=order_with("a", artifacts)):
            database_rows.add(row)
    thread.join()
    server.adb("connect", adbd.serial)
    assert wait_until(lambda: f"{adbd.serial}\tdevice" in server.adb("devices"), 30)
    inventory = detect(phone).detected
    assert inventory is not None
    with_p99 = dataclasses.replace(protocol, percentile=99)  # which the program that measured `a` never tells
    remaining = still_to_measure(artifacts, RowQuery(phone, 1, database, with_p99, inventory.engines))
    assert [artifact.model for artifact in remaining] == ["b"]


def order_with(first: str, artifacts: list[Artifact]) -> int:
    """Return a seed that puts this artifact first in a round."""
    import random

    return next(seed for seed in range(100) if random.Random(seed).sample(artifacts, len(artifacts))[0].model == first)


# Names that a shell would read


@pytest.mark.parametrize("option", ["serial", "folder", "benchmark_model"])
@pytest.mark.parametrize("text", EVIL)
def test_options_execute_nothing(
    adbd: Adbd,
    phone: Device,
    run: Callable[..., Reply],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    trap = tmp_path / "trap"
    with pytest.raises((DeviceError, UsageError)):
        run(device=dataclasses.replace(phone, options={**phone.options, option: text.format(trap)}))
    assert not trap.exists()


def test_names_of_files_execute_nothing(adbd: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program, an artifact's folder and its payload in folders with such names: they run, and nothing else does."""
    monkeypatch.chdir(tmp_path)
    names = [text.format(TRAP) for text in EVIL if "/" not in text]
    assert len(names) == len(EVIL)
    folder = tmp_path.joinpath(*names)
    folder.parent.mkdir(parents=True)
    device = adbd.device(benchmark_model=str(program(folder, names[0], BENCHMARK_MODEL)))
    artifact = artifact_of(folder / "artifact")
    payload = artifact.folder.joinpath(*reversed(names))
    payload.parent.mkdir(parents=True)
    (artifact.folder / "payload.txt").rename(payload)
    artifact = dataclasses.replace(artifact, payload=str(payload.relative_to(artifact.folder)))
    row = profile(seal(artifact), device, threads=1, protocol=QUICK)
    assert (row.status, row.error) == ("ok", "")
    assert not list(tmp_path.rglob(TRAP)) and not (Path.home() / TRAP).exists()


def test_words_that_reach_the_shell_are_quoted(tmp_path: Path) -> None:
    """What a harness might ever say to its program, in Android's own shell."""
    words = [text.format("trap") for text in EVIL]
    (tmp_path / "show").write_text(f'#!{MKSH}\nfor word; do printf "%s\\0" "$word"; done\n')
    (tmp_path / "show").chmod(0o755)
    script = _script([str(tmp_path / "show"), *words], str(tmp_path / "run"), "over", {"OMP_NUM_THREADS": "1"}, 10)
    shell = subprocess.Popen([str(MKSH), "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)
    assert shell.stdout is not None and shell.stdin is not None
    assert shell.stdout.read().split(b"\0")[:-1] == [word.encode() for word in words]
    for pipe in (shell.stdin, shell.stdout):
        pipe.close()
    assert shell.wait(10) == 0 and not (tmp_path / "trap").exists()


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bad = {"serial": ("-s", "a b", "a;b"), "folder": ("tmp", "/", "/a/../b", "/a b", "/a/"), "host": ("h",)}
    bad |= {"benchmark_model": ("relative", "/no/such/file", str(tmp_path)), "benchmark_app": (str(tmp_path / "file"),)}
    for name, values in bad.items():
        for value in values:
            with pytest.raises(UsageError):
                Phone.of(Device("d", "", "", "adb", options={name: value}), {"benchmark_model"})
    for serial in (
        "8A1X",
        "192.168.1.7:5555",
        "emulator-5554",
        "adb-8A1X-x._adb-tls-connect._tcp",
        "[fe80::1%eth0]:5555",
    ):
        options = {"serial": serial, "folder": "/data/local/tmp/x.y", "benchmark_model": str(tmp_path / "file")}
        phone = Phone.of(Device("d", "", "", "adb", options=options), {"benchmark_model"})
        assert (phone.serial, phone.programs) == (serial, {"benchmark_model": tmp_path / "file"})


def test_the_phone_is_asked_within_its_time(adbd: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    (adbd.bin / "getprop").write_text(f"#!{MKSH}\nsleep 60\n")
    monkeypatch.setattr(adb_client, "ANSWER_S", 0.3)
    link = adb_client.Link(Phone("phone", adbd.serial))
    begin = time.monotonic()
    with pytest.raises(DeviceError, match="the phone does not answer"):
        link.shell("getprop", 0.3)
    assert time.monotonic() - begin < seconds(10)


# The command line


def test_from_a_phone_to_a_name(adbd: Adbd, phone: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    program = phone.options["benchmark_model"]
    add = ("devices", "add", "pixel", "--transport", "adb", "--serial", adbd.serial)
    assert "adb has no option 'host'" in refused_by_cli(2, *add, "--host", "pi")
    assert "'benchmark_model' is no option" in refused_by_cli(2, *add, "--option", "benchmark_model")
    assert "which is no file" in refused_by_cli(2, *add, "--option", "benchmark_model=no/such/file")
    assert "adb does not see the phone" in refused_by_cli(1, *add[:-1], "nobody")
    assert "ssh has no option serial" in refused_by_cli(2, "devices", "add", "x", "--host", "h", "--serial", "1")
    shown = edgevit(*add, "--option", f"benchmark_model={program}")
    assert shown.returncode == 0, shown.stderr
    assert "Nobody Stand-in 1" in shown.stdout and "benchmark_model sha256:" in shown.stdout
    assert "--targets litert --device pixel" in shown.stdout
    text = (tmp_path / "config/edgevit/devices/pixel.toml").read_text()
    assert 'transport = "adb"' in text and "8A1X00001" not in text, "the unit's own number is not kept"
    assert "no program is known that runs artifacts of workloads" in refused_by_cli(
        1, "devices", "noise", "-d", "pixel"
    )
    assert edgevit("devices", "remove", "pixel").returncode == 0
