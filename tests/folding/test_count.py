"""The counter against formulas worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.count import Count, count, operator_costs
from edgevit.records.model import OperatorCost
from support.narrowing import present

DEVICES = pytest.mark.parametrize("device", ["cpu", "meta"])


class Attention(nn.Module):
    """Self-attention of 4 heads of 16 over 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(64), nn.Linear(64, 192), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = self.qkv(self.norm(x)).reshape(batch, tokens, 3, 4, 16).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.out(x.transpose(1, 2).reshape(batch, tokens, 64))
        return result


ATTENTION_MACS = 2 * 49 * (64 * 192 + 64 * 64 + 2 * 49 * 64)  # of two sequences of 49: projections, QK^T and AV


@DEVICES
@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 5, 7), 2 * 16 * 5 * 7 * 8 * 9),
        (nn.Conv2d(8, 16, 3, stride=2, groups=4, bias=False), (1, 8, 9, 9), 16 * 4 * 4 * 2 * 9),
        (nn.Conv2d(8, 8, 7, padding=3, groups=8), (1, 8, 7, 7), 8 * 49 * 49),
        (nn.Conv1d(4, 6, 3), (1, 4, 10), 6 * 8 * 4 * 3),
        (nn.ConvTranspose2d(8, 16, 3, stride=2, groups=2), (2, 8, 5, 5), 2 * 8 * 25 * 8 * 9),
        (nn.Linear(10, 7), (3, 10), 3 * 70),
        (nn.Linear(10, 7, bias=False), (2, 3, 10), 6 * 70),
        (nn.Linear(10, 7), (2, 3, 5, 10), 30 * 70),
    ],
)
def test_layers_cost_what_the_formula_says(layer: nn.Module, shape: tuple[int, ...], macs: int, device: str) -> None:
    counted = count(layer.to_empty(device=device), torch.zeros(shape, device=device))
    assert counted == Count(sum(value.numel() for value in layer.parameters()), macs, 1)


@DEVICES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_is_counted_in_every_form(device: str, dtype: torch.dtype) -> None:
    """torch's own counter sees none of it on the CPU."""
    model = Attention().to(device, dtype)
    assert count(model, torch.zeros(2, 49, 64, device=device, dtype=dtype)) == Count(16768, ATTENTION_MACS, 3)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_counts_both_lengths_and_widths(masked: bool) -> None:
    class Cross(nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            mask = torch.ones(5, 9, dtype=torch.bool) if masked else None
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    heads = (torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 9, 8), torch.zeros(2, 3, 9, 8))
    assert count(Cross(), *heads) == Count(0, 2 * 3 * 5 * 9 * (8 + 8), 0)
    wide = (*heads[:2], torch.zeros(2, 3, 9, 12))
    assert count(Cross(), *wide).macs == 2 * 3 * 5 * 9 * (8 + 12)


def test_fused_attention_of_other_devices_is_counted() -> None:
    class Fused(nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            result: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, False)[0]
            return result

    heads = [torch.zeros(2, 3, tokens, width, device="meta") for tokens, width in ((5, 8), (9, 8), (9, 12))]
    assert count(Fused(), *heads) == Count(0, 2 * 3 * 5 * 9 * (8 + 12), 0)


def test_torch_s_own_attention_layer_does_not_hide() -> None:
    attention = nn.MultiheadAttention(64, 4, batch_first=True)
    x = torch.zeros(2, 49, 64)
    assert count(attention, x, x, x) == Count(16640, ATTENTION_MACS, 2)
    encoder = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    assert count(encoder, x).macs == ATTENTION_MACS + 2 * 49 * 2 * 64 * 128
    assert torch.backends.mha.get_fastpath_enabled()


def test_inference_mode_counts_the_same() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 5))
    expected = count(model, torch.zeros(2, 3, 5, 5))
    with torch.inference_mode():
        assert count(model, torch.zeros(2, 3, 5, 5)) == expected


