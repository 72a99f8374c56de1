"""The ssh transport against a real sshd on loopback: what it runs, what it leaves behind, what each failure says."""

from __future__ import annotations

import ast
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgevit.artifacts.folder import seal
from edgevit.devices import openssh
from edgevit.devices.openssh import SshTarget
from edgevit.devices.transports import WORKER, load_transport, ssh
from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import DeviceError, UsageError
from edgevit.measurement.noise_floor import run_workload
from edgevit.measurement.roofline import layer_times
from edgevit.measurement.runner import Protocol, profile, profile_all
from edgevit.records.measurement import Device
from edgevit_runtime.record import Reply
from support import toys
from support.measured import FLAGS_OF_LOAD
from support.processes import is_running
from support.shell_names import EVIL, TRAP
from support.speed import seconds, wait_until
from support.sshd import PROGRAMS, SSHD, Sshd, free_port
from support.system import require_programs
from support.warmup import shorten_warmups

QUICK = Protocol(processes=2, min_runs=50, min_ns=0, percentile=None, timeout_s=seconds(60))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Reply]:
    """run(device, text, ...) of the fake engine over ssh."""
    worker = pack_recipe(toys.fake_recipe(tmp_path), tmp_path / "fake.pyz")
    ssh = load_transport("ssh")

    def run(device: Device, text: str = "work run", *, timeout_s: float = seconds(60), **protocol: object) -> Reply:
        shutil.rmtree(tmp_path / "artifact", ignore_errors=True)
        artifact = toys.fake_artifact(tmp_path / "artifact", text)
        files = {WORKER: worker, "artifact": artifact.folder}
        return ssh.run(device, files, toys.job_for(artifact, **protocol), timeout_s=timeout_s)

    return run


def test_there_is_an_sshd() -> None:
    require_programs(*PROGRAMS)
    assert SSHD


# What it runs


@pytest.mark.onnx
def test_profile_over_ssh_equals_the_local_one(sshd: Sshd, tmp_path: Path) -> None:
    artifact = toys.onnx_artifact(tmp_path / "toy")
    there: Any = profile(artifact, sshd.device(), threads=1, protocol=QUICK)
    here: Any = profile(artifact, toys.LOCAL, threads=1, protocol=QUICK)
    assert (there.status, there.error) == ("ok", "")
    assert {*there.flags} ^ {*here.flags} <= FLAGS_OF_LOAD
    assert (there.engine_version, there.provider, there.host) == (here.engine_version, here.provider, here.host)
    assert [len(samples) for samples in there.samples_ns] == [50, 50]
    assert 1 / 3 < there.p50_ns / here.p50_ns < 3


@pytest.mark.onnx
def test_what_explains_a_number_runs_there_too(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed workloads, a camera's rate, a cold start, and the operators of an engine that tells."""
    shorten_warmups(monkeypatch)
    device = sshd.device()
    assert min(run_workload(device, "mixed", threads=1, min_runs=3, min_ns=0).samples_ns) > 100_000
    artifact = toys.onnx_artifact(tmp_path / "toy")
    row: Any = profile(artifact, device, threads=1, protocol=dataclasses.replace(QUICK, processes=1, rate_hz=200.0))
    assert (row.status, row.rate_hz, row.missed is not None) == ("ok", 200.0, True), row.error
    assert row.snapshots[1].unix_ns - row.snapshots[0].unix_ns > 50 * 5_000_000, "it waited for its frames"
    assert 0 < row.import_ns < row.load_ns
    [layer] = layer_times(artifact, device, threads=1).layers
    assert layer.operator == "Gemm"


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("segv run", "crashed", "killed by SIGSEGV"),
        ("exit load", "crashed", "exit code 0 and no reply"),
        ("raise run", "failed", "RuntimeError: the engine says no"),
        ("import load", "unsupported", " -m pip install fake-engine"),
    ],
)
def test_misbehaving_engine_is_a_reply(
    sshd: Sshd, fake: Callable[..., Reply], text: str, status: str, message: str
) -> None:
    reply = fake(sshd.device(), text)
    assert (reply.status, reply.engine) == (status, "fake-engine")
    assert message in reply.error


