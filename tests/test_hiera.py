"""Hiera and TurboViT: the official layout and numbers, and a folded form that any runtime takes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from parity_fill import fill, load_golden, noise_image
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.count import count
from edgevit.fold import Folded, fold
from edgevit.fold.proof import compare
from edgevit.models import create_model, hiera, model_card, randomize

COSTS = {"hiera_tiny": ("27.910", "4.901"), "turbovit": ("12.660", "2.246")}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random_model(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = create_model(name)
    randomize(model)
    nn.init.normal_(model.pos_embed, generator=torch.Generator().manual_seed(0))
    return model.to(dtype)


def noise(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_layout_is_the_official_one() -> None:
    with torch.device("meta"):
        state = create_model("hiera_tiny").state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == load_golden("hiera_tiny")["keys"]


def test_logits_are_the_official_ones_to_the_last_published_digit() -> None:
    golden = load_golden("hiera_tiny")
    model = create_model("hiera_tiny").double()
    model.load_state_dict(fill(golden["keys"]))
    with torch.no_grad():
        logits = model(noise_image(golden["input_shape"]).double())[0]
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    rounding = 0.5 * 10.0 ** (expected.abs().log10().floor() - 8)  # half a unit in the ninth significant digit
    assert ((logits - expected).abs() <= 1.001 * rounding + 1e-12).all()


@pytest.mark.parametrize("name", COSTS)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        found = count(create_model(name), torch.empty(1, 3, 224, 224))
    assert (f"{found.params / 1e6:.3f}", f"{found.macs / 1e9:.3f}") == COSTS[name]
