"""The cards of the whole zoo with params, MACs and operators, counted on the meta device: nothing is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from edgevit.records.model import ModelCard, ModelOperators


def counted_cards() -> Iterator[tuple[ModelCard, ModelOperators]]:
    """Yield every card of the zoo, completed, and the operators of the model's folded form."""
    from edgevit.models import list_models

    for name in list_models():
        yield counted_card(name)


def counted_card(name: str) -> tuple[ModelCard, ModelOperators]:
    """Return one card, completed by counting both forms of the model at batch 1, and its folded operators."""
    import torch

    from edgevit.count import count, merged, operator_costs
    from edgevit.folding import example_inputs, fold
    from edgevit.models import create_model, model_card

    with torch.device("meta"):
        model = create_model(name)
        inputs = example_inputs(model)
        before, folded = count(model, *inputs), fold(model)
        after, operators = count(folded, *inputs), merged(operator_costs(folded, *inputs))
    card = dataclasses.replace(
        model_card(name),
        params=before.params,
        macs=before.macs,
        folded_params=after.params,
        folded_macs=after.macs,
    )
    return card, ModelOperators(name, operators)
