"""The evidence of a fold: the counts before and after, the rewrites applied, and the proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgevit.count import Count, count
from edgevit.folding.inference_form import FoldReport
from edgevit.folding.proof import Proof, fold_and_prove


@dataclass(frozen=True)
class Evidence:
    """The counts, the report and the proof of a fold; counts are at batch 1, or at the only batch the model takes."""

    before: Count
    after: Count
    report: FoldReport
    proof: Proof


def examine(model: nn.Module, inputs: Mapping[str, Tensor], seed: int = 0) -> Evidence:
    """Fold a model, count both forms and compare them on noise of the inputs' shapes."""
    generator = torch.Generator().manual_seed(seed)
    noise = tuple(_noise(tensor, generator) for tensor in inputs.values())
    folded, proof = fold_and_prove(model, noise)
    single = tuple(tensor[:1] for tensor in noise) if folded.report.batch_is_open else noise
    return Evidence(count(model, *single), count(folded, *single), folded.report, proof)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator).to(like.dtype)
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype)