def test_exported_graphs_count_the_same() -> None:
    model, x = (
        nn.Sequential(nn.Conv2d(3, 64, 7, 7), nn.BatchNorm2d(64), nn.Flatten(2)).eval(),
        torch.zeros(2, 3, 49, 49),
    )
    program = torch.export.export(model, (x,))
    assert count(program.module(), x) == count(model, x) == Count(3 * 64 * 49 + 3 * 64, 2 * 49 * 64 * 3 * 49, 2)
    tokens = torch.zeros(2, 49, 64)
    attention = torch.export.export(Attention().eval(), (tokens,)).module()
    assert count(attention, tokens) == Count(16768, ATTENTION_MACS, 3)


def test_products_without_weights_are_no_layers() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("basis", torch.zeros(6, 5))

        def forward(self, x: Tensor) -> Tensor:
            scores = x @ x.transpose(1, 2)  # (2, 4, 6) x (2, 6, 4)
            mixed = torch.baddbmm(x, scores, x)  # (2, 4, 4) x (2, 4, 6)
            return torch.einsum("nij,jk->nik", mixed, self.basis)  # the only one with weights

    assert count(Products(), torch.zeros(2, 4, 6)) == Count(0, 2 * 4 * 4 * 6 + 2 * 4 * 6 * 4 + 2 * 4 * 6 * 5, 1)


def test_what_is_not_counted_counts_nothing() -> None:
    class Free(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.gelu(F.max_pool2d(x, 3, 1, 1)) + F.adaptive_avg_pool2d(x, 1)
            result: Tensor = torch.fft.irfft2(torch.fft.rfft2(x)) * x.roll(1, 2)
            return result

    assert count(Free(), torch.zeros(1, 2, 8, 8)) == Count(0, 0, 0)


def test_every_norm_is_a_layer() -> None:
    norms = nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(5), nn.InstanceNorm2d(4))
    assert count(norms, torch.zeros(2, 4, 5, 5)).layers == 4


def test_shared_weights_are_counted_once_but_run_twice() -> None:
    layer = nn.Linear(8, 8)
    assert count(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 8)) == Count(72, 2 * 64, 2)


def test_counting_leaves_the_model_as_it_was() -> None:
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Dropout())
    model[2].eval()
    count(model, torch.ones(2, 3, 4, 4))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert present(norm.num_batches_tracked) == 0 and not present(norm.running_mean).any()
    with pytest.raises(RuntimeError, match="expected input"):
        count(model, torch.ones(2, 5, 4, 4))
    assert model.training and model[1].training and torch.backends.mha.get_fastpath_enabled()


# Operator by operator


class Block(nn.Module):
    """A depthwise convolution, a grouped one, a 1x1, an activation, a view and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2, bias=False)
        self.pointwise = nn.Conv2d(8, 16, 1, stride=2, bias=False)
        self.linear = nn.Linear(16 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise(self.grouped(self.depthwise(x)))
        result: Tensor = self.linear(F.relu(x).flatten(1))
        return result


@DEVICES
def test_costs_of_operators_are_those_of_the_formulas(device: str) -> None:
    costs = operator_costs(Block().to(device), torch.zeros(1, 8, 6, 6, device=device))
    assert costs == (
        OperatorCost("depthwise convolution 3x3", 8 * 9 * 36, 8 * 9, 2 * 8 * 36),
        OperatorCost("grouped convolution 1x1", 8 * 4 * 36, 8 * 4, 2 * 8 * 36),
        OperatorCost("convolution 1x1", 16 * 8 * 9, 16 * 8, 8 * 36 + 16 * 9),
        OperatorCost("relu", 0, 0, 2 * 16 * 9),
        OperatorCost("product", 5 * 16 * 9, 5 * 16 * 9 + 5, 16 * 9 + 5),
    )


@DEVICES
def test_operators_cost_together_what_the_model_costs(device: str) -> None:
    """Whether attention is one operator depends on the device; what it multiplies does not."""
    for model, shape, kinds in ((Attention(), (2, 49, 64), {"norm", "product"}), (Block(), (3, 8, 6, 6), {"relu"})):
        model.to(device)
        costs = operator_costs(model, torch.zeros(shape, device=device))
        assert sum(cost.macs for cost in costs) == count(model, torch.zeros(shape, device=device)).macs
        assert kinds <= {cost.kind for cost in costs}
