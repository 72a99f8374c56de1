"""Hiera and TurboViT: the official layout and numbers, and a folded form that any runtime takes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import Folded, fold
from edgevit.models import create_model, model_card, randomize
from edgevit.models.hiera import Attention, Block, Hiera, _unroll
from support.narrowing import narrow
from support.nets import assert_same, calls, fold_and_compare, image, operators
from support.parity_fill import fill, load_golden, noise_image

COSTS = {"hiera_tiny": ("27.910", "4.901"), "turbovit": ("12.660", "2.246")}
aten = torch.ops.aten


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tiny() -> Hiera:
    """Build every stage, for images of four mask units."""
    torch.manual_seed(0)
    model = Hiera(16, (1, 2, 1, 1), size=64, classes=10).double().eval()
    randomize(model)
    nn.init.normal_(model.pos_embed)
    return model


# ---- what is published -------------------------------------------------------------------------------------------


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
        counted = count(create_model(name), torch.empty(1, 3, 224, 224))
    assert (f"{counted.params / 1e6:.3f}", f"{counted.macs / 1e9:.3f}") == COSTS[name]


def test_the_official_checkpoint_is_nested_under_its_key(tmp_path: Path) -> None:
    state = fill(load_golden("hiera_tiny")["keys"])
    torch.save({"model_state": state}, tmp_path / "hiera_tiny_224.pth")
    model = create_model("hiera_tiny", tmp_path / "hiera_tiny_224.pth")
    assert torch.equal(model.state_dict()["blocks.3.attn.qkv.weight"], state["blocks.3.attn.qkv.weight"].float())


def test_cards_say_whose_design_it_is() -> None:
    ours, theirs = model_card("turbovit"), model_card("hiera_tiny")
    assert (ours.provenance, theirs.provenance) == ("reconstructed", "published")
    assert "no official code" in ours.source and "CC-BY-NC" in theirs.licence


# ---- the parts ---------------------------------------------------------------------------------------------------


def test_tokens_are_in_the_order_of_squares_in_squares() -> None:
    """The first quarter of the tokens are the top left corners of all 2x2 squares, and so on inward."""
    side = 16
    raster = torch.arange(side * side).reshape(1, -1, 1)
    row, column = (part.flatten() for part in (_unroll(raster) // side, _unroll(raster) % side))
    index = torch.arange(side * side)
    unit = index % 4
    inside = [index // 64, index // 16 % 4, index // 4 % 4]  # square in 2x2, in 4x4, in 8x8
    expected_row = 8 * (unit // 2) + sum((square // 2) << i for i, square in enumerate(inside))
    expected_column = 8 * (unit % 2) + sum((square % 2) << i for i, square in enumerate(inside))
    assert torch.equal(row, expected_row) and torch.equal(column, expected_column)


@pytest.mark.parametrize("pools", [False, True])
def test_attention_stays_inside_its_unit(pools: bool) -> None:
    """Against the definition, written out: one unit and one head at a time."""
    torch.manual_seed(0)
    layer, units, heads = Attention(6, 8, 2, pools=pools).double(), 3, 2
    x = image(2, 16 * units, 6)
    query, key, value = layer.qkv(x).split(8, dim=2)
    if pools:
        query = query.reshape(2, 4, -1, 8).max(dim=1).values
    attended = torch.empty(2, query.shape[1], 8, dtype=torch.float64)
    for unit in range(units):
        for head in range(heads):
            q, k, v = (part[:, unit::units, head * 4 : head * 4 + 4] for part in (query, key, value))
            weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(4), dim=2)
            attended[:, unit::units, head * 4 : head * 4 + 4] = weights @ v
    with torch.no_grad():
        torch.testing.assert_close(layer(x, units), layer.proj(attended), rtol=0, atol=1e-12)


def test_the_switch_to_attention_over_all_tokens_lags_one_block() -> None:
    with torch.device("meta"):
        model = narrow(create_model("hiera_tiny"), Hiera)
    blocks = [narrow(block, Block) for block in model.blocks]
    assert [block.in_units for block in blocks] == [True] * 4 + [False] * 8
    assert [block.attn.pools for block in blocks] == [i in (1, 3, 10) for i in range(12)]
    assert [block.attn.heads for block in blocks] == [1] + [2] * 2 + [4] * 7 + [8] * 2


# ---- the fold ----------------------------------------------------------------------------------------------------


def assert_plain(folded: Folded) -> None:
    """Assert one gather, no scale or shift of a norm, no scale in attention, nothing above rank 4."""
    assert folded.report.unfolded == () and folded.report.batch_is_open
    remaining = operators(folded)
    assert remaining["index_select"] == 1 and not {"permute", "mul", "div"} & set(remaining)
    for node in calls(folded):
        value = node.meta.get("val")
        assert not isinstance(value, Tensor) or value.dim() <= 4, node
        if node.target is aten.layer_norm.default:
            assert node.args[2:4] == (None, None)
        if node.target is aten.scaled_dot_product_attention.default:
            assert node.kwargs == {"scale": 1.0}


def test_a_tiny_one_folds_completely() -> None:
    model, x = tiny(), image(2, 3, 64, 64)
    folded = fold(model, (x,))
    assert_same(model, folded, (image(3, 3, 64, 64, seed=5),))
    assert_plain(folded)


@pytest.mark.parametrize("name", COSTS)
def test_nothing_is_left_to_fold(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
        folded = fold(model)
    assert_plain(folded)
    assert (
        count(folded, torch.empty(1, 3, 224, 224, device="meta")).macs
        < 0.98 * count(model, torch.empty(1, 3, 224, 224, device="meta")).macs
    )  # the last MLP comes after the average of its tokens


def test_the_proofs_tell_wrong_queries_and_a_wrong_order_apart() -> None:
    """A scale of attention or an order lost must be far above the gate of 1e-10."""
    model, x = tiny(), image(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        narrow(model.blocks[2], Block).attn.qkv.weight[:32] *= 1.01
        assert float((model(x) - expected).abs().max() / expected.abs().max()) > 1e-6
        model = tiny()
        model.pos_embed.copy_(model.pos_embed.flip(1))
        assert float((model(x) - expected).abs().max() / expected.abs().max()) > 1e-3


@pytest.mark.parametrize("grows", [False, True])
def test_a_block_folds(grows: bool) -> None:
    block = Block(8, 16 if grows else 8, 2, 0.1, in_units=True)

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.block(x, 4)
            return result

    folded = fold_and_compare(Alone(), image(2, 64, 8))
    assert operators(folded)["linear"] == 5 + grows - 1 and operators(folded)["mul"] == 0
