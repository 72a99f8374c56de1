"""Everything that a person wants to see of a fold: the counts before and after, what was done, and the proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgevit.count import Count, count
from edgevit.folding.inference_form import FoldReport, fold
from edgevit.folding.proof import Proof, compare, error_in


@dataclass(frozen=True)
class Evidence:
    """Counts are at batch 1, or at the only batch that the model takes."""

    before: Count
    after: Count
    report: FoldReport
    proof: Proof


def examine(model: nn.Module, inputs: Mapping[str, Tensor], seed: int = 0) -> Evidence:
    """Fold a model, count both forms and compare them on noise of the inputs' shapes."""
    generator = torch.Generator().manual_seed(seed)
    noise = tuple(_noise(item, generator) for item in inputs.values())
    folded = fold(model, noise)
    one = tuple(item[:1] for item in noise) if folded.report.batch_is_open else noise
    is_float32 = next(model.parameters()).dtype == torch.float32  # then this fold is the one to prove
    float32_error = compare(model, folded, noise) if is_float32 else error_in(torch.float32, model, noise)
    proof = Proof(error_in(torch.float64, model, noise), float32_error)
    return Evidence(count(model, *one), count(folded, *one), folded.report, proof)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator).to(like.dtype)
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype)
