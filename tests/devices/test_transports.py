"""Transports: any behaviour of an engine gives a Reply, and no process or file remains."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgevit.devices.transports import (
    WORKER,
    list_transports,
    load_transport,
    local,
    read_end,
    thread_variables,
)
from edgevit.devices.worker_archive import pack, pack_recipe
from edgevit.errors import DeviceError, UnknownNameError
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Job, Reply
from support import toys
from support.processes import is_running
from support.speed import seconds, wait_until

HOST = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell inherits "ignore"
from support import toys
from edgevit.devices.transports import WORKER, load_transport
folder = Path(sys.argv[1])
artifact = toys.fake_artifact(folder / "artifact", sys.argv[2])
files = {WORKER: folder / "fake.pyz", "artifact": folder / "artifact"}
load_transport("local").run(toys.LOCAL, files, toys.job_for(artifact), timeout_s=600)
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Reply]:
    """run(text, ...) of the fake engine through the local transport."""

    def run(text: str, *, timeout_s: float = seconds(30), **settings: object) -> Reply:
        artifact = toys.fake_artifact(tmp_path / "artifact", text)
        files = {WORKER: worker, "artifact": artifact.folder}
        return load_transport("local").run(toys.LOCAL, files, toys.job_for(artifact, **settings), timeout_s=timeout_s)

    worker = pack_recipe(toys.fake_recipe(tmp_path), tmp_path / "fake.pyz")
    return run


def test_discovery() -> None:
    assert "local" in list_transports()
    with pytest.raises(UnknownNameError, match="did you mean local"):
        load_transport("lcoal")


@pytest.mark.parametrize("when", ["load", "run"])
@pytest.mark.parametrize(
    ("behaviour", "status", "message"),
    [
        ("segv", "crashed", "killed by SIGSEGV"),
        ("abort", "crashed", "killed by SIGABRT"),
        ("exit", "crashed", "exit code 0 and no reply"),
        ("raise", "failed", "RuntimeError: the engine says no"),
    ],
)
def test_misbehaving_engine_is_a_reply(
    fake: Callable[..., Reply], behaviour: str, when: str, status: str, message: str
) -> None:
    reply = fake(f"{behaviour} {when}")
    assert reply.status == status
    assert message in reply.error
    assert reply.engine == "fake-engine"
    assert reply.host is not None
    assert reply.timing is None
    assert all(letter.isprintable() or letter == "\n" for letter in reply.error), "no NUL or escape reaches a database"


def test_crash_says_where(fake: Callable[..., Reply]) -> None:
    assert "string_at" in fake("segv run").error


@pytest.mark.parametrize("behaviour", ["spin", "hang_in_c"])
def test_hanging_engine_is_stopped(fake: Callable[..., Reply], tmp_path: Path, behaviour: str) -> None:
    begin = time.monotonic()
    limit_s = seconds(1)
    reply = fake(f"{behaviour} run {tmp_path}/pids", timeout_s=limit_s)
    assert (reply.status, reply.error) == ("timeout", f"no reply after {limit_s:g} s")
    assert time.monotonic() - begin < limit_s + seconds(2)
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert pids and wait_until(lambda: not any(map(is_running, pids)), 1), "a killed process is still there"


@pytest.mark.parametrize("behaviour", ["work", "segv", "raise"])
def test_no_process_outlives_its_job(fake: Callable[..., Reply], tmp_path: Path, behaviour: str) -> None:
    fake(f"{behaviour} load {tmp_path}/pids")
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(is_running, pids)), 1), "a process that the engine started is still there"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_worker_dies_with_its_host(tmp_path: Path, number: signal.Signals) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent died")
    pack_recipe(toys.fake_recipe(tmp_path), tmp_path / "fake.pyz")
    command = [sys.executable, "-c", HOST, str(tmp_path), f"hang run {tmp_path}/pids"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as host:
        try:
            assert wait_until((tmp_path / "pids").exists, 10)
            worker, child = map(int, (tmp_path / "pids").read_text().split())
            assert is_running(worker)
        finally:
            host.send_signal(number)
        stderr = host.communicate(timeout=seconds(10))[1]
    try:
        assert wait_until(lambda: not is_running(worker), 2)
        assert (b"KeyboardInterrupt" in stderr) == (number == signal.SIGINT)
    finally:
        for pid in filter(is_running, (worker, child)):  # kill -9 leaves nobody to end the engine's own children
            os.kill(pid, signal.SIGKILL)


def test_environment_is_clean_and_threads_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    recipe = toys.fake_recipe(tmp_path)
    recipe.write_text(
        recipe.read_text().replace("text = path.read_text()", "raise RuntimeError(str(dict(os.environ)))")
    )
    artifact = toys.fake_artifact(tmp_path / "artifact")
    files = {WORKER: pack_recipe(recipe, tmp_path / "fake.pyz"), "artifact": artifact.folder}
    job = toys.job_for(artifact, threads=3)
    error = load_transport("local").run(toys.LOCAL, files, job, timeout_s=seconds(30)).error
    assert "'OMP_NUM_THREADS': '3'" in error
    assert "OMP_WAIT_POLICY" not in error
    assert set(thread_variables(3).values()) == {"3"}


def test_folder_is_gone_and_artifact_is_not(
    fake: Callable[..., Reply], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert fake("work run").status == "ok"
    assert not list(temporary.iterdir())
    assert sorted(path.name for path in (tmp_path / "artifact").iterdir()) == ["manifest.json", "payload.txt"]


def test_transport_failure_is_a_device_error(
    fake: Callable[..., Reply], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(DeviceError, match="nowhere"):
        fake("work run")


def test_flood_on_stderr_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    path.write_bytes(b"x" * 1_000_000 + b"end")
    tail = local._tail(path)
    assert (len(tail), tail[-3:]) == (8192, b"end")
    assert len(read_end(None, tail, 1, 1).error) == 2000


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (None, "timeout"),
        (1, "failed"),
        (5, "unsupported"),
        (0, "crashed"),
        (-9, "crashed"),
        (137, "crashed"),
        (77, "crashed"),
    ],
)
def test_end_without_reply(code: int | None, status: str) -> None:
    reply = read_end(None, b"said", code, 3)
    assert reply.status == status
    assert reply.error.endswith("said")
    assert ("SIGKILL" in reply.error) == (code in (-9, 137))


def test_exit_without_a_word_is_a_crash() -> None:
    reply = read_end(None, b"", 1, 3)
    assert (reply.status, reply.error) == ("crashed", "the worker ended with exit code 1 and no reply")


def test_who_ended_the_worker_is_believed() -> None:
    written = to_json(Reply("crashed", "used more than 2 GB of memory", engine="e")).encode()
    reply = read_end(written, b"noise", -9, 3)
    assert (reply.status, reply.error) == ("crashed", "used more than 2 GB of memory\nnoise")


def test_finished_reply_stands_whatever_happens_while_closing_down() -> None:
    written = to_json(Reply("ok", engine="e")).encode()
    assert read_end(written, b"", -11, 1) == read_end(written, b"", None, 1) == Reply("ok", engine="e")


def test_unreadable_reply_costs_its_row_only() -> None:
    reply = read_end(b'{"status": "ok", "timing": NaN}', b"", 0, 1)
    assert reply.status == "failed"
    assert "NaN" in reply.error


# --- the real engine


@pytest.fixture(scope="module")
def ort_worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack("onnx", tmp_path_factory.mktemp("ort") / "worker.pyz")


@pytest.mark.onnx
@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_infer_with_onnx_runtime(tmp_path: Path, ort_worker: Path, dtype: str, external: bool) -> None:
    artifact = toys.onnx_artifact(tmp_path / "artifact", dtype=dtype, external=external)
    x = np.arange(16, dtype=dtype).reshape(2, 2, 4)  # two sets of batch 2
    (tmp_path / "x.bin").write_bytes(x.tobytes())
    files = {WORKER: ort_worker, "artifact": artifact.folder, "feeds.bin": tmp_path / "x.bin"}
    job = toys.job_for(artifact, task="infer", batch=2, feeds="feeds.bin", count=2)
    reply = load_transport("local").run(toys.LOCAL, files, job, timeout_s=seconds(60))
    assert (reply.status, reply.error, reply.provider) == ("ok", "", "CPUExecutionProvider")
    assert reply.inputs == artifact.inputs
    outputs = [np.frombuffer(base64.b64decode(z), dtype).reshape(2, 3) for (z,) in reply.results]
    assert np.array_equal(outputs, x @ np.full((4, 3), 0.5, dtype) + np.arange(3, dtype=dtype))


@pytest.mark.onnx
def test_onnx_runtime_refusal_is_a_failed_reply(tmp_path: Path, ort_worker: Path) -> None:
    artifact = toys.onnx_artifact(tmp_path / "artifact", batch=1)
    (artifact.folder / "model.onnx").write_bytes(b"not a model")
    job = toys.job_for(artifact)
    files = {WORKER: ort_worker, "artifact": artifact.folder}
    assert "the artifact is damaged" in load_transport("local").run(toys.LOCAL, files, job, timeout_s=seconds(60)).error
    from edgevit_runtime.digest import tree_sha256

    job = Job("time", "onnx", "artifact", "model.onnx", tree_sha256(artifact.folder), 1)
    reply = load_transport("local").run(toys.LOCAL, files, job, timeout_s=seconds(60))
    assert reply.status == "failed"
    assert "not safe to open: model.onnx is no ONNX file" in reply.error, "nothing is opened that was not looked into"
    (artifact.folder / "model.onnx").write_bytes(b"")  # of which there is nothing to fear
    job = Job("time", "onnx", "artifact", "model.onnx", tree_sha256(artifact.folder), 1)
    reply = load_transport("local").run(toys.LOCAL, files, job, timeout_s=seconds(60))
    assert reply.status == "failed"
    assert "onnxruntime" in reply.error
    assert reply.engine_version
