"""What each engine does with more threads than its process may use; docs/measure.md has the same in a table."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from edgevit.recipes import load_recipe
from edgevit_runtime import environment
from support.command_line import edgevit

DOCS = Path(__file__).parents[2] / "docs/measure.md"
TARGETS = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "ai-edge-litert": "litert",
    "executorch": "executorch",
}
# Two threads are asked for. A thread is busy if it works a fifth as much as the busiest one.
PROBE = """
import sys, time
from pathlib import Path
from edgevit.recipes import load_recipe

def ticks():
    used = {}
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        used[task.name] = int(fields[11]) + int(fields[12])
    return used

session = load_recipe(sys.argv[1]).load(Path(sys.argv[2]), threads=2)
session.feed([bytes(spec.at_batch(1).nbytes) for spec in session.inputs], 1)
for _ in range(5):
    session.run()
before = ticks()
while sum(ticks().values()) - sum(before.values()) < 80:
    session.run()
spent = [count - before.get(name, 0) for name, count in ticks().items()]
print(sum(count > max(spent) / 5 for count in spent))
"""
QUOTA = """
from edgevit_runtime import environment
print(environment.host().silicon.quota_cores, environment.snapshot().quota_throttled_us)
"""
TORCH = "import torch; print(torch.get_num_threads())"


def rows() -> dict[str, tuple[str, int, int]]:
    """Return the rows of the table by engine: its version, and its threads under an affinity and under a quota."""
    found = re.findall(r"^\| ([a-z-]+) (\S+) \| (\d) \| (\d) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (release, int(affinity), int(quota)) for name, release, affinity, quota in found}


def probe(engine: str, artifact: Path, prefix: list[str]) -> int:
    """Return the number of busy threads where two are asked for; of torch, the number that it takes by itself."""
    code = ["-c", TORCH] if engine == "torch" else ["-c", PROBE, TARGETS[engine], str(artifact)]
    variables = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    process = subprocess.run(
        [*prefix, sys.executable, *code], env=variables, capture_output=True, text=True, check=True, timeout=120
    )
    return int(process.stdout.split()[-1])


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the payload of a network for an engine, exported once."""
    folder = tmp_path_factory.mktemp("artifacts")

    @functools.cache
    def exported(engine: str) -> Path:
        if engine == "torch":
            return Path()
        target = TARGETS[engine]
        done = edgevit("export", "mobilevig_ti", "-t", target, "-o", "out", folder=folder)
        assert done.returncode == 0, done.stderr
        suffix = load_recipe(target).RECIPE.suffix
        return next((folder / f"out/mobilevig_ti-{target}-fp32").glob(f"*{suffix}"))

    return exported


@pytest.mark.skipif(sys.platform != "linux", reason="not Linux")
@pytest.mark.parametrize("engine", ["torch", *TARGETS])
def test_engines_with_one_core_of_their_process(engine: str, payload: Callable[[str], Path]) -> None:
    release, expected, _ = rows()[engine]
    assert version(engine).partition("+")[0] == release, "the table is of another version"
    core = min(os.sched_getaffinity(0))
    assert probe(engine, payload(engine), ["taskset", "-c", str(core)]) == expected


def group() -> Path:
    """Make a control group with a quota of one core, or skip."""
    for top, files in (
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}),
        (Path("/sys/fs/cgroup"), {"cpu.max": "100000 100000"}),
    ):
        folder = top / f"edgevit-test-{os.getpid()}"
        try:
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            continue
        return folder
    pytest.skip("no control group can be made on this machine")


@pytest.mark.skipif(sys.platform != "linux", reason="not Linux")
def test_engines_with_a_quota_of_one_core(payload: Callable[[str], Path]) -> None:
    folder = group()
    enter = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh"]
    try:
        told = subprocess.run([*enter, sys.executable, "-c", QUOTA], capture_output=True, text=True, check=True)
        quota, held = told.stdout.split()
        assert quota == "1.0" and held.isdecimal()
        for engine, (_, _, expected) in rows().items():
            assert probe(engine, payload(engine), enter) == min(expected, environment.host().cores), engine
    finally:
        folder.rmdir()
