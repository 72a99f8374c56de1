"""Proof that a folded network computes the trained one: the same outputs, in float64 and in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgevit.folding.agreement import cast, compare, copied, outputs
from edgevit.folding.answers import ROUNDINGS, sensitivity
from edgevit.folding.inference_form import Folded, fold, fold_in_dtypes

# A right fold is about 1e-15 in float64 and 1e-7 in float32; a wrong epsilon is 1e-2 with a cosine of 1.000.
FLOAT64_TOLERANCE = 1e-10
FLOAT32_TOLERANCE = 1e-5
# Where the model amplifies rounding. A mistake is larger in float64; in float32 such a model proves nothing.
LARGEST_TOLERANCE = {torch.float64: 1e-7, torch.float32: float("inf")}


@dataclass(frozen=True)
class Proof:
    """Largest absolute difference over the reference's largest magnitude, the worst over outputs, per dtype.

    None in a dtype in which the model cannot run, because it names another one in its code. Where the model amplifies
    rounding, a tolerance is what rounding alone may cause.
    """

    float64_max_rel: float | None
    float32_max_rel: float | None
    float64_tolerance: float = FLOAT64_TOLERANCE
    float32_tolerance: float = FLOAT32_TOLERANCE

    @property
    def passed(self) -> bool:
        """Return whether there is an error, and each is within tolerance; a NaN is not."""
        limits = ((self.float64_max_rel, self.float64_tolerance), (self.float32_max_rel, self.float32_tolerance))
        proven = [error <= limit for error, limit in limits if error is not None]
        return bool(proven) and all(proven)


def prove(model: nn.Module, inputs: Sequence[Tensor]) -> Proof:
    """Fold a model and prove the fold, see fold_and_prove."""
    return fold_and_prove(model, inputs)[1]


def fold_and_prove(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Folded, Proof]:
    """Fold a model, and compare its fold in float64 and float32 with the model itself in that dtype on `inputs`.

    One capture serves every dtype that it holds in. Where the graph depends on its dtype, or the shared capture is out
    of tolerance, a copy of the model in that dtype is captured and folded for itself.
    """
    dtype = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    folds = fold_in_dtypes(model, cast(inputs, dtype), (torch.float64, torch.float32))
    tolerances = {torch.float64: FLOAT64_TOLERANCE, torch.float32: FLOAT32_TOLERANCE}
    errors = {kind: _error(kind, model, inputs, folds.get(kind), limit) for kind, limit in tolerances.items()}
    for kind, error in errors.items():
        if error is not None and error > tolerances[kind]:
            tolerances[kind] = max(tolerances[kind], min(_rounding(kind, model, inputs), LARGEST_TOLERANCE[kind]))
    return folds[dtype], Proof(errors[torch.float64], errors[torch.float32], *tolerances.values())


def _error(
    dtype: torch.dtype, model: nn.Module, inputs: Sequence[Tensor], folded: Folded | None, limit: float
) -> float | None:
    """Return the worst `max_rel` of the fold in one dtype, from the shared capture if that is within the limit.

    None where the model does not run in it.
    """
    parameter = next(model.parameters(), None)
    trained = model if parameter is None or parameter.dtype == dtype else copied(model).to(dtype)
    samples = cast(inputs, dtype)
    try:
        with torch.inference_mode():
            outputs(trained, samples)
    except RuntimeError:
        return None
    if folded is not None and (error := compare(trained, folded, samples)) <= limit:
        return error
    return compare(trained, fold(trained, samples, check=False), samples)


def _rounding(dtype: torch.dtype, model: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Return the error that rounding alone may cause in a dtype; 0 where the model does not run in it."""
    try:
        with torch.inference_mode():
            return ROUNDINGS * sensitivity(copied(model).to(dtype), cast(inputs, dtype))
    except RuntimeError:
        return 0.0
