"""NVIDIA's trtexec, which is in TensorRT's archives and Debian packages, and not in its wheels."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, read
from edgevit.records.artifact import Artifact

DISTRIBUTION = ""
DIFFERS = "times the GPU by its own events, our worker the call and the waiting for it: ours takes longer"
_WARM_UP_MS = 500


def command() -> list[str] | None:
    """Return the program on the PATH."""
    program = shutil.which("trtexec")
    return [program] if program else None


def model(artifact: Artifact) -> Path:
    """Return the engine's file."""
    [engine] = sorted((artifact.folder / artifact.payload).glob("*.engine"))
    return engine


def arguments(artifact: Artifact, options: BenchmarkOptions, model: str) -> list[str]:
    """Return arguments that time the engine alone, because our worker's inputs are on the GPU before a run begins."""
    specs = [spec.at_batch(options.batch) for spec in artifact.inputs]
    shapes = ",".join(f"{spec.name}:{'x'.join(map(str, spec.shape))}" for spec in specs)
    flags: dict[str, object] = {
        "loadEngine": model,
        "iterations": options.runs,
        "duration": options.seconds,
        "warmUp": _WARM_UP_MS,
    }
    flags |= {"shapes": shapes} if artifact.dynamic_batch else {}
    return [*(f"--{name}={value}" for name, value in flags.items()), "--noDataTransfers", "--useSpinWait"]


def parse(text: str, options: BenchmarkOptions) -> ProgramOutput:
    """Parse the line of the GPU's time in the summary of releases 8 to 10."""
    line = r"GPU Compute Time: .*\b{} = ([\d.e+-]+ ms)"
    median, low, high, mean = map(line.format, ("median", "min", "max", "mean"))
    return read(text, median=median, minimum=low, maximum=high, mean=mean, runs=r"Timing trace has (\d+) queries")
