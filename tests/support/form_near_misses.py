"""Networks like those of a form, on which it must not apply: it would compute something else, or nothing new."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from support.form_modules import (
    Case,
    attention,
    both,
    by_columns,
    conv,
    depthwise,
    kronecker,
    linear,
    normed,
    of,
    plain_heads,
    sequence,
    split_heads,
    two_sides,
)
from support.form_networks import BIAS, MAPS, TOKENS, WIDE

# A kernel in two groups, one with several channels in a group, and one that is read by two.
_DENSE = conv(MAPS, 4, 4, 7, padding=3)
_SHARED = of(lambda network, x: (network.layer(x), F.relu(network.layer(x))), MAPS, layer=lambda: nn.Conv2d(4, 4, 1))
_STRIDED = [conv(MAPS, 4, 6, 3, 1, 1), conv(MAPS, 4, 6, 3, 2, groups=2), conv(MAPS, 4, 6, 3, 2, dilation=2)]
_POINTWISE = [
    conv(MAPS, 4, 6, 1, groups=2),
    conv(MAPS, 4, 6, 1, 2),
    conv(MAPS, 4, 6, 1, padding=1),
    conv(MAPS, 4, 6, 3),
]
_NOT_ATTENTION = [
    attention(TOKENS, fused=False, place="product", axis=-2),
    of(lambda network, x: torch.sigmoid(x @ x.transpose(1, 2)) @ x, TOKENS),
    # Its keys are no transposition, and as many as their channels.
    of(lambda network, x: torch.softmax(torch.tanh(x) @ torch.sigmoid(x.transpose(1, 2)), -1) @ x, (1, 6, 6)),
]
_CAUSAL = attention(TOKENS, is_causal=True)


def two_readers(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention whose scores are an output too."""
    scores = torch.tanh(x) @ torch.sigmoid(x).transpose(1, 2) * 0.3
    return torch.softmax(scores, -1) @ x, scores


