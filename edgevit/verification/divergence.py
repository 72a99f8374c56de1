"""Localises half-precision failures: the first operation of a program that overflows, or whose error explodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from edgevit.verification.mil import Operation, Result, planar_image, read_program, run_program

# Half a unit in the last place of half precision is 2^-11 of a value: no input is known more exactly.
_ROUNDING = 2.0**-11


@dataclass(frozen=True)
class Divergence:
    """The first operation whose result diverges. Errors are relative: |rounded - exact| / |exact|, Euclidean norms."""

    operation: Operation
    kind: Literal["overflow", "explosion"]
    error: float  # of its result; infinite for an overflow
    error_before: float  # the greatest error of its arguments
    peak: float  # greatest magnitude of its result, computed exactly

    @property
    def label(self) -> str:
        """`mul 'mul_3_cast_fp16' (operation 88) overflows: exact values reach 1.2e+05`."""
        if self.kind == "overflow":
            return f"{self.operation.label} overflows: exact values reach {self.peak:.1e}"
        return f"error explodes in {self.operation.label}: from {self.error_before:.1e} to {self.error:.1e}"


def first_divergence(
    path: Path, tensors: Sequence[Tensor], *, limit: float = 0.01, growth: float = 8.0
) -> Divergence | None:
    """Return the first operation of a package that diverges from the same program computed in float64, or None.

    An overflow is a value that is finite when computed exactly and not finite as declared. An error explodes when it
    exceeds `limit` and is more than `growth` times the greatest error of the operation's arguments. Arguments count
    with an error of at least 2^-11. A limit of 0.01 is about the amplitude that the fp16 gate admits. An error that
    grows slowly over many operations has no first divergence. `tensors` are the inputs in the program's order. Raises
    UnsupportedError as load() does.
    """
    program = read_program(path)
    inputs = {spec.name: planar_image(tensor) for spec, tensor in zip(program.inputs, tensors, strict=True)}
    errors: dict[str, float] = {}
    with torch.inference_mode():
        rounded_run = run_program(program, inputs, dtype=torch.float64)
        exact_run = run_program(program, inputs, dtype=torch.float64, exact=True)
        for rounded, exact in zip(rounded_run, exact_run, strict=True):
            if divergence := _divergence(rounded, exact, errors, limit, growth):
                return divergence
    return None


def _divergence(
    rounded: Result, exact: Result, errors: dict[str, float], limit: float, growth: float
) -> Divergence | None:
    """Record the errors of one operation's results by name, and return the first that is an overflow or explosion."""
    operation = rounded.operation
    names = [name for argument in operation.arguments.values() for name in argument]
    before = max((errors.get(name, 0.0) for name in names), default=0.0)
    for spec, a, b in zip(operation.results, exact.values, rounded.values, strict=True):
        if not a.is_floating_point():
            continue
        errors[spec.name] = error = _relative_error(a, b)
        peak = a.abs().max().item() if a.numel() else 0.0
        if math.isinf(error):
            return Divergence(operation, "overflow", error, before, peak)
        # A number near the middle between two steps may go either way, and that is no defect of half precision.
        if operation.operator != "dequantize" and error > max(limit, growth * max(before, _ROUNDING)):
            return Divergence(operation, "explosion", error, before, peak)
    return None


def _relative_error(exact: Tensor, rounded: Tensor) -> float:
    """Return |rounded - exact| / |exact| over the finite exact values; infinite if one of these is not finite rounded.

    An error where the exact values are all zero is 1.
    """
    is_finite = exact.isfinite()
    a, b = exact[is_finite], rounded[is_finite]
    if not bool(b.isfinite().all()):
        return math.inf
    noise, signal = float((a - b).norm()), float(a.norm())
    return 0.0 if noise == 0 else noise / signal if signal else 1.0
