"""Faults: a fault of an engine costs one row, and an interrupted sweep measures no row twice."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from edgevit.devices.worker_archive import pack_recipe
from edgevit.measurement import runner as room
from edgevit.measurement.runner import Protocol, profile_all
from edgevit.records.artifact import Artifact
from edgevit_runtime import memory_watchdog
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Recipe
from support import toys
from support.processes import is_running
from support.speed import seconds, wait_until
from support.warmup import shorten_warmups

if sys.platform != "linux":
    pytest.skip("only Linux tells what a process holds", allow_module_level=True)

LIMIT = 300_000_000
Fakes = Callable[[str, str], Artifact]
# The fault of an engine, with the row's status and words of its error.
FAULTS = {
    "segv": ("crashed", "killed by SIGSEGV"),
    "abort": ("crashed", "killed by SIGABRT"),
    "kill": ("crashed", "killed by SIGKILL"),
    "exit_1": ("crashed", "exit code 1 and no reply"),
    "hang": ("timeout", "no reply after"),
    "bomb": ("crashed", "used more than 0.3 GB of memory"),
    "child_bomb": ("crashed", "used more than 0.3 GB of memory"),
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    class Module:
        RECIPE = Recipe("fake", ".txt", "fake-engine", ("fp32",), (), "")

    shorten_warmups(monkeypatch)
    recipe = toys.fake_recipe(tmp_path)
    monkeypatch.setattr(room, "pack", lambda target, path: pack_recipe(recipe, path))
    monkeypatch.setattr(room, "load_recipe", lambda target: Module)
    return lambda text, name: toys.fake_artifact(tmp_path / name, text, name)


def inject(fakes: Fakes, tmp_path: Path, texts: Sequence[str]) -> None:
    """Sweep over engines with these faults. Every fault must be a row, and the good engine must succeed."""
    protocol = Protocol(
        processes=2, min_runs=5, min_ns=0, percentile=None, timeout_s=seconds(4), max_memory_bytes=LIMIT
    )
    artifacts = [fakes(f"{text} {tmp_path}/pids-{i}", f"a{i}") for i, text in enumerate(texts)]
    artifacts.append(fakes("work run", "good"))
    rows = {row.model: row for row in profile_all(artifacts, toys.LOCAL, threads=1, protocol=protocol)}
    assert len(rows) == len(artifacts)
    good = rows.pop("good")
    assert (good.status, good.processes) == ("ok", 2)
    for i, text in enumerate(texts):
        status, words = FAULTS[text.split()[0]]
        assert rows[f"a{i}"].status == status, rows[f"a{i}"].error
        assert words in rows[f"a{i}"].error
        assert rows[f"a{i}"].engine == "fake-engine", "known although it crashed"
    pids = [int(pid) for path in tmp_path.glob("pids-*") for pid in path.read_text().split()]
    assert len(pids) == 2 * len(texts)
    assert wait_until(lambda: not any(map(is_running, pids)), 0.5)


def test_each_fault_costs_one_row(fakes: Fakes, tmp_path: Path) -> None:
    inject(fakes, tmp_path, [f"{fault} run" for fault in FAULTS])


@pytest.mark.slow
def test_a_hundred_faults_cost_a_hundred_rows(fakes: Fakes, tmp_path: Path) -> None:
    # The six faults of the specification.
    kinds = sorted(set(FAULTS) - {"child_bomb"})
    order = random.Random(0)
    inject(fakes, tmp_path, [f"{kinds[i % 6]} {order.choice(('load', 'run'))}" for i in range(100)])


def test_memory_of_a_process_and_its_children() -> None:
    child = "hoard = b'x' * 200_000_000; print(flush=True); import sys; sys.stdin.read()"
    parent = f"hoard = b'x' * 100_000_000; import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        memory_bytes = memory_watchdog.memory_bytes(process.pid)
        process.stdin.close()
    assert memory_bytes is not None
    assert 300_000_000 < memory_bytes < 360_000_000, "100 MB in the process, 200 MB in its child, and two interpreters"


def test_a_worker_that_ends_by_itself_leaves_no_watch(tmp_path: Path) -> None:
    """The watch is neither running nor a zombie: a container may have no process that collects it."""
    pack_recipe(toys.fake_recipe(tmp_path), tmp_path / "worker.pyz")
    artifact = toys.fake_artifact(tmp_path / "artifact")
    (tmp_path / "job.json").write_text(to_json(toys.job_for(artifact)))
    code = (
        "import ctypes, glob, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans of ours come to us\n"
        "subprocess.run([sys.executable, 'worker.pyz', 'job.json', 'reply.json'], check=True)\n"
        "print(*open('/proc/self/task/' + str(__import__('os').getpid()) + '/children').read().split())"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == ""


def test_mapped_files_are_not_held(tmp_path: Path) -> None:
    import mmap

    path = tmp_path / "weights"
    path.write_bytes(b"x" * 100_000_000)
    before = memory_watchdog.memory_bytes(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[i] for i in range(0, len(mapped), 4096)) > 0
        after = memory_watchdog.memory_bytes(os.getpid())
    assert before is not None and after is not None
    assert after - before < 20_000_000


# A sweep that is killed

SWEEP = """
import dataclasses, sys
from functools import partial
from pathlib import Path
from support import toys
from edgevit.measurement import runner as room
from edgevit.artifacts import trust
from edgevit.sweeps import plan as sweep
from edgevit.devices.worker_archive import pack_recipe
from edgevit.store import closed_lists
from edgevit_runtime.record import Recipe

