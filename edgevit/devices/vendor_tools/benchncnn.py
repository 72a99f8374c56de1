"""ncnn's benchncnn, built from its source of July 2026 on x86-64, where what it prints was recorded.

It opens the param file alone: all weights are zero. It computes in half precision wherever the processor can, which
nothing it is told changes, while our recipe pins single. So what it times is not what was verified, on processors of
phones above all. It tells a mean, to ten microseconds, and no median.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, VendorSummary, positive_ns
from edgevit.records.artifact import Artifact
from edgevit_runtime.record import TensorSpec

DISTRIBUTION = ""
DIFFERS = "weights of zero, and half precision where the processor has it; a mean and no median"
AS_VERIFIED, COUNTS_RUNS = False, True
_PARAM = "model.ncnn.param"  # as the recipe names it
_ALL_CORES, _NO_GPU, _NO_PAUSE = "0", "-1", "0"
_MOST_AXES = 4  # of a shape that it can be told
_LINE = re.compile(r"^ *\S+ +min = +([\d.]+) +max = +([\d.]+) +avg = +([\d.]+)", re.MULTILINE)
_RUNS = re.compile(r"^loop_count = (\d+)$", re.MULTILINE)


def command() -> list[str] | None:
    """The program on the PATH."""
    found = shutil.which("benchncnn")
    return [found] if found else None


def model(artifact: Artifact) -> Path:
    """The param file."""
    return artifact.folder / artifact.payload / _PARAM


def arguments(artifact: Artifact, asked: BenchmarkOptions, model: str) -> list[str]:
    """A number of runs on all cores; shapes are told as width, height, channels. It warms up eight times by itself."""
    shapes = ",".join(_shape(spec.at_batch(asked.batch)) for spec in artifact.inputs)
    how = [str(asked.runs), str(asked.threads), _ALL_CORES, _NO_GPU, _NO_PAUSE]
    return [*how, f"param={model}", f"shape={shapes}"]


def _shape(spec: TensorSpec) -> str:
    batch, *axes = spec.shape
    if batch != 1 or not 1 <= len(axes) <= _MOST_AXES:
        raise ValueError(f"it takes one sample of at most {_MOST_AXES} axes, and {spec.name} is {list(spec.shape)}")
    planes = [axes[-1], *axes[:-1]] if spec.dtype == "uint8" else axes  # raw images lie there as planes, too
    return f"[{','.join(map(str, reversed(planes)))}]"


def parse(text: str, asked: BenchmarkOptions) -> ProgramOutput:
    """Its one line of times. Several are of its own list of networks, which older releases run whatever is asked."""
    lines, runs = _LINE.findall(text), _RUNS.search(text)
    if runs is None or len(lines) != 1:
        raise ValueError(f"one line of times was expected, and {len(lines)} are there")
    least, most, mean = (positive_ns(float(value), "ms", "0.00 ms") for value in lines[0])
    return ProgramOutput(VendorSummary(None, least, most, min(max(mean, least), most), int(runs[1])))


def provider(text: str) -> str:
    """It does not say which kernels ran."""
    return "CPU, weights of zero, half precision where the processor has it"
