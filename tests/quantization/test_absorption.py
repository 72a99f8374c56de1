"""Scales moved between layers: the same function, and a network that no scramble of its scales can spoil."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import Node

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, fold
from edgevit.folding.agreement import compare
from edgevit.folding.editing import editable, finished
from edgevit.folding.graph import Net
from edgevit.quantization import CalibrationData, Dialect, calibrate, quantize
from edgevit.quantization.absorption import BALANCES, Balance, absorb, source_axis, watched
from edgevit.quantization.placement import watched as watched_by_dialects
from edgevit.quantization.scale_flow import flow
from edgevit.records.quantization import QuantizationRequest
from support.fold_cases import chain, conv
from support.nets import Toy

X = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(2))


def ready(model: nn.Module, *inputs: Tensor) -> Folded:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=max(parameter[0].numel(), 1) ** -0.5, generator=generator)
    return fold(model.eval(), inputs)


def calibration(net: Folded, *inputs: Tensor) -> Any:
    return calibrate(net, [inputs], watched_by_dialects(net.net.graph) | set(watched(editable(net))))


def attention(net: Any, x: Tensor) -> Any:
    y = net.norm(x)
    heads = net.qkv(y).reshape(x.shape[0], 9, 3, 2, 8).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(*heads.unbind(0))
    return x + net.project(mixed.transpose(1, 2).reshape(x.shape[0], 9, 16))


def vit() -> nn.Module:
    return Toy(attention, norm=nn.LayerNorm(16), qkv=nn.Linear(16, 48), project=nn.Linear(16, 16))


NETS = {
    "relu": (chain(conv(6, 8, 3, padding=1), nn.ReLU(), conv(8, 5)), X),
    "pools": (chain(conv(6, 8, 3), nn.MaxPool2d(2), nn.LeakyReLU(), nn.AvgPool2d(3, padding=1),
                    conv(8, 8, 3, padding=1, groups=4), nn.ReLU(), conv(8, 5)), X),
    "flattened": (chain(conv(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)), X),
    "mean": (Toy(lambda net, x: net.head(net.conv(x).relu().mean((2, 3))), conv=conv(6, 8), head=nn.Linear(8, 4)), X),
    "chunks": (Toy(lambda net, x: net.a(torch.cat([x, *net.conv(x).relu().chunk(2, 1)[::-1]], 1)),
                   conv=conv(6, 8), a=conv(14, 4)), X),
    "attention": (vit(), TOKENS),
    "products": (Toy(lambda net, x: net.out(F.softmax(x @ x.transpose(1, 2), -1) @ net.value(x)),
                     value=nn.Linear(16, 16), out=nn.Linear(16, 16)), TOKENS),
    "groups": (Toy(lambda net, x: net.b(net.a(net.norm(x)).relu()),
                   norm=nn.GroupNorm(2, 6), a=conv(6, 6), b=conv(6, 6)), X),
    "a norm with a shift": (chain(nn.GroupNorm(2, 6), conv(6, 6, 3, padding=1)), X),
    "queries that a layer reads": (Toy(
        lambda net, x: net.out(F.scaled_dot_product_attention(q := net.q(x), net.k(x), net.v(x)).squeeze(1) + 0)
        + net.aside(q).squeeze(1), q=nn.Linear(16, 16), k=nn.Linear(16, 16), v=nn.Linear(16, 16),
        out=nn.Linear(16, 16), aside=nn.Linear(16, 16)), TOKENS[:, None]),
}  # fmt: skip


@pytest.mark.parametrize("balance", BALANCES, ids=lambda balance: balance.label)
@pytest.mark.parametrize("name", NETS)
def test_the_function_stays_the_same(name: str, balance: Balance) -> None:
    model, inputs = NETS[name]
    net = ready(model, inputs)
    editing = editable(net)
    before = finished(editing, net, torch.float64)
    assert absorb(editing, calibration(net, inputs), balance) > 0
    after = finished(editing, net, torch.float64)
    assert compare(before, after, [inputs.double()]) <= 1e-12
    assert compare(net, finished(editing, net), [inputs]) <= 1e-5


BLOCKED = {
    "gelu": (chain(conv(6, 8), nn.GELU(), conv(8, 5)), X),
    "a sum": (Toy(lambda net, x: net.b(net.a(x).relu() + x), a=conv(6, 6), b=conv(6, 6)), X),
    "an output": (Toy(lambda net, x: (y := net.a(x).relu(), net.b(y)), a=conv(6, 6), b=conv(6, 6)), X),
    "a softmax": (Toy(lambda net, x: net.b(F.softmax(net.a(x), 1)), a=conv(6, 6), b=conv(6, 6)), X),
    "relu6": (chain(conv(6, 8), nn.ReLU6(), conv(8, 5)), X),
    "weights that another call reads": (Toy(lambda net, x: net.a(net.a(x).relu()), a=conv(6, 6)), X),
    "weights that a call with another input reads": (
        Toy(lambda net, x: net.b(net.a(x).relu()) + net.b(F.gelu(x)), a=conv(6, 6), b=conv(6, 6)), X),
    "channels of several in one pool": (chain(conv(6, 8), nn.PixelShuffle(2), nn.AvgPool2d(2), conv(2, 5)), X),
    "a maximum over channels": (Toy(lambda net, x: net.b(net.a(x).amax(1, keepdim=True)),
                                    a=conv(6, 6), b=conv(1, 6)), X),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKED)
def test_what_no_factor_passes_keeps_its_scales(name: str) -> None:
    model, inputs = BLOCKED[name]
    net = ready(model, inputs)
    assert absorb(editable(net), calibration(net, inputs), Balance(0.0)) == 0


def test_a_mask_that_a_layer_computes_blocks_its_channels() -> None:
    """A factor on the mask of an attention would change its softmax."""
    model = Toy(
        lambda net, x: net.out(F.scaled_dot_product_attention(x, x, y := net.both(x), attn_mask=y[..., :9])),
        both=nn.Linear(16, 16), out=nn.Linear(16, 16),
    )  # fmt: skip
    net = ready(model, TOKENS)
    assert absorb(editable(net), calibration(net, TOKENS), Balance(0.0)) == 1
    editing = editable(net)
    source = next(node for node in editing.nodes() if source_axis(editing, node) is not None)
    assert flow(editing, source, 2).blocked == set(range(9))


def test_weights_of_a_sum_over_tokens_that_a_layer_computes_block_their_channels() -> None:
    model = Toy(
        lambda net, x: net.out((y := net.both(x))[..., :9] @ y[..., 9:]) + net.aside(y[..., :9]),
        both=nn.Linear(16, 25), out=nn.Linear(16, 16), aside=nn.Linear(9, 16),
    )  # fmt: skip
    editing = editable(ready(model, TOKENS))
    source = next(node for node in editing.nodes() if source_axis(editing, node) is not None)
    assert set(range(9)) <= flow(editing, source, 2).blocked


def test_channels_of_one_layer_are_free_for_themselves() -> None:
    """Of queries, keys and values in one layer, each goes its own way; half of this layer reaches a GELU."""
    model = Toy(
        lambda net, x: net.b((y := net.a(x).chunk(2, 1))[0].relu()) + net.b2(F.gelu(y[1])),
        a=conv(6, 8), b=conv(4, 3, 3), b2=conv(4, 3, 3),
    )  # fmt: skip
    editing = editable(ready(model, X))
    source = next(node for node in editing.nodes() if source_axis(editing, node) is not None)
    reached = flow(editing, source, 1)
    assert reached.blocked == {4, 5, 6, 7} and [labels.tolist() for _, labels in reached.readers] == [[0, 1, 2, 3]]


def ranges(net: Folded, *inputs: Tensor) -> dict[str, Tensor]:
    gathered = calibration(net, *inputs)
    return {name: observed.reach for (name, _), observed in gathered.tensors.items()}


def test_channels_have_one_magnitude_at_full_strength() -> None:
    net = ready(chain(conv(6, 8), nn.ReLU(), conv(8, 5)), X)
    editing = editable(net)
    absorb(editing, calibration(net, X), Balance(0.0))
    reach = ranges(finished(editing, net), X)["relu"]
    assert float(reach.max() / reach.min()) == pytest.approx(1.0, rel=1e-4)


def test_queries_and_keys_share_what_they_have() -> None:
    net = ready(vit(), TOKENS)
    editing = editable(net)
    absorb(editing, calibration(net, TOKENS), Balance(0.0))
    reach = ranges(finished(editing, net), TOKENS)["linear"]
    queries, keys = reach[:16], reach[16:32]
    assert torch.allclose(queries, keys, rtol=1e-3)


def test_values_reach_the_projection_behind_their_attention() -> None:
    """Queries, keys and values are of one layer; the values' channels get one magnitude ahead of the projection."""
    net = ready(vit(), TOKENS)
    editing = editable(net)
    source = next(node for node in editing.nodes() if editing.is_linear(node))
    reached = flow(editing, source, 2)
    assert [labels.tolist() for _, labels in reached.readers] == [list(range(32, 48))]
    assert not reached.blocked and len(reached.queries) == len(reached.keys) == 1
    spoilt = scrambled(net, 30.0)
    values = [ranges(each, TOKENS)["linear"][32:] for each in (net, spoilt)]
    editing = editable(spoilt)
    absorb(editing, calibration(spoilt, TOKENS), Balance(0.0))
    values.append(ranges(finished(editing, net), TOKENS)["linear"][32:])
    spreads = [float(value.max() / value.min()) for value in values]
    assert spreads[1] > 10 and spreads[2] == pytest.approx(1.0, rel=1e-3)


