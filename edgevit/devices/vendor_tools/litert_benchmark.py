"""LiteRT's benchmark_litert_model in Python, which comes with the `ai-edge-litert` wheel as `litert-benchmark`."""

from __future__ import annotations

from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, python_command, read
from edgevit.records.artifact import Artifact

DISTRIBUTION = "ai-edge-litert"
DIFFERS = "runs a CompiledModel, our worker an Interpreter; both compute with XNNPACK"


def command() -> list[str] | None:
    """The script of the wheel."""
    return python_command(DISTRIBUTION, "litert-benchmark")


def model(artifact: Artifact) -> Path:
    """The payload."""
    return artifact.folder / artifact.payload


def arguments(artifact: Artifact, asked: BenchmarkOptions, model: str) -> list[str]:
    """On the processor, with a number of runs: it has no clock to go by."""
    how: dict[str, object] = {"model": model, "num_threads": asked.threads}
    how |= {"num_runs": asked.runs, "warmup_runs": asked.warmup_runs}
    return [f"--{name}={value}" for name, value in how.items()]


def parse(text: str, asked: BenchmarkOptions) -> ProgramOutput:
    """The lines of its table."""
    median, least, most, mean = (rf"Inference \({name}\): +([\d.]+ ms)" for name in ("median", "min", "max", "avg"))
    return read(text, median=median, least=least, most=most, mean=mean, runs=r"Inference \(avg\): .*\((\d+) runs\)")
