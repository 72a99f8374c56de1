"""LiteRT's (TensorFlow Lite's) benchmark_model, the native program, which is built for Android and Linux.

No wheel has it, so its output was not recorded here. This is written after the source of the program and of its
statistics (google-ai-edge/LiteRT, tflite/tools/benchmark/benchmark_model.cc; openxla, xla/tsl/util/stats_calculator.h,
commit 08df8c4 of tensorflow for the former), and after lines that people show of it.
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
_NO_LIMIT_S = 86_400  # by itself it would stop after 150 s; who calls it has a limit of his own
_LINE = re.compile(r"\bcount=(\d+) (.+)$", re.MULTILINE)  # of the warm-up, then of the runs
_VALUE = re.compile(r"(\w+)=([\d.]+(?:e[+-]?\d+)?)")
_ENDS = re.compile(r"Inference timings in us: Init: (\d+), First inference: (\d+),")
_XNNPACK = re.compile(r"(Explicitly applied|Created TensorFlow Lite) XNNPACK delegate")


def command() -> list[str] | None:
    """The program on the PATH."""
    found = shutil.which("benchmark_model")
    return [found] if found else None


def model(artifact: Artifact) -> Path:
    """The payload."""
    return artifact.folder / artifact.payload


def arguments(artifact: Artifact, asked: BenchmarkOptions, model: str) -> list[str]:
    """On the processor with XNNPACK, for a number of runs and for a time, whichever takes longer."""
    how: dict[str, object] = {"graph": model, "num_threads": asked.threads, "use_xnnpack": "true"}
    how |= {"num_runs": asked.runs, "min_secs": asked.seconds, "max_secs": _NO_LIMIT_S}
    how |= {"warmup_runs": asked.warmup_runs, "warmup_min_secs": _WARM_UP_S}
    return [f"--{name}={value}" for name, value in how.items()]


def parse(text: str, asked: BenchmarkOptions) -> ProgramOutput:
    """Its last line of statistics, of whole microseconds, and the line of its end.

    Older releases print no median: then it is a mean. The mean has six digits, so that it may be rounded to
    beyond the smallest or largest sample, and is held to them.
    """
    lines, ends = _LINE.findall(text), _ENDS.search(text)
    if len(lines) < 2 or ends is None:
        raise ValueError("the lines `count=` of warm-up and runs, and `Inference timings in us`, are not all there")
    found = {name: float(value) for name, value in _VALUE.findall(lines[-1][1])}
    if "curr" not in found:
        raise ValueError(f"no times are in {lines[-1][1]!r}")
    least, most = found.get("min", found["curr"]), found.get("max", found["curr"])  # all the same: one number
    mean = min(max(found.get("avg", found["curr"]), least), most)
    centre = {name: positive_ns(found[name], "us", f"{name}=0") for name in ("median", "p95") if name in found}
    times = [positive_ns(value, "us", "a time of 0 us") for value in (least, most, mean)]
    told = VendorSummary(centre.get("median"), times[0], times[1], times[2], int(lines[-1][0]), centre.get("p95"))
    load_ns, first_ns = (positive_ns(float(value), "us", "0 us") for value in ends.groups())
    return ProgramOutput(told, load_ns, first_ns)


def provider(text: str) -> str:
    """XNNPACK, where it says that this has taken the model, or a part of it."""
    return "XNNPACK" if _XNNPACK.search(text) else "LiteRT's own kernels"