def read_layer(network: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention of tokens by one layer, whose result is an output too."""
    result = network.layer(x)
    return F.scaled_dot_product_attention(*result.chunk(3, dim=-1)), result


_READ_SCORES = of(two_readers, TOKENS)

NEAR_MISSES: dict[str, list[Case]] = {
    "depthwise_rows": [_DENSE, depthwise(MAPS, (1, 5)), depthwise(MAPS, 1), conv(MAPS, 4, 8, 3, groups=4)],
    "depthwise_bands_2": [depthwise(MAPS, (2, 5)), conv(MAPS, 4, 4, 3, groups=2)],
    "depthwise_bands_3": [depthwise(MAPS, 3)],
    "depthwise_columns": [_DENSE, depthwise(MAPS, (5, 1))],
    "depthwise_blocks_3": [depthwise(MAPS, (5, 3)), _DENSE],
    "depthwise_blocks_4": [depthwise(MAPS, (4, 7))],
    "depthwise_blocks_5": [depthwise(MAPS, 5)],
    "depthwise_taps_9": [depthwise(MAPS, 3)],
    "depthwise_taps_25": [depthwise(MAPS, 5), _DENSE],
    "strides_unshuffled": [*_STRIDED, conv(MAPS, 4, 6, 3, (1, 2)), conv(MAPS, 4, 6, 1, 2)],
    "strides_moved": [*_STRIDED, conv(MAPS, 4, 6, (3, 2), 3)],
    "strides_sliced": _STRIDED,
    "strided_pointwise_sliced": [conv(MAPS, 4, 6, 1), conv(MAPS, 4, 6, 1, 2, 1), conv(MAPS, 4, 6, 2, 2)],
    "patch_tokens": [
        of(lambda network, x: network.layer(x).flatten(2), MAPS, layer=lambda: nn.Conv2d(4, 6, 2, 2)),
        of(lambda network, x: network.layer(x).flatten(2).transpose(1, 2), MAPS, layer=lambda: nn.Conv2d(4, 6, 3, 2)),
        of(
            lambda network, x: network.layer(x).flatten(2).transpose(1, 2),
            MAPS,
            layer=lambda: nn.Conv2d(4, 6, 2, 2, groups=2),
        ),
        of(
            lambda network, x: network.layer(x).flatten(1, 2).transpose(1, 2), MAPS, layer=lambda: nn.Conv2d(4, 6, 2, 2)
        ),
        of(lambda network, x: network.layer(x).flatten(2).transpose(0, 1), MAPS, layer=lambda: nn.Conv2d(4, 6, 2, 2)),
        of(lambda network, x: network.layer(x).transpose(2, 3).flatten(2), MAPS, layer=lambda: nn.Conv2d(4, 6, 2, 2)),
    ],
    "output_chunks_1mb": [
        conv((1, 400, 2, 2), 400, WIDE, 1),
        conv((1, 500, 3, 3), 500, WIDE, 3),
        conv((1, 1000, 2, 2), 1000, 2 * WIDE, 1, groups=2),
    ],
    "output_chunks_2mb": [conv((1, 500, 2, 2), 500, WIDE, 1)],
    "output_chunks_1mb_summed": [
        # A softmax over channels mixes them, and a grouped reader reads some of them.
        sequence((1, 3, 500), lambda: nn.Linear(500, WIDE), lambda: nn.Softmax(-1), lambda: nn.Linear(WIDE, 8)),
        sequence((1, 500, 2, 2), lambda: nn.Conv2d(500, WIDE, 1), nn.ReLU, lambda: nn.Conv2d(WIDE, 8, 1, groups=2)),
        sequence((1, 500, 2, 2), lambda: nn.Conv2d(500, WIDE, 1), nn.ReLU),
        of(
            lambda network, x: (
                (y := F.relu(network.first(x))).flatten(1).sum(1)[:, None, None, None] + network.second(y)
            ),
            (1, 500, 2, 2),
            first=lambda: nn.Conv2d(500, WIDE, 1),
            second=lambda: nn.Conv2d(WIDE, 8, 1),
        ),
    ],
    "output_chunks_2mb_summed": [
        sequence((1, 500, 2, 2), lambda: nn.Conv2d(500, WIDE, 1), nn.ReLU, lambda: nn.Conv2d(WIDE, 8, 1)),
    ],
    "pointwise_tokens": _POINTWISE,
    "pointwise_rows": _POINTWISE,
    "pointwise_matrix": _POINTWISE,
    "pixel_bands_256kb": [
        sequence((1, 4, 15, 17), lambda: nn.Conv2d(4, 64, 1), nn.GELU, lambda: nn.Conv2d(64, 6, 1)),
        sequence((1, 4, 45, 37), lambda: nn.Conv2d(4, 64, 1), nn.GELU),
        sequence((1, 4, 45, 37), lambda: nn.Conv2d(4, 64, 1), nn.GELU, lambda: nn.Conv2d(64, 6, 3)),
        sequence((1, 1111, 8), lambda: nn.Linear(8, 80), lambda: nn.Softmax(1), lambda: nn.Linear(80, 8)),
        sequence((1, 4, 45, 37), lambda: nn.Conv2d(4, 64, 1), nn.GELU, lambda: nn.Linear(37, 8)),
    ],
    "pixel_bands_1024kb": [sequence((1, 1111, 8), lambda: nn.Linear(8, 80), nn.ReLU, lambda: nn.Linear(80, 8))],
    "pointwise_groups": [conv(MAPS, 4, 6, 1), conv(MAPS, 4, 6, 3, groups=2), depthwise(MAPS, 1)],
    "channels_last": _POINTWISE,
    "channels_first": [
        of(
            lambda network, x: network.layer(x.permute(0, 3, 2, 1)).permute(0, 3, 1, 2),
            MAPS,
            layer=lambda: nn.Linear(4, 3),
        ),
        of(lambda network, x: network.layer(x.permute(0, 2, 3, 1)), MAPS, layer=lambda: nn.Linear(4, 3)),
        of(
            lambda network, x: torch.softmax(network.layer(x.permute(0, 2, 3, 1)), -1).permute(0, 3, 1, 2),
            MAPS,
            layer=lambda: nn.Linear(4, 3),
        ),
        of(lambda network, x: F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), MAPS),
    ],
    "tokens_pointwise": [linear((2, 5), 5, 3), conv(MAPS, 4, 6, 1)],
    "tokens_rows": [linear((2, 5), 5, 3)],
    "tokens_product": [conv(MAPS, 4, 6, 1)],
    "attention_scaled_product": [
        *_NOT_ATTENTION,
        _CAUSAL,
        _READ_SCORES,
        attention(TOKENS, fused=False, place="product"),
    ],
    "attention_scaled_query": [*_NOT_ATTENTION, _CAUSAL, _READ_SCORES, attention(TOKENS, scale=1.0)],
    "attention_scaled_key": [*_NOT_ATTENTION, _CAUSAL, attention(TOKENS, fused=False, place="key")],
    "attention_keys_once": [
        *_NOT_ATTENTION,
        attention(TOKENS),
        of(by_columns, (1, 8, 3, 5), **{name: lambda: nn.Conv2d(8, 8, 1) for name in "qkv"}),
    ],
    "attention_fused": [*_NOT_ATTENTION, _READ_SCORES, attention(TOKENS)],
    "attention_batched": [*_NOT_ATTENTION, _CAUSAL, attention(TOKENS, BIAS, fused=False, place="query", mask=True)],
    "attention_layers_apart": [
        attention(TOKENS),
        of(plain_heads, TOKENS, **{name: lambda: nn.Linear(8, 8) for name in "qkv"}),
        # Its heads are those of a mask unit, so tokens are split among them.
        of(
            lambda network, x: F.scaled_dot_product_attention(*network.layer(x).reshape(-1, 3, 6, 8).unbind(1)),
            TOKENS,
            layer=lambda: nn.Linear(8, 24),
        ),
        of(read_layer, TOKENS, layer=lambda: nn.Linear(8, 24)),
        # It attends to the heads of a token, which are as many as tokens.
        of(
            lambda network, x: F.scaled_dot_product_attention(
                *network.layer(x).reshape(x.shape[0], 3, 3, 3, 4).permute(2, 0, 1, 3, 4).unbind(0)
            ),
            (1, 3, 8),
            layer=lambda: nn.Linear(8, 36),
        ),
    ],
    "attention_layers_joined": [
        attention(TOKENS),
        of(split_heads, TOKENS, layer=lambda: nn.Linear(8, 24)),
        of(
            lambda network, x: F.scaled_dot_product_attention(
                network.q(x), network.k(torch.tanh(x)), network.v(torch.sigmoid(x))
            ),
            TOKENS,
            **{name: lambda: nn.Linear(8, 8) for name in "qkv"},
        ),
    ],
    "attention_columns": [
        of(
            lambda network, x: F.scaled_dot_product_attention(torch.sigmoid(x), torch.tanh(x), F.relu(x)).transpose(
                1, 2
            ),
            (1, 6, 6),
        ),
        attention(TOKENS),
        of(split_heads, TOKENS, layer=lambda: nn.Linear(8, 24)),
    ],
    "maxima_reduced": [
        of(lambda network, x: torch.maximum(x, torch.tanh(x)), TOKENS),
        of(lambda network, x: torch.maximum(*x.reshape(-1, 3, 2, 8).unbind(1)[:2]), TOKENS),
    ],
    "maxima_sliced": [of(lambda network, x: x.amax(1), (1, 9, 4)), of(lambda network, x: x.amax((1, 2)), TOKENS)],
    "product_separated": [
        of(lambda network, x: x @ network.matrix, (2, 3, 24), matrix=lambda: torch.randn(24, 15)),
        of(
            lambda network, x: x @ network.matrix,
            (2, 3, 120),
            matrix=lambda: sum(kronecker(10, 8, 12, 8) for _ in range(3)),
        ),
        of(lambda network, x: network.matrix @ x, (2, 12, 3), matrix=lambda: kronecker(2, 3, 5, 4)),
    ],
    "products_merged": [
        of(lambda network, x: network.rows @ x, (1, 3, 6, 5), rows=lambda: torch.randn(4, 6)),
        of(
            lambda network, x: network.rows @ torch.tanh(x @ network.columns),
            (1, 3, 6, 5),
            rows=lambda: torch.randn(4, 6),
            columns=lambda: torch.randn(5, 7),
        ),
        # A reshape that moves numbers between channels.
        of(
            lambda network, x: (x @ network.columns).reshape(-1, 4, 3, 6) @ network.rows,
            (1, 3, 4, 5),
            rows=lambda: torch.randn(6, 2),
            columns=lambda: torch.randn(5, 6),
        ),
        of(two_sides, (1, 6, 5), rows=lambda: torch.randn(4, 6), columns=lambda: torch.randn(5, 7)),
    ],
    "product_linear": [
        of(lambda network, x: network.matrix @ x, (1, 3, 4, 6), matrix=lambda: torch.randn(5, 4)),
        of(lambda network, x: x @ network.matrix, (1, 3, 4, 6), matrix=lambda: torch.randn(3, 6, 5)),
        of(lambda network, x: x @ x.transpose(1, 2), (1, 3, 4)),
    ],
    "product_rows": [of(lambda network, x: network.matrix @ x, (1, 3, 4, 6), matrix=lambda: torch.randn(5, 4))],
    "product_pointwise": [of(lambda network, x: x @ network.matrix, (1, 3, 4, 6), matrix=lambda: torch.randn(6, 5))],
    "product_turned": [of(lambda network, x: x @ network.matrix, (1, 3, 4, 6), matrix=lambda: torch.randn(6, 5))],
    "roll_sliced": [
        of(lambda network, x: torch.roll(x, (1, 2), (2, 3)), MAPS),
        of(lambda network, x: torch.roll(x, 1, 0), (2, 5, 7)),
        of(lambda network, x: torch.relu(torch.roll(x, 9, 2)), MAPS),
    ],
    "roll_gathered": [of(lambda network, x: torch.roll(x, (1, 2), (2, 3)), MAPS)],
    "slices_rolled": [
        of(lambda network, x: torch.cat((x[:, :, :2], x[:, :, 2:]), 2), MAPS),
        of(lambda network, x: torch.cat((x[:, :, 3:], x[:, :, :2]), 2), MAPS),
        of(lambda network, x: torch.cat((x[:, :, 2:], torch.relu(x)[:, :, :2]), 2), MAPS),
        of(lambda network, x: torch.cat((x[:, :, 2::2], x[:, :, :2]), 2), MAPS),
        of(lambda network, x: torch.cat((x[:, 2:], x[:, :2]), 2), (1, 4, 4)),
    ],
    "gather_sliced": [
        of(lambda network, x: x.index_select(2, network.index), (1, 2, 20), index=lambda: torch.arange(20).flip(0))
    ],
    "layer_norm_spelled": [(lambda: nn.GroupNorm(1, 4), MAPS)],
    "group_norm_spelled": [(lambda: nn.LayerNorm(11), MAPS), (lambda: nn.InstanceNorm2d(4), MAPS)],
    "group_norm_as_layer": [(lambda: nn.LayerNorm(11), MAPS)],
    "map_norm_spelled": [(lambda: nn.GroupNorm(2, 4), MAPS)],
    "map_norm_pooled": [(lambda: nn.GroupNorm(2, 4), MAPS), (lambda: nn.GroupNorm(1, 6), (2, 6, 5))],
    "map_norm_as_layer": [(lambda: nn.GroupNorm(4, 4), MAPS)],
    "norm_node": [
        of(
            lambda network, x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, correction=1, keepdim=True) + 1e-5),
            MAPS,
        ),
        of(lambda network, x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5), MAPS),
        of(
            lambda network, x: (x - x.mean(2, keepdim=True)) * torch.rsqrt(x.var(1, correction=0, keepdim=True) + 1e-5),
            MAPS,
        ),
        of(lambda network, x: (x - x.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True) + x, MAPS),
        of(
            lambda network, x: (
                (c := x - x.mean(1, keepdim=True)) * torch.rsqrt((c * torch.tanh(x)).mean(1, keepdim=True) + 1e-5)
            ),
            MAPS,
        ),
        of(lambda network, x: normed(x, 0), (3, 4)),
    ],
    "channel_norm_spelled": [
        of(lambda network, x: network.norm(x.permute(0, 2, 3, 1)), MAPS, norm=lambda: nn.LayerNorm(4)),
        of(
            lambda network, x: network.norm(x.permute(0, 3, 2, 1)).permute(0, 3, 1, 2),
            MAPS,
            norm=lambda: nn.LayerNorm(4),
        ),
        of(
            lambda network, x: network.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            MAPS,
            norm=lambda: nn.LayerNorm((11, 4)),
        ),
    ],
    "batch_norm_spelled": [of(lambda network, x: x * network.scale + 1.0, MAPS, scale=lambda: torch.randn(4, 1, 1))],
    "affine_batch_norm": [
        of(lambda network, x: ((y := x * network.scale), y + 1.0), MAPS, scale=lambda: torch.randn(4, 1, 1)),
        of(lambda network, x: x * network.scale + 1.0, MAPS, scale=lambda: torch.randn(11)),
        of(lambda network, x: (x * network.scale, x + 1.0), MAPS, scale=lambda: torch.randn(4, 1, 1)),
        of(lambda network, x: x * torch.sigmoid(x) + 1.0, MAPS),
    ],
    "affine_depthwise": [of(lambda network, x: x * network.scale + 1.0, MAPS, scale=lambda: torch.randn(9, 1))],
    "padding_outside": [conv(MAPS, 4, 6, 3)],
    "padding_inside": [
        of(lambda network, x: network.layer(F.pad(x, (1, 2, 1, 1))), MAPS, layer=lambda: nn.Conv2d(4, 6, 3)),
        of(lambda network, x: network.layer(F.pad(x, (1, 1, 1, 1), value=1.0)), MAPS, layer=lambda: nn.Conv2d(4, 6, 3)),
        of(
            lambda network, x: network.layer(F.pad(x, (1, 1, 1, 1), mode="reflect")),
            MAPS,
            layer=lambda: nn.Conv2d(4, 6, 3),
        ),
        of(lambda network, x: network.layer(F.pad(x, (1, 1, 1, 1, 1, 1))), MAPS, layer=lambda: nn.Conv2d(6, 6, 3)),
        of(lambda network, x: network.layer(F.pad(x, (-1, -1, -1, -1))), MAPS, layer=lambda: nn.Conv2d(4, 6, 3)),
        of(lambda network, x: (y := F.pad(x, (1, 1, 1, 1)), network.layer(y)), MAPS, layer=lambda: nn.Conv2d(4, 6, 3)),
    ],
    "activation_after_pool": [
        sequence(MAPS, nn.GELU, lambda: nn.MaxPool2d(2)),
        sequence(MAPS, nn.SiLU, lambda: nn.MaxPool2d(2)),
        sequence(MAPS, nn.Hardswish, lambda: nn.MaxPool2d(2)),
        sequence(MAPS, lambda: nn.LeakyReLU(-0.5), lambda: nn.MaxPool2d(2)),
        sequence(MAPS, nn.Sigmoid, lambda: nn.AvgPool2d(2)),
    ],
    "activation_before_pool": [
        sequence(MAPS, lambda: nn.MaxPool2d(2), nn.GELU),
        sequence(MAPS, lambda: nn.AvgPool2d(2), nn.Sigmoid),
        of(lambda network, x: (y := F.max_pool2d(x, 2), torch.sigmoid(y)), MAPS),
    ],
    "gelu_spelled": [sequence((2, 5), lambda: nn.GELU("tanh")), sequence((2, 5), nn.SiLU)],
    "silu_spelled": [sequence((2, 5), nn.GELU)],
    "hardswish_spelled": [sequence((2, 5), nn.SiLU), sequence((2, 5), nn.Hardsigmoid)],
    "hardswish_gated": [sequence((2, 5), nn.Hardsigmoid)],
    "gelu_node": [
        of(lambda network, x: x * (1 + torch.erf(x / math.sqrt(2))), (2, 7)),
        of(lambda network, x: 0.5 * x * (1 + torch.erf(x / 1.4142)), (2, 7)),
        of(lambda network, x: 0.5 * torch.relu(x) * (1 + torch.erf(x / math.sqrt(2))), (2, 7)),
        of(lambda network, x: 0.5 * x * (2 + torch.erf(x / math.sqrt(2))), (2, 7)),
        of(lambda network, x: 0.5 * x * (1 + torch.tanh(x / math.sqrt(2))), (2, 7)),
    ],
    "silu_node": [
        of(lambda network, x: x * torch.sigmoid(1.702 * x), (2, 7)),
        of(lambda network, x: torch.relu(x) * torch.sigmoid(x), (2, 7)),
        of(lambda network, x: (y := torch.sigmoid(x), x * y), (2, 7)),
    ],
    "hardswish_node": [
        of(lambda network, x: x * F.hardtanh(x + 3, 0, 6), (2, 70)),
        of(lambda network, x: x * F.hardtanh(x + 2, 0, 6) / 6, (2, 70)),
        of(lambda network, x: x * F.hardtanh(x + 3, 0, 5) / 6, (2, 70)),
        of(lambda network, x: torch.relu(x) * F.relu6(x + 3) / 6, (2, 70)),
        of(lambda network, x: x * (F.hardsigmoid(x) / 6), (2, 70)),
    ],
    "concat_as_sum": [
        of(both, MAPS, layer=lambda: nn.Conv2d(8, 6, 3, groups=2), axis=lambda: 1),
        of(both, MAPS, layer=lambda: nn.Conv2d(4, 6, 3), axis=lambda: 2),
        of(
            lambda network, x: (y := torch.cat((F.relu(x), torch.tanh(x)), 1), network.layer(y)),
            MAPS,
            layer=lambda: nn.Conv2d(8, 6, 3),
        ),
    ],
    "sum_as_concat": [
        of(
            lambda network, x: network.first(F.relu(x)) + network.second(torch.tanh(x)),
            MAPS,
            first=lambda: nn.Conv2d(4, 6, 3, 1, 1),
            second=lambda: nn.Conv2d(4, 6, 1),
        ),
        of(
            lambda network, x: network.first(F.relu(x)) - network.second(torch.tanh(x)),
            MAPS,
            first=lambda: nn.Conv2d(4, 6, 3),
            second=lambda: nn.Conv2d(4, 6, 3),
        ),
        of(
            lambda network, x: network.first(F.relu(x)) + network.second(torch.tanh(x)),
            MAPS,
            first=lambda: nn.Conv2d(4, 6, 3, groups=2),
            second=lambda: nn.Conv2d(4, 6, 3, groups=2),
        ),
        _SHARED,
    ],
    "groups_apart": [conv(MAPS, 4, 6, 3), conv((1, 34, 5, 5), 34, 34, 3, groups=17)],
    "groups_dense": [conv(MAPS, 4, 6, 3), conv((1, 18, 5, 5), 18, 18, 3, groups=9)],
    "average_depthwise": [
        sequence(MAPS, lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        sequence(MAPS, lambda: nn.AvgPool2d(2, ceil_mode=True)),
        sequence(MAPS, lambda: nn.MaxPool2d(2)),
    ],
    "average_tiles": [sequence(MAPS, lambda: nn.AvgPool2d(3, 2)), sequence(MAPS, lambda: nn.AvgPool2d(2, padding=1))],
    "global_mean": [
        sequence(MAPS, lambda: nn.AdaptiveAvgPool2d(2)),
        sequence(MAPS, lambda: nn.AvgPool2d((9, 10))),
        sequence(MAPS, lambda: nn.AvgPool2d((9, 10), divisor_override=99)),
    ],
    "global_pool": [
        of(lambda network, x: x.mean(2), MAPS),
        of(lambda network, x: x.mean((1, 2)), MAPS),
        of(lambda network, x: x.amax((2, 3)), MAPS),
        sequence(MAPS, lambda: nn.AdaptiveAvgPool2d(1)),
    ],
    "global_product": [
        of(lambda network, x: x.mean((1, 2, 3)), MAPS),
        sequence(MAPS, lambda: nn.AdaptiveAvgPool2d((1, 2))),
    ],
}
