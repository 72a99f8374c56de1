"""NVIDIA's trtexec, which comes with TensorRT's archives and Debian packages, not with its wheels."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, read
from edgevit.records.artifact import Artifact

DISTRIBUTION = ""
DIFFERS = "times the GPU by its own events, our worker the call and the waiting for it: ours takes longer"
_WARM_UP_MS = 500


def command() -> list[str] | None:
    """The program on the PATH."""
    found = shutil.which("trtexec")
    return [found] if found else None


def model(artifact: Artifact) -> Path:
    """The engine."""
    [engine] = sorted((artifact.folder / artifact.payload).glob("*.engine"))
    return engine


def arguments(artifact: Artifact, asked: BenchmarkOptions, model: str) -> list[str]:
    """The engine alone: our worker's inputs are on the GPU before a run begins, too."""
    shapes = ",".join(f"{spec.name}:{'x'.join(map(str, spec.at_batch(asked.batch).shape))}" for spec in artifact.inputs)
    how: dict[str, object] = {
        "loadEngine": model,
        "iterations": asked.runs,
        "duration": asked.seconds,
        "warmUp": _WARM_UP_MS,
    }
    how |= {"shapes": shapes} if artifact.dynamic_batch else {}
    return [*(f"--{name}={value}" for name, value in how.items()), "--noDataTransfers", "--useSpinWait"]


def parse(text: str, asked: BenchmarkOptions) -> ProgramOutput:
    """The line of the GPU's time in the summary of its releases 8 to 10."""
    line = r"GPU Compute Time: .*\b{} = ([\d.e+-]+ ms)"
    median, least, most, mean = map(line.format, ("median", "min", "max", "mean"))
    return read(text, median=median, least=least, most=most, mean=mean, runs=r"Timing trace has (\d+) queries")
