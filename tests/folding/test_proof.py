"""The proof of a fold: its tolerances, and that it does not hold for a wrong fold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgevit.folding import prove
from edgevit.folding.proof import Proof
from edgevit.models import randomize
from support.saboteurs import wrong_epsilon


@pytest.mark.parametrize(
    ("float64", "float32", "passed"),
    [(1e-10, 1e-5, True), (2e-10, 0.0, False), (0.0, 2e-5, False), (math.nan, 0.0, False), (0.0, math.nan, False)],
)
def test_a_proof_holds_within_both_tolerances(float64: float, float32: float, passed: bool) -> None:
    assert Proof(float64, float32).passed is passed


def test_a_wrong_fold_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    randomize(model)
    inputs = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
    assert prove(model, inputs).passed
    wrong_epsilon(monkeypatch)
    assert not prove(model, inputs).passed