def scrambled(net: Folded, spread: float, seed: int = 3) -> Folded:
    """Return the same function with scales from 1 / spread to spread on the channels between its layers."""
    editing = editable(net)
    generator = torch.Generator().manual_seed(seed)
    gathered = calibration(net, *_inputs_of(net))
    noise = {
        key: dataclasses.replace(observed, high=spread ** (2 * torch.rand(len(observed.high), generator=generator) - 1))
        for key, observed in gathered.tensors.items()
    }
    absorb(editing, dataclasses.replace(gathered, tensors=noise), Balance(0.0))
    return finished(editing, net)


def _inputs_of(net: Folded) -> tuple[Tensor, ...]:
    return (TOKENS,) if len(net.shapes[0]) == 3 else (X,)


def digits_like() -> nn.Module:
    return chain(conv(6, 32, 3), nn.ReLU(), conv(32, 32, 3, groups=32), nn.ReLU(), conv(32, 32), nn.ReLU(),
                 nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 100))  # fmt: skip


@pytest.mark.parametrize("model", [digits_like, vit], ids=["convolutions", "attention"])
def test_a_scramble_of_scales_by_64_comes_back_within_half_a_decibel(model: Any) -> None:
    net = ready(model(), *_inputs_of(ready(model(), X if model is digits_like else TOKENS)))
    inputs = _inputs_of(net)
    data = CalibrationData([inputs], [inputs], "noise")
    options = QuantizationRequest(floor_db=0.0, corrects=False)
    spoilt = scrambled(net, 64.0)
    assert compare(net, spoilt, inputs) <= 1e-4
    plain, rescued = (quantize(each, data, Dialect(), options).report for each in (net, spoilt))
    untreated = rescued.steps[0].snr_db
    assert plain.snr_db is not None and rescued.snr_db is not None and untreated is not None
    assert untreated < plain.snr_db - 6, "the scramble hurts"
    assert rescued.snr_db > plain.snr_db - 0.5
    assert rescued.snr_db == max(step.snr_db or 0.0 for step in rescued.steps)
    assert {step.taken for step in rescued.steps} == {True, False}, "what does not help is not kept"


