"""The shipped cards are what counting the models gives today."""

from __future__ import annotations

import pytest
import torch

from edgevit.cards import load_cards
from edgevit.fold import fold
from edgevit.models import create_model, list_models
from edgevit.zoo import counted_card


def test_every_model_has_a_card():
    assert list(load_cards()) == list_models()


@pytest.mark.parametrize("name", list_models())
def test_card_is_current(name):
    """If this fails after a change of a model or of folding: edgevit models --refresh"""
    assert load_cards()[name] == counted_card(name)


@pytest.mark.parametrize(("name", "side"), [("mobilevig_ti", 7), ("vanillanet_13_x1_5_ada_pool", 10)])
def test_smallest_feature_map(name, side):
    """What an artifact's stride is told from: weights of 3x3 are no maps."""
    with torch.device("meta"):
        assert fold(create_model(name)).smallest_side == side
