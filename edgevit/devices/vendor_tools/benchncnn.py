"""ncnn's benchncnn, built from its source of July 2026 on x86-64, where its output was recorded.

It opens the param file alone, so all weights are zero. It computes in half precision wherever the processor can, and no
argument changes that; our recipe pins single. So the timed computation is not the verified one, above all on phones'
processors. It prints a mean, to ten microseconds, and no median.
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
_MAX_AXES = 4  # of a shape in its arguments
_LINE = re.compile(r"^ *\S+ +min = +([\d.]+) +max = +([\d.]+) +avg = +([\d.]+)", re.MULTILINE)
_RUNS = re.compile(r"^loop_count = (\d+)$", re.MULTILINE)


def command() -> list[str] | None:
    """Return the program on the PATH."""
    program = shutil.which("benchncnn")
    return [program] if program else None


def model(artifact: Artifact) -> Path:
    """Return the param file."""
    return artifact.folder / artifact.payload / _PARAM


def arguments(artifact: Artifact, options: BenchmarkOptions, model: str) -> list[str]:
    """Return arguments for a number of runs on all cores, with shapes as width, height, channels.

    The program itself makes eight warm-up runs.
    """
    shapes = ",".join(_shape(spec.at_batch(options.batch)) for spec in artifact.inputs)
    positional = [str(options.runs), str(options.threads), _ALL_CORES, _NO_GPU, _NO_PAUSE]
    return [*positional, f"param={model}", f"shape={shapes}"]


def _shape(spec: TensorSpec) -> str:
    batch, *axes = spec.shape
    if batch != 1 or not 1 <= len(axes) <= _MAX_AXES:
        raise ValueError(f"it takes one sample of at most {_MAX_AXES} axes, and {spec.name} is {list(spec.shape)}")
    # The artifact takes raw images as planes too.
    planes = [axes[-1], *axes[:-1]] if spec.dtype == "uint8" else axes
    return f"[{','.join(map(str, reversed(planes)))}]"


def parse(text: str, options: BenchmarkOptions) -> ProgramOutput:
    """Parse the only line of times. Several lines come from older releases, which run their own list of networks."""
    lines, runs = _LINE.findall(text), _RUNS.search(text)
    if runs is None or len(lines) != 1:
        raise ValueError(f"one line of times was expected, and {len(lines)} are there")
    low, high, mean = (positive_ns(float(value), "ms", "0.00 ms") for value in lines[0])
    return ProgramOutput(VendorSummary(None, low, high, min(max(mean, low), high), int(runs[1])))


def provider(text: str) -> str:
    """Return a fixed text, because the program does not print which kernels ran."""
    return "CPU, weights of zero, half precision where the processor has it"
