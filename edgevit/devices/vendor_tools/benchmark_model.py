"""LiteRT's (TensorFlow Lite's) benchmark_model, a native program for Android and Linux.

No wheel has it, so its output was not recorded here. This module follows the source of the program and of its
statistics (google-ai-edge/LiteRT, tflite/tools/benchmark/benchmark_model.cc; openxla, xla/tsl/util/stats_calculator.h,
commit 08df8c4 of tensorflow for the former), and published lines of its output.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, VendorSummary, positive_ns
from edgevit.records.artifact import Artifact

DISTRIBUTION = ""
DIFFERS = "feeds noise of its own; the same kernels (XNNPACK), without Python around them"
AS_VERIFIED, COUNTS_RUNS = True, False
_WARM_UP_S = 0.5
_NO_LIMIT_S = 86_400  # the program's default limit is 150 s; the caller has its own limit
_LINE = re.compile(r"\bcount=(\d+) (.+)$", re.MULTILINE)  # of the warm-up, then of the runs
_VALUE = re.compile(r"(\w+)=([\d.]+(?:e[+-]?\d+)?)")
_ENDS = re.compile(r"Inference timings in us: Init: (\d+), First inference: (\d+),")
_XNNPACK = re.compile(r"(Explicitly applied|Created TensorFlow Lite) XNNPACK delegate")


def command() -> list[str] | None:
    """Return the program on the PATH."""
    program = shutil.which("benchmark_model")
    return [program] if program else None


def model(artifact: Artifact) -> Path:
    """Return the payload."""
    return artifact.folder / artifact.payload


def arguments(artifact: Artifact, options: BenchmarkOptions, model: str) -> list[str]:
    """Return arguments for the processor with XNNPACK, and for at least this number of runs and this time."""
    flags: dict[str, object] = {"graph": model, "num_threads": options.threads, "use_xnnpack": "true"}
    flags |= {"num_runs": options.runs, "min_secs": options.seconds, "max_secs": _NO_LIMIT_S}
    flags |= {"warmup_runs": options.warmup_runs, "warmup_min_secs": _WARM_UP_S}
    return [f"--{name}={value}" for name, value in flags.items()]


def parse(text: str, options: BenchmarkOptions) -> ProgramOutput:
    """Parse the last line of statistics, in whole microseconds, and the line of the program's end.

    Older releases print a mean and no median. The mean has six digits, so it may be rounded beyond the smallest or
    largest sample; it is clamped to them.
    """
    lines, ends = _LINE.findall(text), _ENDS.search(text)
    if len(lines) < 2 or ends is None:
        raise ValueError("the lines `count=` of warm-up and runs, and `Inference timings in us`, are not all there")
    values = {name: float(value) for name, value in _VALUE.findall(lines[-1][1])}
    if "curr" not in values:
        raise ValueError(f"no times are in {lines[-1][1]!r}")
    # The program prints one number where all samples are the same.
    minimum, maximum = values.get("min", values["curr"]), values.get("max", values["curr"])
    mean = min(max(values.get("avg", values["curr"]), minimum), maximum)
    centre = {name: positive_ns(values[name], "us", f"{name}=0") for name in ("median", "p95") if name in values}
    times = [positive_ns(value, "us", "a time of 0 us") for value in (minimum, maximum, mean)]
    summary = VendorSummary(centre.get("median"), times[0], times[1], times[2], int(lines[-1][0]), centre.get("p95"))
    load_ns, first_ns = (positive_ns(float(value), "us", "0 us") for value in ends.groups())
    return ProgramOutput(summary, load_ns, first_ns)


def provider(text: str) -> str:
    """Return XNNPACK where the output says that it runs the model or a part of it, else LiteRT's own kernels."""
    return "XNNPACK" if _XNNPACK.search(text) else "LiteRT's own kernels"
