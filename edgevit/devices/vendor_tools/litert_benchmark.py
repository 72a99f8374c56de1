"""LiteRT's benchmark_litert_model in Python, which is in the `ai-edge-litert` wheel as `litert-benchmark`."""

from __future__ import annotations

from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, python_command, read
from edgevit.records.artifact import Artifact

DISTRIBUTION = "ai-edge-litert"
DIFFERS = "runs a CompiledModel, our worker an Interpreter; both compute with XNNPACK"


def command() -> list[str] | None:
    """Return the wheel's script as a command."""
    return python_command(DISTRIBUTION, "litert-benchmark")


def model(artifact: Artifact) -> Path:
    """Return the payload."""
    return artifact.folder / artifact.payload


def arguments(artifact: Artifact, options: BenchmarkOptions, model: str) -> list[str]:
    """Return arguments for the processor and a number of runs; the program has no limit of time."""
    flags: dict[str, object] = {"model": model, "num_threads": options.threads}
    flags |= {"num_runs": options.runs, "warmup_runs": options.warmup_runs}
    return [f"--{name}={value}" for name, value in flags.items()]


def parse(text: str, options: BenchmarkOptions) -> ProgramOutput:
    """Parse the lines of the program's table."""
    median, low, high, mean = (rf"Inference \({name}\): +([\d.]+ ms)" for name in ("median", "min", "max", "avg"))
    runs = r"Inference \(avg\): .*\((\d+) runs\)"
    return read(text, median=median, minimum=low, maximum=high, mean=mean, runs=runs)
