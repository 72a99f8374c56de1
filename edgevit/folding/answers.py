"""Whether a model's own answers can prove anything: they are numbers, the same each time, and differ between inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from edgevit.errors import ModelError
from edgevit.folding.agreement import max_rel, outputs, worst

# Two runs of one model may add in another order.
_SAME = 1e-6
# A right fold rounds in other places than its model, many times.
ROUNDINGS = 100.0
_OTHER_INPUTS = "give inputs that the model is made for: --input-range 0,1, or --samples FILE.npy"


def require_answers(name: str, answers: Sequence[Sequence[Tensor]], again: Sequence[Tensor]) -> None:
    """Raise ModelError where the outputs of a model cannot be compared with anything.

    answers: the model's outputs on each sample. again: those on the first sample from a second run.
    """
    for number, answer in enumerate(answers, 1):
        for index, tensor in enumerate(answer):
            where = f"output {index}, on sample {number} of {len(answers)}"
            if bool(tensor.isnan().any()):
                raise ModelError(
                    f"{name} itself gives NaN", where=where, why="nothing can be compared", fix=_OTHER_INPUTS
                )
            if tensor.numel() and not bool(tensor.isfinite().any()):
                why = "nothing can be compared"
                raise ModelError(f"{name} itself gives no finite number", where=where, why=why, fix=_OTHER_INPUTS)
    for index, (first, second) in enumerate(zip(answers[0], again, strict=True)):
        if (difference := max_rel(first, second)) > _SAME:
            raise ModelError(
                f"{name} gives two answers to one input",
                where=f"output {index}",
                why=f"two runs differ by {difference:.1e} of it: something random is left on, such as a dropout",
                fix="turn it off in evaluation mode",
            )
    if len(answers) > 1 and all(_are_equal(answers[0], others) for others in answers[1:]):
        is_zero = not any(bool(tensor.any()) for tensor in answers[0])
        raise ModelError(
            f"nothing can be proven of {name}",
            why=f"its outputs are {'0' if is_zero else 'the same numbers'} on all {len(answers)} samples",
            fix="load trained weights: --weights FILE, or in the function that makes the model",
        )


def sensitivity(model: Callable[..., Any], inputs: Sequence[Tensor], steps: float = 1.0) -> float:
    """Return how far outputs move, by `max_rel`, when floating inputs change by so many steps of their last digit.

    Rounding anywhere in the model moves them about as far.
    """
    generator = torch.Generator().manual_seed(0)
    expected, moved = outputs(model, inputs), 0.0
    for _ in range(2):
        moved = max(moved, worst(expected, outputs(model, changed_in_last_digits(inputs, steps, generator))))
    return moved


def changed_in_last_digits(inputs: Sequence[Tensor], steps: float, generator: torch.Generator) -> list[Tensor]:
    """Return the inputs with every floating number so many steps of its last digit up or down, at random."""
    return [
        tensor
        * (1 + steps * torch.finfo(tensor.dtype).eps * torch.randn(tensor.shape, generator=generator).sign().to(tensor))
        if tensor.is_floating_point()
        else tensor
        for tensor in inputs
    ]


def _are_equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(a.shape == b.shape and bool((a == b).all()) for a, b in zip(first, second, strict=True))