def test_environment_there_is_clean(sshd: Sshd, tmp_path: Path) -> None:
    recipe = toys.fake_recipe(tmp_path)
    source = recipe.read_text().replace("text = path.read_text()", "raise RuntimeError(str(dict(os.environ)))")
    recipe.write_text(source)
    artifact = toys.fake_artifact(tmp_path / "artifact")
    files = {WORKER: pack_recipe(recipe, tmp_path / "fake.pyz"), "artifact": artifact.folder}
    job = toys.job_for(artifact, threads=3)
    error = load_transport("ssh").run(sshd.device(), files, job, timeout_s=seconds(60)).error
    assert "'OMP_NUM_THREADS': '3'" in error
    assert "SSH_CONNECTION" not in error


def test_hanging_engine_is_stopped_with_its_children(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path) -> None:
    limit_s = seconds(1)
    reply = fake(sshd.device(), f"hang run {tmp_path}/pids", timeout_s=limit_s)
    assert (reply.status, reply.error) == ("timeout", f"no reply after {limit_s:g} s")
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)), 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds")
@pytest.mark.parametrize("text", ["bomb run", "child_bomb load"])
def test_engine_that_takes_too_much_memory_is_stopped_there(
    sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path, text: str
) -> None:
    """By the watch beside the worker, which leaves word; then the agent ends what is left, the watch included."""
    cache = tmp_path / "cache"
    reply = fake(sshd.device(cache=str(cache)), f"{text} {tmp_path}/pids", max_memory_bytes=300_000_000)
    assert (reply.status, reply.engine) == ("crashed", "fake-engine")
    assert reply.error.startswith("used more than 0.3 GB of memory")
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)), 2)
    assert not list((cache / "runs").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_an_agent_that_is_killed_leaves_no_process(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path) -> None:
    """As when memory runs out on the device, only the watchdog is left to end the engine's processes."""

    def kill_the_agent() -> None:
        assert wait_until((tmp_path / "pids").exists, 30)
        worker = int((tmp_path / "pids").read_text().split()[0])
        os.kill(int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)

    thread = threading.Thread(target=kill_the_agent)
    thread.start()
    refused(lambda device: fake(device, f"hang run {tmp_path}/pids"), sshd.device())
    thread.join()
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)), 5)


