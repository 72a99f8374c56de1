"""Forms on the zoo's networks: each that applies is proven, and those that a network is known for do apply."""

from __future__ import annotations

import pytest
import torch

import edgevit
from edgevit.folding.inference_form import fold_unchecked
from edgevit.models.random_weights import randomize
from edgevit.tuning.application import apply_forms, named
from edgevit.tuning.forms import list_forms

# By network: the side of its images, and how often some forms apply.
NETWORKS: dict[str, tuple[int, dict[str, int]]] = {
    "vanillanet_5": (
        64,
        {"depthwise_rows": 4, "output_chunks_1mb": 4, "strides_moved": 1, "activation_before_pool": 3},
    ),
    "mobilevig_ti": (128, {"gelu_spelled": 27, "roll_sliced": 4, "concat_as_sum": 2}),
    "fmvit_t": (96, {"attention_batched": 4, "groups_apart": 5, "average_depthwise": 6}),
    "affnet_et": (128, {"map_norm_spelled": 21, "products_merged": 4, "pointwise_groups": 18}),
    "turbovit": (224, {"attention_keys_once": 12, "layer_norm_spelled": 25, "attention_layers_apart": 9}),
    "hiera_tiny": (224, {"attention_scaled_product": 12, "output_chunks_1mb_summed": 8}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_each_form_that_applies_is_proven(name: str) -> None:
    side, expected = NETWORKS[name]
    model = edgevit.create_model(name)
    randomize(model)
    inputs = (torch.zeros(1, 3, side, side),)
    folded = fold_unchecked(model, inputs)
    counts = {}
    for form in list_forms():
        # Raises where the result is another function.
        _, applied = apply_forms(folded, named(form.name), inputs)
        counts[form.name] = sum(len(one.modules) for one in applied)
    assert {form: counts[form] for form in expected} == expected
