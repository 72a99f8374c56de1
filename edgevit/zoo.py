"""The cards of the whole zoo with params and MACs of both forms, counted on the meta device: nothing is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from edgevit.count import count
from edgevit.fold import example_inputs, fold
from edgevit.models import create_model, list_models, model_card
from edgevit.types import ModelCard


def counted_cards() -> Iterator[ModelCard]:
    """Every card of the zoo, completed."""
    for name in list_models():
        yield counted_card(name)


def counted_card(name: str) -> ModelCard:
    """One card, completed by counting the model in training form and folded, at batch 1."""
    with torch.device("meta"):
        model = create_model(name)
        inputs = example_inputs(model)
        before, after = count(model, *inputs), count(fold(model), *inputs)
    return dataclasses.replace(
        model_card(name),
        params=before.params,
        macs=before.macs,
        folded_params=after.params,
        folded_macs=after.macs,
    )
