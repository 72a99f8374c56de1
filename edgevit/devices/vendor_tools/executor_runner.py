"""ExecuTorch's executor_runner, built with XNNPACK and its thread pool. It prints what each run takes: real samples.

No wheel has it, so its output was not recorded here. This is written after its source (pytorch/executorch,
examples/portable/executor_runner/executor_runner.cpp, commit 018a3a5). Older ones print one sum over all runs, the cold
ones included, which is refused.
"""

from __future__ import annotations

import re
import shutil
import statistics
from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, VendorSummary, positive_ns
from edgevit.records.artifact import Artifact

DISTRIBUTION = ""
DIFFERS = "inputs are ones; without Python around them"
AS_VERIFIED, COUNTS_RUNS = True, True
_RUN = re.compile(r"\bIteration (\d+) of (\d+): (\d+\.\d+) ms\b")
_LOADED = re.compile(r"\bModel loaded in (\d+\.\d+) ms\b")


def command() -> list[str] | None:
    """The program on the PATH."""
    found = shutil.which("executor_runner")
    return [found] if found else None


def model(artifact: Artifact) -> Path:
    """The payload."""
    return artifact.folder / artifact.payload


def arguments(artifact: Artifact, asked: BenchmarkOptions, model: str) -> list[str]:
    """It makes no difference between warming up and running, so both are asked for in one."""
    how: dict[str, object] = {"model_path": model, "num_executions": 1 + asked.warmup_runs + asked.runs}
    how |= {"cpu_threads": asked.threads, "print_output": "none"}
    return [f"--{name}={value}" for name, value in how.items()]


def parse(text: str, asked: BenchmarkOptions) -> ProgramOutput:
    """Its line of each run: the first one, those that warm up, and the samples."""
    lines = _RUN.findall(text)
    wanted = 1 + asked.warmup_runs + asked.runs
    if [(int(number), int(total)) for number, total, _ in lines] != [(i + 1, wanted) for i in range(wanted)]:
        why = "older releases print but one sum of all runs, and a build without logs nothing"
        raise ValueError(f"{wanted} lines `Iteration N of {wanted}` were expected, and {len(lines)} are there: {why}")
    times = tuple(positive_ns(float(value), "ms", f"iteration {number}: 0 ms") for number, _, value in lines)
    samples, loaded = times[1 + asked.warmup_runs :], _LOADED.search(text)
    median, mean = round(statistics.median(samples)), round(statistics.fmean(samples))
    told = VendorSummary(median, min(samples), max(samples), mean, len(samples))
    load_ns = positive_ns(float(loaded[1]), "ms", "0 ms") if loaded else None
    return ProgramOutput(told, load_ns, times[0], times[1 : 1 + asked.warmup_runs], samples)


def provider(text: str) -> str:
    """It does not say which kernels ran: those of the backends that it was built with and the program was made for."""
    return "as the program was built"