def test_second_push_is_skipped(sshd: Sshd, fake: Callable[..., Reply], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send_raw = openssh.Connection.send_raw

    def count(connection: openssh.Connection, data: bytes) -> None:
        sent.append(len(data))
        send_raw(connection, data)

    monkeypatch.setattr(openssh.Connection, "send_raw", count)
    device = sshd.device(cache=str(sshd.folder / "fresh"))
    volumes = []
    for text in ("work run", "work run", "work  run"):
        sent.clear()
        assert fake(device, text).status == "ok"
        volumes.append(len(sent))
    assert volumes == [4, 2, 3], "agent and request; then worker and artifact, nothing, the other artifact"


def test_a_damaged_cache_is_mended(sshd: Sshd, fake: Callable[..., Reply]) -> None:
    device = sshd.device(cache=str(sshd.folder / "damaged"))
    assert fake(device).status == "ok"
    [payload] = (sshd.folder / "damaged").glob("trees/*/payload.txt")
    payload.write_text("exit load")
    assert fake(device).status == "ok"
    assert payload.read_text() == "work run"


def test_pushes_of_the_same_at_once(sshd: Sshd, tmp_path: Path) -> None:
    artifact = toys.fake_artifact(tmp_path / "artifact")
    files = {WORKER: pack_recipe(toys.fake_recipe(tmp_path), tmp_path / "fake.pyz"), "artifact": artifact.folder}
    device = sshd.device(cache=str(sshd.folder / "at_once"))

    def run(_: int) -> Reply:
        return load_transport("ssh").run(device, files, toys.job_for(artifact), timeout_s=seconds(60))

    with ThreadPoolExecutor(4) as pool:
        assert {reply.status for reply in pool.map(run, range(4))} == {"ok"}
    assert len(list((sshd.folder / "at_once/trees").iterdir())) == 2


def test_nothing_but_the_cache_is_left(sshd: Sshd, fake: Callable[..., Reply]) -> None:
    cache = sshd.folder / "left"
    for text in ("work run", "segv run"):
        fake(sshd.device(cache=str(cache)), text)
    assert sorted(path.name for path in cache.iterdir()) == ["runs", "trees"]
    assert not list((cache / "runs").iterdir())
    assert all(len(path.name) == 64 for path in (cache / "trees").iterdir())


# Failures, each with what, where, why and how to mend it


def refused(fake: Callable[[Device], object], device: Device) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        fake(device)
    assert device.name in caught.value.where
    assert caught.value.fix
    return caught.value


def test_wrong_host_key(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path) -> None:
    (tmp_path / "known").write_text(sshd.entry("other_key"))
    error = refused(fake, sshd.device(known_hosts=str(tmp_path / "known")))
    assert "may be another machine" in error.what
    assert "ssh-keygen -R" in error.fix and f"[127.0.0.1]:{sshd.port}" in error.fix


def test_unknown_host_key(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path) -> None:
    (tmp_path / "known").write_text("")
    assert refused(fake, sshd.device(known_hosts=str(tmp_path / "known"))).what == "the host key is not known"
    assert (tmp_path / "known").read_text() == "", "and stays so: nobody has compared it"


def test_key_that_is_not_let_in(sshd: Sshd, fake: Callable[..., Reply]) -> None:
    error = refused(fake, sshd.device(identity=str(sshd.folder / "other_key")))
    assert "does not let us in" in error.what
    assert "publickey" in error.why and "ssh-copy-id" in error.fix


def test_nothing_listens(sshd: Sshd, fake: Callable[..., Reply]) -> None:
    assert refused(fake, sshd.device(port=str(free_port()))).what == "nothing listens there"


def test_unknown_host(sshd: Sshd, fake: Callable[..., Reply]) -> None:
    assert refused(fake, sshd.device(host="no-such-host.invalid")).what == "no host has this name"


def test_missing_python(sshd: Sshd, fake: Callable[..., Reply]) -> None:
    error = refused(fake, sshd.device(python="/no/such/python3"))
    assert error.what == "the device has no Python called /no/such/python3"
    assert "--python" in error.fix


@pytest.mark.parametrize("version", ["2.7", "3.9"])
def test_old_python(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path, version: str) -> None:
    python = tmp_path / "python"
    major, minor = version.split(".")
    python.write_text(f"#!/bin/sh\necho edgevit-agent {major} {minor}\necho 'SyntaxError: invalid syntax' >&2\n")
    python.chmod(0o755)
    error = refused(fake, sshd.device(python=str(python)))
    assert error.what == "the device's Python is too old"
    assert f"is {version}, 3.10 is the oldest" in error.why


def test_something_else_than_python(sshd: Sshd, fake: Callable[..., Reply]) -> None:
    error = refused(fake, sshd.device(python="/bin/false"))
    assert error.what == "Python did not start on the device"


def test_words_of_a_login_script_are_passed_over(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho Welcome!\necho\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert fake(sshd.device(python=str(python))).status == "ok"


def test_a_device_that_never_answers(
    fake: Callable[..., Reply], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh, "_START_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        device = Device("mute", "", "", "ssh", options={"host": "127.0.0.1", "port": str(mute.getsockname()[1])})
        begin = time.monotonic()
        assert refused(fake, device).what == "the device does not answer"
        assert time.monotonic() - begin < seconds(10)


def test_no_ssh_here(sshd: Sshd, fake: Callable[..., Reply], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert refused(fake, sshd.device()).what == "there is no ssh on this machine"


def test_cache_that_cannot_be_written(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refused(fake, sshd.device(cache=str(tmp_path / "file/cache")))
    assert error.what == "the device cannot run a worker"
    assert "Not a directory" in error.why


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk(sshd: Sshd, fake: Callable[..., Reply], small_disk: Path, tmp_path: Path) -> None:
    device = sshd.device(cache=str(small_disk))
    assert fake(device).status == "ok"
    (tmp_path / "large").mkdir()
    (tmp_path / "large/x").write_bytes(bytes(4_000_000))
    files = {WORKER: tmp_path / "fake.pyz", "artifact": tmp_path / "artifact", "large": tmp_path / "large"}
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "again"), folder=tmp_path / "artifact")
    with pytest.raises(DeviceError, match="the device's disk is full"):
        load_transport("ssh").run(device, files, toys.job_for(artifact), timeout_s=seconds(30))
    assert not [path for path in (small_disk / "trees").iterdir() if path.name.startswith(".")], (
        "and it is not left full"
    )
    assert fake(device).status == "ok"


def test_disk_that_fills_up_while_the_worker_runs(sshd: Sshd, small_disk: Path, tmp_path: Path) -> None:
    recipe = toys.fake_recipe(tmp_path)
    fill = "Path(os.environ['TMPDIR'], 'x').write_bytes(bytes(4_000_000))\n    text = path.read_text()"
    recipe.write_text(recipe.read_text().replace("text = path.read_text()", fill))
    artifact = toys.fake_artifact(tmp_path / "artifact")
    files = {WORKER: pack_recipe(recipe, tmp_path / "fake.pyz"), "artifact": artifact.folder}
    with pytest.raises(DeviceError, match="the device's disk is full"):
        load_transport("ssh").run(
            sshd.device(cache=str(small_disk)), files, toys.job_for(artifact), timeout_s=seconds(30)
        )


# A connection that breaks


def break_when(condition: Callable[[], object], sshd: Sshd) -> threading.Thread:
    def run() -> None:
        assert wait_until(condition, 30)
        sshd.break_connections()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_connection_that_breaks_leaves_no_process(sshd: Sshd, fake: Callable[..., Reply], tmp_path: Path) -> None:
    thread = break_when((tmp_path / "pids").exists, sshd)
    error = refused(lambda device: fake(device, f"hang run {tmp_path}/pids"), sshd.device(cache=str(tmp_path / "c")))
    thread.join()
    assert error.what == "the connection to the device broke"
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)))
    assert wait_until(lambda: not list((tmp_path / "c/runs").iterdir())), "the agent has cleaned up"


