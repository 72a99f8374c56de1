"""ExecuTorch's executor_runner, built with XNNPACK and its thread pool. It prints each run's time, so it has samples.

No wheel has it, so its output was not recorded here. This module follows its source (pytorch/executorch,
examples/portable/executor_runner/executor_runner.cpp, commit 018a3a5). Older releases print one sum over all runs, the
cold ones included, which is refused.
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
    """Return the program on the PATH."""
    program = shutil.which("executor_runner")
    return [program] if program else None


def model(artifact: Artifact) -> Path:
    """Return the payload."""
    return artifact.folder / artifact.payload


def arguments(artifact: Artifact, options: BenchmarkOptions, model: str) -> list[str]:
    """Return arguments with one number of executions, which includes the first run and the warm-up."""
    flags: dict[str, object] = {"model_path": model, "num_executions": 1 + options.warmup_runs + options.runs}
    flags |= {"cpu_threads": options.threads, "print_output": "none"}
    return [f"--{name}={value}" for name, value in flags.items()]


def parse(text: str, options: BenchmarkOptions) -> ProgramOutput:
    """Parse the line of each run: the first one, the warm-up, and the samples."""
    lines = _RUN.findall(text)
    expected = 1 + options.warmup_runs + options.runs
    if [(int(number), int(total)) for number, total, _ in lines] != [(i + 1, expected) for i in range(expected)]:
        why = "older releases print only one sum of all runs, and a build without logs nothing"
        problem = f"{expected} lines `Iteration N of {expected}` were expected, and {len(lines)} are there"
        raise ValueError(f"{problem}: {why}")
    times = tuple(positive_ns(float(value), "ms", f"iteration {number}: 0 ms") for number, _, value in lines)
    samples, loaded = times[1 + options.warmup_runs :], _LOADED.search(text)
    median, mean = round(statistics.median(samples)), round(statistics.fmean(samples))
    summary = VendorSummary(median, min(samples), max(samples), mean, len(samples))
    load_ns = positive_ns(float(loaded[1]), "ms", "0 ms") if loaded else None
    return ProgramOutput(summary, load_ns, times[0], times[1 : 1 + options.warmup_runs], samples)


def provider(text: str) -> str:
    """Return a fixed text: the program does not print its kernels, which depend on its build and on the payload."""
    return "as the program was built"
