"""The proof that a folded network is the trained one: the same outputs, in float64 and in float32."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgevit.folding.inference_form import Folded, fold

# A right fold is about 1e-15 in float64 and 1e-7 in float32; a wrong epsilon is 1e-2 with a cosine of 1.000.
FLOAT64_TOLERANCE = 1e-10
FLOAT32_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Proof:
    """Largest absolute difference over the reference's largest magnitude, the worst over outputs, per dtype."""

    float64_max_rel: float
    float32_max_rel: float
    float64_tolerance: float = FLOAT64_TOLERANCE
    float32_tolerance: float = FLOAT32_TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether both errors are within tolerance; a NaN is not."""
        good64 = self.float64_max_rel <= self.float64_tolerance
        return good64 and self.float32_max_rel <= self.float32_tolerance


def max_rel(reference: Tensor, other: Tensor) -> float:
    """max |reference - other| / max |reference|; infinite where the shapes differ or a value is not finite."""
    a, b = reference.detach().double(), other.detach().double()
    if a.shape != b.shape or not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        return math.inf
    if not a.numel():
        return 0.0
    scale, difference = float(a.abs().max()), float((a - b).abs().max())
    return difference / scale if scale > 0 else math.inf if difference > 0 else 0.0


def prove(model: nn.Module, inputs: Sequence[Tensor]) -> Proof:
    """Fold copies of the model in float64 and float32 and compare each with its own unfolded form on `inputs`."""
    return Proof(error_in(torch.float64, model, inputs), error_in(torch.float32, model, inputs))


def error_in(dtype: torch.dtype, model: nn.Module, inputs: Sequence[Tensor]) -> float:
    """The worst `max_rel` of a fold in one dtype, against the unfolded form in that dtype."""
    held = next((tensor.dtype for tensor in model.parameters()), dtype)
    trained = model if held == dtype else copy.deepcopy(model).to(dtype)
    given = tuple(item.to(dtype) if item.is_floating_point() else item for item in inputs)
    return compare(trained, fold(trained, given), given)


def compare(trained: nn.Module, folded: Folded, inputs: Sequence[Tensor]) -> float:
    """The worst `max_rel` over the outputs of the two on the same inputs; infinite where there is none to compare."""
    with torch.inference_mode():
        pairs = zip(outputs(trained, inputs), outputs(folded, inputs), strict=True)
        return max((max_rel(reference, other) for reference, other in pairs), default=math.inf)


def outputs(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A model's outputs as a flat tuple of tensors."""
    result = model(*inputs)
    leaves, _ = torch.utils._pytree.tree_flatten(result)
    return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