def test_rows_before_the_break_stay_and_the_rest_is_measured_later(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgevit.measurement import runner as room
    from edgevit_runtime.record import Recipe

    class Module:
        RECIPE = Recipe("fake", ".txt", "fake-engine", ("fp32",), (), "")

    shorten_warmups(monkeypatch)
    recipe = toys.fake_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("time.sleep(0.0005)", "time.sleep(0.1)"))
    monkeypatch.setattr(room, "pack", lambda target, path: pack_recipe(recipe, path))
    monkeypatch.setattr(room, "load_recipe", lambda target: Module)
    artifacts = [toys.fake_artifact(tmp_path / name, "work run", name) for name in "abc"]
    protocol = dataclasses.replace(QUICK, processes=1, min_runs=5)
    device = sshd.device(cache=str(tmp_path / "cache"))
    rows = []
    with pytest.raises(DeviceError, match="broke"):
        for row in profile_all(artifacts, device, threads=1, protocol=protocol):
            rows.append(row)
            if len(rows) == 2:  # in the middle of the third
                break_when(lambda: list((tmp_path / "cache/runs").iterdir()), sshd)
    assert [(row.status, row.error) for row in rows] == [("ok", "")] * 2
    missing = [artifact for artifact in artifacts if artifact.model not in {row.model for row in rows}]
    rows += profile_all(missing, device, threads=1, protocol=protocol)
    assert sorted(row.model for row in rows) == ["a", "b", "c"]
    assert {row.status for row in rows} == {"ok"}


# Names that a shell would read

# A cache's name is like that of any other file: nothing of it passes a shell.
OPTIONS = [option for option in openssh.OPTIONS if option != "cache"]
NAMES = [text.format(TRAP) for text in EVIL if "/" not in text.format(TRAP)]


@pytest.fixture
def no_trap(tmp_path: Path) -> Iterator[None]:
    (Path.home() / TRAP).unlink(missing_ok=True)  # of a test that failed
    yield
    assert not [path for folder in (Path.home(), Path.cwd()) for path in folder.glob(TRAP)]
    assert not list(tmp_path.rglob(TRAP))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("text", EVIL)
