"""The evidence of a fold: the counts before and after, the rewrites applied, and the proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgevit.count import Count, count
from edgevit.errors import ModelError
from edgevit.folding.agreement import outputs
from edgevit.folding.answers import require_answers
from edgevit.folding.inference_form import FoldReport
from edgevit.folding.model_code import FAILURES, first_line
from edgevit.folding.proof import Proof, fold_and_prove
from edgevit.folding.restoration import unchanged


@dataclass(frozen=True)
class Evidence:
    """The counts, the report and the proof of a fold; counts are at batch 1, or at the only batch the model takes."""

    before: Count
    after: Count
    report: FoldReport
    proof: Proof


def examine(
    model: nn.Module, inputs: Mapping[str, Tensor], seed: int = 0, value_range: tuple[float, float] | None = None
) -> Evidence:
    """Fold a model, count both forms and compare them on noise of the inputs' shapes, standard normal or in a range.

    Raises ModelError where the model's own outputs can prove nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    noise, others = (tuple(_noise(tensor, generator, value_range) for tensor in inputs.values()) for _ in range(2))
    with unchanged(model):
        _require_answers(model, inputs, (noise, others, noise))
        folded, proof = fold_and_prove(model, noise)
        single = tuple(tensor[:1] for tensor in noise) if folded.report.batch_is_open else noise
        return Evidence(count(model, *single), count(folded, *single), folded.report, proof)


def _require_answers(model: nn.Module, inputs: Mapping[str, Tensor], samples: Sequence[tuple[Tensor, ...]]) -> None:
    name = type(model).__name__
    try:
        with torch.inference_mode():
            answers = [outputs(model, sample) for sample in samples]
    except FAILURES as error:
        shapes = ", ".join(f"{key} {tuple(tensor.shape)} {tensor.dtype}" for key, tensor in inputs.items())
        problem = f"{name} does not run on these inputs"
        fix = "--input-size, or a `card` on the module that tells its inputs"
        raise ModelError(problem, where=shapes, why=first_line(error), fix=fix) from error
    require_answers(name, answers[:2], answers[2])


def _noise(like: Tensor, generator: torch.Generator, value_range: tuple[float, float] | None) -> Tensor:
    if like.is_floating_point() and value_range is not None:
        lowest, highest = value_range
        return (lowest + (highest - lowest) * torch.rand(like.shape, generator=generator)).to(like.dtype)
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator).to(like.dtype)
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype)
