"""OpenVINO's benchmark_app, which comes with the `openvino` wheel."""

from __future__ import annotations

from pathlib import Path

from edgevit.devices.vendor_tools import BenchmarkOptions, ProgramOutput, python_command, read
from edgevit.records.artifact import Artifact

DISTRIBUTION = "openvino"
DIFFERS = ""
_PRECISIONS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16"}  # that the recipe's load() pins
_TYPES = {"float32": "f32", "float16": "f16", "uint8": "u8", "int32": "i32", "int64": "i64"}


def command() -> list[str] | None:
    """The script of the wheel. Like the recipe's load() it sends no events: telemetry is told that it is not there."""
    silent = "import sys; sys.modules.setdefault('openvino_telemetry', None)"
    return python_command(DISTRIBUTION, "benchmark_app", silent)


def model(artifact: Artifact) -> Path:
    """The network; its weights lie beside it."""
    return next(iter(sorted((artifact.folder / artifact.payload).glob("*.xml"))))


def arguments(artifact: Artifact, asked: BenchmarkOptions, model: str) -> list[str]:
    """One synchronous request, as our worker has; inputs of the model's own type, which are filled once.

    Without -ip what looks like an image is taken for uint8, and a conversion is put in front of the model.
    """
    kinds = {spec.dtype for spec in artifact.inputs}
    if len(kinds) != 1 or not kinds <= set(_TYPES):
        raise ValueError(f"it gives all inputs one type, and the model's are {sorted(kinds)}")
    shapes = ",".join(f"{spec.name}{list(spec.at_batch(asked.batch).shape)}" for spec in artifact.inputs)
    open_batch = ["-data_shape", shapes.replace(" ", "")] if artifact.dynamic_batch else []
    how = {"-d": "CPU", "-hint": "none", "-nstreams": "1", "-nthreads": f"{asked.threads}", "-api": "sync"}
    how |= {"-infer_precision": _PRECISIONS[artifact.precision], "-ip": _TYPES[kinds.pop()]}
    how |= {"-niter": f"{asked.runs}", "-t": f"{asked.seconds}"}
    return ["-m", model, *(word for pair in how.items() for word in pair), *open_batch, "-inference_only"]


def parse(text: str, asked: BenchmarkOptions) -> ProgramOutput:
    """The lines of its last step."""
    median, least, most, mean = (rf"{name}: +([\d.]+ [mu]s)$" for name in ("Median", "Min", "Max", "Average"))
    return read(text, median=median, least=least, most=most, mean=mean, runs=r"Count: +(\d+) iterations")
