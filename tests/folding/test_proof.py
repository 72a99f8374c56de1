"""The proof of a fold: its tolerances, and that it does not hold for a wrong fold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgevit.folding import prove
from edgevit.folding.proof import LARGEST_TOLERANCE, Proof
from edgevit.models import randomize
from support.narrowing import present
from support.nets import ready, restless
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


def proof_of(model: nn.Module, *, seed: int = 0) -> Proof:
    return prove(ready(model, seed).float(), (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),))


def test_a_difference_that_rounding_makes_in_the_model_itself_shows_no_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proof = proof_of(restless(45))
    largest = LARGEST_TOLERANCE[torch.float64]
    assert proof.status == "not_proven" and not proof.passed
    assert proof.float64_tolerance == largest < present(proof.float64_max_rel) < proof.float64_rounding
    # A mistake is larger than what rounding does there.
    wrong_epsilon(monkeypatch)
    wrong = proof_of(restless(45))
    assert wrong.status == "failed" and present(wrong.float64_max_rel) > wrong.float64_rounding > 0
    # Where rounding alone may do everything, no mistake can be told from it.
    assert proof_of(restless(70)).status == "not_proven"


def test_in_float32_alone_a_network_that_amplifies_rounding_is_not_proven() -> None:
    """A network that cannot be copied keeps its dtype, so that nothing is compared in float64."""
    model = restless(20)
    vars(model)["generator"] = (number for number in range(3))
    proof = proof_of(model)
    assert proof.float64_max_rel is None and present(proof.float32_max_rel) < proof.float32_rounding
    assert proof.status == "not_proven" and proof.float32_tolerance == LARGEST_TOLERANCE[torch.float32]


@pytest.mark.parametrize(
    ("proof", "status"),
    [
        (Proof(None, None), "not_proven"),
        (Proof(1e-15, 0.5, 1e-10, 0.7, 0.0, 0.7), "proven"),
        (Proof(1e-6, 1e-7, 1e-7, 1e-5, 1e-5), "not_proven"),
        (Proof(1e-6, 1e-7, 1e-7, 1e-5, 9e-7), "failed"),
        (Proof(1e-6, 0.5, 1e-7, 1e-5, 1e-5), "failed"),
        (Proof(math.nan, 0.0, 1e-7, 1e-5, math.inf), "failed"),
    ],
)
def test_the_status_of_a_proof(proof: Proof, status: str) -> None:
    assert proof.status == status and proof.passed == (status == "proven")
