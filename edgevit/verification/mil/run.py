"""The interpreter of ML programs, and the session through which the worker process drives it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgevit_runtime.record import Session, TensorSpec

from .operators import OPERATORS, Arguments
from .program import Operation, Program, read_program


@dataclass(frozen=True)
class Result:
    """The values that one operation computed; floats have the dtype of the computation."""

    operation: Operation
    values: tuple[Tensor, ...]


class Arithmetic:
    """The dtype that floats are computed in, and whether each result is rounded to its declared type."""

    def __init__(self, dtype: torch.dtype, *, exact: bool) -> None:
        self._dtype, self._exact = dtype, exact

    def widen(self, value: Any) -> Any:
        """Return a float tensor in the dtype of the computation, any other value unchanged."""
        return value.to(self._dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def declare(self, value: Tensor, spec: TensorSpec) -> Tensor:
        """Return a value as its declaration demands: floats rounded, unless exact; integers as int64."""
        declared: torch.dtype = getattr(torch, spec.dtype)
        if declared.is_floating_point:
            return self.widen(value.to(self._dtype) if self._exact else value.to(declared))  # type: ignore[no-any-return]
        return value.to(declared) if declared == torch.bool else value.to(declared).to(torch.int64)

    def compute(self, operation: Operation, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Apply an operation to the values it names. Raises ValueError where a result has not its declared shape."""
        arguments = {name: [values[source] for source in sources] for name, sources in operation.arguments.items()}
        outcome = OPERATORS[operation.operator](Arguments(arguments))
        tensors = outcome if isinstance(outcome, tuple) else (outcome,)
        for tensor, spec in zip(tensors, operation.results, strict=True):
            if not _has_shape(tensor, spec):
                raise ValueError(f"{operation.label} declares {list(spec.shape)} and gives {list(tensor.shape)}")
        return tuple(self.declare(tensor, spec) for tensor, spec in zip(tensors, operation.results, strict=True))


def run_program(
    program: Program, inputs: Mapping[str, Tensor], *, dtype: torch.dtype = torch.float32, exact: bool = False
) -> Iterator[Result]:
    """Run the operations in order, each computed in `dtype` and rounded to its declared type, unless `exact`.

    With `exact`, only the constants stay rounded: they are the file's content. A value is released after the last
    operation that reads it. Raises ValueError where a result has not its declared shape.
    """
    arithmetic = Arithmetic(dtype, exact=exact)
    values: dict[str, Any] = {spec.name: arithmetic.declare(inputs[spec.name], spec) for spec in program.inputs}
    for operation, released in zip(program.operations, program.last_uses, strict=True):
        _widen_constants(operation, program.constants, values, arithmetic)
        result = Result(operation, arithmetic.compute(operation, values))
        values |= {spec.name: value for spec, value in zip(operation.results, result.values, strict=True)}
        for name in released:
            del values[name]
        yield result
        # The interpreter itself must not hold the result while the next operation computes.
        del result


def _widen_constants(
    operation: Operation, constants: Mapping[str, Any], values: dict[str, Any], arithmetic: Arithmetic
) -> None:
    """Add the constants that an operation reads, in the dtype of the computation, unless they are there already."""
    for names in operation.arguments.values():
        for name in names:
            if name not in values:
                values[name] = arithmetic.widen(constants[name])


def _has_shape(value: Tensor, spec: TensorSpec) -> bool:
    """Return whether a tensor has the declared shape; -1 admits every size."""
    sizes = tuple(value.shape)
    return len(sizes) == len(spec.shape) and all(d in (-1, s) for s, d in zip(sizes, spec.shape, strict=True))


def planar_image(value: Tensor) -> Tensor:
    """Return a raw image (1, H, W, 3) as float32 (1, 3, H, W), as the program reads it; any other tensor unchanged."""
    return value.permute(0, 3, 1, 2).float() if value.dtype == torch.uint8 else value


def _image_spec(spec: TensorSpec) -> TensorSpec:
    batch, channels, height, width = spec.shape
    return TensorSpec(spec.name, (batch, height, width, channels), "uint8")


class MilSession:
    """A program, evaluated in torch on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._program = read_program(path)
        self.engine_version: str = torch.__version__
        self.provider = "reference evaluator"
        images = self._program.images
        self.inputs = tuple(_image_spec(spec) if spec.name in images else spec for spec in self._program.inputs)
        self.outputs = self._program.outputs
        self._feeds: dict[str, Tensor] = {}
        self._results: dict[str, Tensor] = {}

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        for spec, raw in zip(self.inputs, tensors, strict=True):
            array = np.frombuffer(raw, spec.dtype).reshape(spec.at_batch(batch).shape)
            self._feeds[spec.name] = planar_image(torch.from_numpy(array.copy()))

    def run(self) -> None:
        """Compute once."""
        self._results = dict(self._feeds)  # an input may be an output
        output_names = {spec.name for spec in self.outputs}
        with torch.inference_mode():
            for result in run_program(self._program, self._feeds):
                for spec, value in zip(result.operation.results, result.values, strict=True):
                    if spec.name in output_names:
                        self._results[spec.name] = value

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        return tuple(self._results[s.name].to(getattr(torch, s.dtype)).numpy().tobytes() for s in self.outputs)


def load(path: Path, *, threads: int) -> Session:
    """Load a package. Raises UnsupportedError, naming the operation, where its operator is not implemented here."""
    return MilSession(path, threads)


@dataclass(frozen=True)
class Trace:
    """One executed operation: the greatest magnitude of its first result, whether all is finite, its seconds."""

    operation: Operation
    peak: float
    is_finite: bool
    seconds: float


def trace(path: Path, inputs: Mapping[str, Tensor]) -> list[Trace]:
    """Run a package on these inputs and return a trace of every operation, in order."""
    traces = []
    start = time.perf_counter()
    for result in run_program(read_program(path), inputs):
        seconds = time.perf_counter() - start
        peak = result.values[0].abs().max().item() if result.values[0].numel() else 0.0
        is_finite = all(bool(value.isfinite().all()) for value in result.values)
        traces.append(Trace(result.operation, float(peak), is_finite, seconds))
        start = time.perf_counter()
    return traces