# An installed distribution, so that the version of the engine is known before it runs.
class Module:
    RECIPE = Recipe("fake", ".txt", "edgevit", ("fp32",), (), "")

folder = Path(sys.argv[1])
room.pack = lambda target, path: pack_recipe(folder / "fake.py", path)
room.Job = partial(room.Job, warmup_min_runs=2, warmup_min_ns=0, warmup_max_ns=0)
for module in (room, sweep, trust):
    module.load_recipe = lambda target: Module
closed_lists._names = lambda: closed_lists.Names(("fake",), ("fp32",), ("edgevit",))
sweep.artifact_for = lambda request, db=None: sweep.open_artifact(sweep.artifact_folder(request))
from edgevit.cli import sweep as verb
import edgevit.devices.registry
edgevit.devices.registry.load_device = lambda name: toys.LOCAL
room.Protocol.quick = classmethod(lambda kind, **_: kind(processes=2, min_runs=3, min_ns=0, percentile=None))
from edgevit.cli import main
sys.argv = ["edgevit", "sweep", "--models", sys.argv[2], "--targets", "fake", "-o", str(folder / "out"), "--db",
            str(folder / "x.db"), "--quick", "-q"]
main()
"""
NAMES = ("a", "b", "c")


def sweep_of_fakes(folder: Path) -> subprocess.Popen[bytes]:
    names = ",".join(f"{name}.py:net" for name in NAMES)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", SWEEP, str(folder), names], env=environment, cwd=folder,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip


def make_fakes(folder: Path) -> None:
    recipe = toys.fake_recipe(folder)
    text = recipe.read_text().replace('"fake-engine"', '"edgevit"').replace('"1.0"', "VERSION")
    import edgevit

    recipe.write_text(f"VERSION = {edgevit.__version__!r}\n{text}")
    (folder / "out").mkdir()
    for i, name in enumerate(NAMES, start=1):
        toys.fake_artifact(folder / "out" / f"{name}-net-fake-fp32", f"work{' ' * i}run", f"{name}.py:net")


def keys(folder: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(folder / "x.db", timeout=30)) as connection:
        query = "SELECT measurement_key, count(*) FROM measurement JOIN device USING (device_no)"
        return connection.execute(f"{query} WHERE device_id = 'unit' GROUP BY 1").fetchall()


def kill_at_random(folder: Path, kills: int) -> None:
    make_fakes(folder)
    moments, longest = random.Random(0), 6.0
    killed = 0
    while killed < kills:
        # A sweep that came to its end has nothing left to do when it is resumed: begin anew.
        (folder / "x.db").unlink(missing_ok=True)
        finished = False
        while not finished:
            begin = time.monotonic()
            sweep = sweep_of_fakes(folder)
            try:
                _, stderr = sweep.communicate(timeout=moments.uniform(0.5, longest) if killed < kills else seconds(120))
                finished = True
                longest = max(1.0, time.monotonic() - begin)
                assert sweep.returncode == 0, stderr.decode()
            except subprocess.TimeoutExpired:
                sweep.send_signal(signal.SIGKILL)
                sweep.communicate()
                killed += 1
        assert [count for _, count in keys(folder)] == [1] * len(NAMES)


def test_a_killed_sweep_measures_each_key_once(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 2)


@pytest.mark.slow
def test_fifty_kills_of_a_sweep(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 50)


def test_nothing_of_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    """After kill -9, only the worker's watch can end the processes that the engine started."""
    make_fakes(tmp_path)
    for path in (tmp_path / "out").iterdir():
        text = f"hang run {tmp_path}/pids"
        artifact = toys.fake_artifact(tmp_path / f"new-{path.name}", text, f"{path.name[0]}.py:net")
        path.rename(tmp_path / f"old-{path.name}")
        artifact.folder.rename(path)
    sweep = sweep_of_fakes(tmp_path)
    assert wait_until((tmp_path / "pids").exists, 60)
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert all(map(is_running, pids))
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    assert wait_until(lambda: not any(map(is_running, pids)), 5)
