"""Answers that a model itself gives to inputs changed in their last digits.

A model that keeps the highest of several scores jumps where two of them are almost equal. An engine that rounds in
other places may decide otherwise there, and is as right. So its answer is compared with each that the model gives to
almost the same input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgevit.folding.agreement import outputs
from edgevit.folding.answers import changed_in_last_digits
from edgevit.verification.compare import Gate, compare
from edgevit.verification.inputs import Arrays, Samples

# Rounding inside a deep network moves its scores as far as so many roundings of its input. A smooth output then moves
# by less than a tenth of the gate.
ROUNDINGS = (1.0, 10.0, 30.0, 100.0)
# Of each number of roundings: draws until the model is seen to jump, and draws for a model that does. Three decisions
# between equals have eight outcomes.
_FIRST_DRAWS, _DRAWS = 2, 12


class NearAnswers:
    """A model's answers to its samples and near them, each computed when it is asked for first."""

    def __init__(self, model: Callable[..., Any], samples: Samples, answers: Sequence[Arrays]) -> None:
        self._model, self._samples, self._answers = model, samples, answers
        self._near: dict[int, list[Arrays]] = {}

    def nearest(self, computed: Sequence[Arrays], gate: Gate) -> tuple[list[Arrays], int]:
        """Return the answers to compare an engine's results with, and how many of them are those to changed inputs.

        It gives up at the first sample that no answer fits.
        """
        chosen, replaced, ordinary = list(self._answers), 0, len(self._answers) - self._samples.extremes
        for number, (answer, result) in enumerate(zip(self._answers, computed, strict=True)):
            limits = gate if number < ordinary else gate.for_extremes

            def fits(candidate: Arrays, result: Arrays = result, limits: Gate = limits) -> bool:
                return compare("", "", [candidate], [result], limits).passed

            if fits(answer):
                continue
            other = next(filter(fits, self._jumps(number, limits)), None)
            if other is None:
                break
            chosen[number] = other
            replaced += 1
        return chosen, replaced

    def _jumps(self, number: int, limits: Gate) -> list[Arrays]:
        """Return the model's answers near a sample that are not its answer to the sample."""
        if number not in self._near:
            generator = torch.Generator().manual_seed(0)
            self._near[number] = self._draw(number, _FIRST_DRAWS, generator, limits)
            if self._near[number]:
                self._near[number] += self._draw(number, _DRAWS - _FIRST_DRAWS, generator, limits)
        return self._near[number]

    def _draw(self, number: int, draws: int, generator: torch.Generator, limits: Gate) -> list[Arrays]:
        tensors = list(map(torch.from_numpy, self._samples.sets[number]))
        answers = list[Arrays]()
        with torch.inference_mode():
            for roundings in ROUNDINGS * draws:
                leaves = outputs(self._model, changed_in_last_digits(tensors, roundings, generator))
                answers.append(tuple(leaf.float().numpy() for leaf in leaves))
        return [near for near in answers if not compare("", "", [self._answers[number]], [near], limits).passed]
