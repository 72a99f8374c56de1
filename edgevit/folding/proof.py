"""Proof that a folded network computes the trained one: the same outputs, in float64 and in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgevit.folding.agreement import cast, compare, in_dtype, outputs
from edgevit.folding.answers import ROUNDINGS, sensitivity
from edgevit.folding.inference_form import Folded, fold, fold_in_dtypes
from edgevit.folding.one_dtype import OneDtype
from edgevit.folding.restoration import unchanged

# A right fold is about 1e-15 in float64 and 1e-7 in float32; a wrong epsilon is 1e-2 with a cosine of 1.000.
FLOAT64_TOLERANCE = 1e-10
FLOAT32_TOLERANCE = 1e-5
# Where the model amplifies rounding. A mistake is larger; beside float64, float32 need not prove anything.
LARGEST_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
# failed: more than rounding makes the fold another function. not_proven: rounding alone may do as much in the model.
ProofStatus = Literal["proven", "not_proven", "failed"]


@dataclass(frozen=True)
class Proof:
    """Largest absolute difference over the reference's largest magnitude, the worst over outputs, per dtype.

    None in a dtype in which the model cannot run, because it makes tensors of another one in its code. Where the model
    amplifies rounding, a tolerance is what rounding alone may cause, up to a limit. rounding: what it may cause without
    that limit; 0: it was not computed, because the difference is within the usual tolerance.
    """

    float64_max_rel: float | None
    float32_max_rel: float | None
    float64_tolerance: float = FLOAT64_TOLERANCE
    float32_tolerance: float = FLOAT32_TOLERANCE
    float64_rounding: float = 0.0
    float32_rounding: float = 0.0

    @property
    def status(self) -> ProofStatus:
        """Whether every difference is within tolerance, or at least within what rounding does in the model itself."""
        every = (
            (self.float64_max_rel, self.float64_tolerance, self.float64_rounding),
            (self.float32_max_rel, self.float32_tolerance, self.float32_rounding),
        )
        differences = [(error, limit, rounding) for error, limit, rounding in every if error is not None]
        # A NaN is within no limit.
        if not all(error <= max(limit, rounding) for error, limit, rounding in differences):
            return "failed"
        proven = bool(differences) and all(error <= limit for error, limit, _ in differences)
        return "proven" if proven else "not_proven"

    @property
    def passed(self) -> bool:
        """Return whether there is a difference, and each is within tolerance."""
        return self.status == "proven"


def prove(model: nn.Module, inputs: Sequence[Tensor]) -> Proof:
    """Fold a model and prove the fold, see fold_and_prove."""
    return fold_and_prove(model, inputs)[1]


def fold_and_prove(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Folded, Proof]:
    """Fold a model, and compare its fold in float64 and float32 with the model itself in that dtype on `inputs`.

    One capture serves every dtype that it holds in. A network of several dtypes is computed in one alone, so that its
    own rounding hides nothing. Where the shared capture is out of tolerance, a copy of the model in that dtype is
    captured and folded for itself.
    """
    dtype = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    with unchanged(model):
        folded, folds = fold_in_dtypes(model, cast(inputs, dtype), (torch.float64, torch.float32))
        mixed = not folded.follows_dtype
        tolerances = {torch.float64: FLOAT64_TOLERANCE, torch.float32: FLOAT32_TOLERANCE}
        subjects = {kind: _Subject(kind, _in(kind, model, mixed), cast(inputs, kind), mixed) for kind in tolerances}
        errors = {kind: subjects[kind].error(folds.get(kind), limit) for kind, limit in tolerances.items()}
        roundings = dict.fromkeys(tolerances, 0.0)
        for kind, error in errors.items():
            if error is not None and error > tolerances[kind]:
                roundings[kind] = subjects[kind].rounding()
                proves = kind is torch.float64 or errors[torch.float64] is None
                largest = LARGEST_TOLERANCE[kind] if proves else roundings[kind]
                tolerances[kind] = max(tolerances[kind], min(roundings[kind], largest))
    return folded, Proof(errors[torch.float64], errors[torch.float32], *tolerances.values(), *roundings.values())


def _in(dtype: torch.dtype, model: nn.Module, mixed: bool) -> nn.Module | None:
    """Return the model in a dtype: itself if that is its own; None if it cannot be copied."""
    parameter = next(model.parameters(), None)
    is_its_own = parameter is None or parameter.dtype == dtype
    return model if is_its_own and not mixed else in_dtype(model, dtype)


@dataclass(frozen=True)
class _Subject:
    """A model in one dtype, and its inputs in it. There may be no such copy."""

    dtype: torch.dtype
    model: nn.Module | None
    inputs: tuple[Tensor, ...]
    mixed: bool

    def error(self, folded: Folded | None, limit: float) -> float | None:
        """Return the worst `max_rel` of the fold, from the shared capture if that is within the limit.

        None where the model does not run in the dtype.
        """
        if self.model is None:
            return None
        error = None
        if folded is not None:
            # What computes in one dtype under the mode need not run without it.
            with contextlib.suppress(RuntimeError), self._alone():
                error = compare(self.model, folded, self.inputs)
            if error is not None and error <= limit:
                return error
        try:
            with torch.inference_mode():
                outputs(self.model, self.inputs)
            return compare(self.model, fold(self.model, self.inputs, check=False), self.inputs)
        except RuntimeError:
            return error

    def rounding(self) -> float:
        """Return the error that rounding alone may cause; 0 where the model does not run in the dtype."""
        try:
            with torch.inference_mode(), self._alone():
                return 0.0 if self.model is None else ROUNDINGS * sensitivity(self.model, self.inputs)
        except RuntimeError:
            return 0.0

    def _alone(self) -> contextlib.AbstractContextManager[Any]:
        """Return the mode in which a network of several dtypes computes in this one."""
        return OneDtype(self.dtype) if self.mixed else contextlib.nullcontext()
