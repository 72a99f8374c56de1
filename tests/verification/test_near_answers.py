"""Where a model jumps, an engine's answer counts as right if the model gives it to almost the same input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevit.verification import GATES, Samples
from edgevit.verification.inputs import Arrays
from edgevit.verification.near_answers import NearAnswers


class HigherScored(nn.Module):
    """Gives one row of two, the one with the higher score; their scores are equal but for rounding on some samples."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (1, 4)."""
        score = x.sum((1, 2)) / 2
        other = x[:, :, ::2].sum((1, 2))
        return torch.where(score >= other, x[:, 0], 2 * x[:, 1])


def samples(*, extremes: int = 0) -> Samples:
    """Return three samples: on the first the two scores are decided, and on the others they are equal."""
    generator = np.random.default_rng(0)
    decided, *others = (generator.standard_normal((1, 2, 4)).astype("float32") for _ in range(3))
    for array in others:
        array[:, :, 1::2] = array[:, :, ::2]
    return Samples(((decided,), *((array,) for array in others)), "", 1, extremes)


def near(model: Callable[[Tensor], Tensor], given: Samples) -> tuple[NearAnswers, list[Arrays]]:
    answers: list[Arrays] = [(model(torch.from_numpy(array)).numpy(),) for (array,) in given.sets]
    return NearAnswers(model, given, answers), answers


@pytest.mark.parametrize("extremes", [0, 1])
def test_the_other_decision_between_equals_is_right(extremes: int) -> None:
    given = samples(extremes=extremes)
    answers_near, answers = near(HigherScored(), given)
    tied = given.sets[2][0]
    first, second = tied[:, 0], 2 * tied[:, 1]
    other = second if np.array_equal(answers[2][0], first) else first
    results: list[Arrays] = [*answers[:2], (np.multiply(other, 1 + 1e-6, dtype=np.float32),)]
    chosen, replaced = answers_near.nearest(results, GATES["fp32"])
    assert replaced == 1
    assert np.allclose(chosen[2][0], other, rtol=1e-4)
    assert all(chosen[number] is answers[number] for number in range(2)), "what agrees is compared as it was"


def test_an_answer_that_the_model_never_gives_stays_wrong() -> None:
    given = samples()
    answers_near, answers = near(HigherScored(), given)
    neither = given.sets[2][0].mean(1)
    assert answers_near.nearest([*answers[:2], (neither,)], GATES["fp32"])[1] == 0
    decided = given.sets[0][0]
    unchosen = decided[:, 0] if np.array_equal(answers[0][0], 2 * decided[:, 1]) else 2 * decided[:, 1]
    assert answers_near.nearest([(unchosen,), *answers[1:]], GATES["fp32"])[1] == 0, "a clear decision has one answer"


def test_a_smooth_model_has_no_other_answers_however_much_it_amplifies() -> None:
    """The error of a converter that changed an epsilon is not hidden behind rounding."""

    def normed(x: Tensor, eps: float = 1e-5) -> Tensor:
        return nn.functional.layer_norm(x, (4,), eps=eps)

    given = samples(extremes=2)
    dim = tuple((np.multiply(array[0], 1e-2, dtype=np.float32),) for array in given.sets)
    given = dataclasses.replace(given, sets=(*given.sets[:1], *dim[1:]))
    answers_near, _ = near(normed, given)
    wrong = [(normed(torch.from_numpy(array), 1e-6).numpy(),) for (array,) in given.sets]
    assert answers_near.nearest(wrong, GATES["fp32"])[1] == 0