def test_a_move_that_is_no_equality_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof looks at the network, and not at the rule."""
    net = scrambled(ready(digits_like(), X), 64.0)

    def wrong(editing: Net, *parts: Any) -> int:
        count = absorb(editing, *parts)
        layer = next(node for node in editing.nodes() if editing.is_linear(node))
        editing.scale_and_shift(layer, torch.full((32,), 1.0 + 1e-9, dtype=torch.float64), None)
        return count

    data = CalibrationData([(X,)], [(X,)], "noise")
    assert quantize(net, data, Dialect(), QuantizationRequest(floor_db=0.0)).report.steps[1:]
    monkeypatch.setattr("edgevit.quantization.quantized.absorb", wrong)
    with pytest.raises(QuantizationError, match="changed the network"):
        quantize(net, data, Dialect(), QuantizationRequest(floor_db=0.0))


@cache
def ready_net(name: str) -> Folded:
    return ready(*NETS[name])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["relu", "pools", "chunks", "attention", "groups"]))
def test_any_factors_keep_the_function(seed: int, name: str) -> None:
    net, inputs = ready_net(name), NETS[name][1]
    assert compare(net, scrambled(net, 100.0, seed), [inputs]) <= 1e-4


def test_a_node_is_a_source_only_with_weights_of_its_own() -> None:
    net: Net = editable(ready(NETS["groups"][0], X))
    sources: list[Node] = [node for node in net.nodes() if source_axis(net, node) is not None]
    assert [str(node.target).removeprefix("aten.").split(".")[0] for node in sources] == ["group_norm"] + ["conv2d"] * 2
