"""OpenVINO's benchmark_app, which is in the `openvino` wheel."""

from __future__ import annotations

from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, python_command, read
from edgevit.records.artifact import Artifact

DISTRIBUTION = "openvino"
DIFFERS = ""
_PRECISIONS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16"}  # as the recipe's load() pins them
_TYPES = {"float32": "f32", "float16": "f16", "uint8": "u8", "int32": "i32", "int64": "i64"}


def command() -> list[str] | None:
    """Return the wheel's script as a command. Telemetry is hidden as in the recipe's load(), so it sends no events."""
    silent = "import sys; sys.modules.setdefault('openvino_telemetry', None)"
    return python_command(DISTRIBUTION, "benchmark_app", silent)


def model(artifact: Artifact) -> Path:
    """Return the network's file; the weights' file is beside it."""
    return next(iter(sorted((artifact.folder / artifact.payload).glob("*.xml"))))


def arguments(artifact: Artifact, options: BenchmarkOptions, model: str) -> list[str]:
    """Return arguments for one synchronous request, as our worker has, and inputs of the model's own type.

    Without -ip the program takes image-like inputs for uint8, and puts a conversion in front of the model.
    """
    kinds = {spec.dtype for spec in artifact.inputs}
    if len(kinds) != 1 or not kinds <= set(_TYPES):
        raise ValueError(f"it gives all inputs one type, and the model's are {sorted(kinds)}")
    shapes = ",".join(f"{spec.name}{list(spec.at_batch(options.batch).shape)}" for spec in artifact.inputs)
    open_batch = ["-data_shape", shapes.replace(" ", "")] if artifact.dynamic_batch else []
    flags = {"-d": "CPU", "-hint": "none", "-nstreams": "1", "-nthreads": f"{options.threads}", "-api": "sync"}
    flags |= {"-infer_precision": _PRECISIONS[artifact.precision], "-ip": _TYPES[kinds.pop()]}
    flags |= {"-niter": f"{options.runs}", "-t": f"{options.seconds}"}
    return ["-m", model, *(word for pair in flags.items() for word in pair), *open_batch, "-inference_only"]


def parse(text: str, options: BenchmarkOptions) -> ProgramOutput:
    """Parse the lines of the program's last step."""
    median, low, high, mean = (rf"{name}: +([\d.]+ [mu]s)$" for name in ("Median", "Min", "Max", "Average"))
    return read(text, median=median, minimum=low, maximum=high, mean=mean, runs=r"Count: +(\d+) iterations")
