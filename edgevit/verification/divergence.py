"""Where half precision goes wrong: the first operation of a program that overflows, or whose error explodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from edgevit.verification.mil import Step, as_given, read_program, run_program

# Half a unit in the last place of half precision is 2^-11 of a value: no input is known better than that.
_ROUNDING = 2.0**-11


@dataclass(frozen=True)
class Divergence:
    """The operation to blame, and how: errors are relative, |found - exact| over |exact| as Euclidean norms."""

    step: Step
    kind: Literal["overflow", "explosion"]
    error: float  # of its result; infinite for an overflow
    error_before: float  # the greatest of what it was given
    peak: float  # greatest magnitude of its result, computed exactly

    @property
    def says(self) -> str:
        """`mul 'mul_3_cast_fp16' (operation 88) overflows: exact values reach 1.2e+05`."""
        if self.kind == "overflow":
            return f"{self.step.says} overflows: exact values reach {self.peak:.1e}"
        return f"error explodes in {self.step.says}: from {self.error_before:.1e} to {self.error:.1e}"


def first_divergence(
    path: Path, given: Sequence[Tensor], *, limit: float = 0.01, growth: float = 8.0
) -> Divergence | None:
    """The first operation of a package whose result diverges from the same program computed in float64 throughout.

    It overflows where a value that is finite when computed exactly is not finite as declared. Its error explodes where
    it is above `limit` and more than `growth` times the greatest error of what the operation was given, of which 2^-11
    at least is taken for granted. 0.01 is about the amplitude that the fp16 gate lets through. None: nothing does
    either; an error that creeps up over many operations is no one's fault. `given` are the inputs in the program's
    order. Raises UnsupportedError as load() does.
    """
    program = read_program(path)
    inputs = {spec.name: as_given(tensor) for spec, tensor in zip(program.inputs, given, strict=True)}
    wide = torch.float64
    errors: dict[str, float] = {}
    with torch.inference_mode():
        found = run_program(program, inputs, wide=wide)
        exact = run_program(program, inputs, wide=wide, exact=True)
        for rounded, true in zip(found, exact, strict=True):
            names = [name for given in rounded.step.arguments.values() for name in given]
            before = max((errors.get(name, 0.0) for name in names), default=0.0)
            for spec, a, b in zip(rounded.step.results, true.values, rounded.values, strict=True):
                if not a.is_floating_point():
                    continue
                errors[spec.name] = error = _error(a, b)
                peak = a.abs().max().item() if a.numel() else 0.0
                if math.isinf(error):
                    return Divergence(rounded.step, "overflow", error, before, peak)
                if error > max(limit, growth * max(before, _ROUNDING)):
                    return Divergence(rounded.step, "explosion", error, before, peak)
    return None


def _error(exact: Tensor, found: Tensor) -> float:
    """Over the values that are finite when exact; infinite where such a one is not finite as found."""
    known = exact.isfinite()
    a, b = exact[known], found[known]
    if not bool(b.isfinite().all()):
        return math.inf
    noise, signal = float((a - b).norm()), float(a.norm())
    return 0.0 if noise == 0 else noise / signal if signal else 1.0