def test_options_execute_nothing(
    sshd: Sshd,
    fake: Callable[..., Reply],
    no_trap: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    trap = tmp_path / "trap"
    device = sshd.device(**{option: text.format(trap)})
    monkeypatch.setattr(openssh, "_START_S", 20.0)
    with pytest.raises((DeviceError, UsageError)):
        fake(device)
    assert not trap.exists()


def test_names_of_a_cache_execute_nothing(
    sshd: Sshd, fake: Callable[..., Reply], no_trap: None, tmp_path: Path
) -> None:
    assert len(NAMES) == len(EVIL)
    cache = tmp_path.joinpath(*NAMES, NAMES[0])
    assert fake(sshd.device(cache=str(cache))).status == "ok"
    assert list((cache / "trees").iterdir())


def test_names_of_files_execute_nothing(sshd: Sshd, no_trap: None, tmp_path: Path) -> None:
    """An artifact in folders with such names, whose files have them too."""
    folder = tmp_path.joinpath(*NAMES, NAMES[0])
    folder.parent.mkdir(parents=True)
    artifact = toys.fake_artifact(folder)
    for name in NAMES:
        (folder / name).write_text("more")
    artifact = seal(artifact)
    files = {WORKER: pack_recipe(toys.fake_recipe(tmp_path), tmp_path / "fake.pyz"), "artifact": folder}
    reply = load_transport("ssh").run(sshd.device(), files, toys.job_for(artifact), timeout_s=seconds(60))
    assert (reply.status, reply.error) == ("ok", "")


def test_python_in_a_folder_with_a_strange_name_runs(
    sshd: Sshd, fake: Callable[..., Reply], no_trap: None, tmp_path: Path
) -> None:
    folder = tmp_path / f"a 'b' $(touch {TRAP}); \"c\" `d`"
    folder.mkdir()
    (folder / "-python").symlink_to(sys.executable)
    (folder / "run").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "run").chmod(0o755)
    assert fake(sshd.device(python=str(folder / "run"))).status == "ok"


def test_options_that_make_no_sense_are_refused_before_anything_runs() -> None:
    bad = {"port": ("0", "70000", "x", "1 2"), "speed": ("1",), "identity": ("a$b", "%h"), "known_hosts": ('a"b',)}
    wrong = [{"host": "h", name: value} for name, values in bad.items() for value in values]
    for options in [*wrong, {}, {"host": ""}, {"host": "-h"}, {"host": "a b"}, {"host": "u@"}]:
        with pytest.raises(UsageError):
            SshTarget.of(Device("d", "", "", "ssh", options=options))
    for host in ("pi", "pi@192.168.1.7", "u_1@a-b.c", "fe80::1%eth0", "::1", "_x"):
        assert SshTarget.of(Device("d", "", "", "ssh", options={"host": host})).command()[-2] == host


# Another Python

ROOT = Path(__file__).parents[2]
DEVICE_SIDE = sorted(
    [
        *(ROOT / "runtime").rglob("*.py"),
        *(ROOT / "export_recipes").glob("*.py"),
        ROOT / "edgevit/measurement/workloads.py",
    ]
)


def pythons() -> dict[str, Path]:
    """Return the interpreters on this machine that are new enough, by version, this one included."""
    installed = sorted((Path.home() / ".pyenv/versions").glob("3.*/bin/python"))
    named = [shutil.which(f"python3.{minor}") for minor in range(openssh.MIN_PYTHON[1], 20)]
    interpreters = {}
    for path in [*installed, *map(Path, filter(None, named)), Path(sys.executable)]:
        command = [str(path), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        version = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if version and tuple(map(int, version.split("."))) >= openssh.MIN_PYTHON:
            interpreters[version] = path
    return interpreters


PYTHONS = pythons()


@pytest.mark.parametrize("version", PYTHONS)
def test_every_python_here_runs_the_worker(sshd: Sshd, fake: Callable[..., Reply], version: str) -> None:
    reply = fake(sshd.device(python=str(PYTHONS[version])))
    assert (reply.status, reply.error) == ("ok", "")
    assert reply.host is not None and reply.host.python.startswith(version)


@pytest.mark.parametrize("path", DEVICE_SIDE, ids=lambda path: path.name)
def test_what_runs_on_a_device_is_in_the_oldest_pythons_grammar(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=openssh.MIN_PYTHON)


@pytest.mark.parametrize("answer", [b"no JSON", b"[]", b"{}", b'{"lacking": []}'])
def test_an_agent_that_answers_otherwise_is_told(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """A login script that prints, or another program behind the name."""

    class Strange:
        def receive(self) -> bytes:
            return answer

    target = SshTarget("board", "board.local")
    with pytest.raises(DeviceError, match="agent's answer cannot be read"):
        ssh._answer(Strange(), target, ("missing",))  # type: ignore[arg-type]
