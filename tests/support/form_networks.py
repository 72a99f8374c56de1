"""Networks on which forms apply, by form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from support.form_modules import (
    Case,
    Computed,
    alike,
    apart,
    attention,
    both,
    by_columns,
    conv,
    convnext,
    depthwise,
    fourier,
    kronecker,
    linear,
    normed,
    of,
    permuted_heads,
    plain_heads,
    sequence,
    split_heads,
    split_maps,
    statistics,
    two_sides,
)

SILU = of(lambda network, x: x * torch.sigmoid(x), (2, 3, 5))
GELU = of(lambda network, x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), (1, 3, 5))
WIDE = 600
TOKENS = (1, 6, 8)
BIAS: dict[str, Callable[[], Any]] = {"mask": lambda: torch.randn(1, 2, 6, 6)}
MAPS = (1, 4, 9, 11)

EXAMPLES: dict[str, list[Case]] = {
    # depthwise kernels in pieces
    "depthwise_rows": [
        depthwise(MAPS, 7, padding=3),
        depthwise((2, 4, 12, 9), (5, 3), stride=(2, 3), padding=(2, 0)),
        depthwise((1, 4, 13, 8), 3, dilation=2, stride=2, padding=2, bias=False),
    ],
    "depthwise_bands_2": [depthwise(MAPS, 7, stride=2, padding=3), depthwise(MAPS, (3, 1), bias=False)],
    "depthwise_bands_3": [depthwise((1, 4, 9, 19), (5, 7), padding=3, dilation=(1, 2)), depthwise(MAPS, 4)],
    "depthwise_columns": [
        depthwise(MAPS, 7, padding=3),
        depthwise((2, 4, 9, 14), (3, 5), stride=(3, 2), padding=(0, 2)),
        depthwise((1, 4, 8, 13), 3, dilation=2, stride=2, padding=2, bias=False),
    ],
    "depthwise_blocks_3": [depthwise(MAPS, 7, padding=3), depthwise((2, 4, 13, 11), 5, stride=2, bias=False)],
    "depthwise_blocks_4": [depthwise(MAPS, 7, padding=3), depthwise((1, 4, 17, 19), (5, 7), dilation=2, padding=4)],
    "depthwise_blocks_5": [depthwise(MAPS, 7, padding=3), depthwise((1, 4, 21, 17), 11, stride=(2, 3), padding=5)],
    "depthwise_taps_9": [depthwise(MAPS, 7, padding=3), depthwise((1, 4, 13, 15), (2, 11), stride=2, bias=False)],
    "depthwise_taps_25": [
        depthwise(MAPS, 7, padding=3),
        depthwise((1, 4, 31, 17), (27, 1), padding=5),
        depthwise((1, 4, 13, 33), (3, 31), dilation=(2, 1), bias=False),
    ],
    # strides
    **alike(
        ("strides_unshuffled", "strides_moved", "strides_sliced"),
        [
            conv((1, 3, 17, 22), 3, 5, 4, 4),
            conv((2, 3, 9, 12), 3, 5, 3, 2, 1, bias=False),
            conv((1, 3, 23, 19), 3, 5, 7, 4, 3),
            conv((1, 3, 16, 16), 3, 4, 2, 2, 1),
        ],
    ),
    "strided_pointwise_sliced": [conv((2, 3, 7, 10), 3, 5, 1, 2), conv(MAPS, 4, 6, 1, (1, 3), groups=2, bias=False)],
    "patch_tokens": [
        of(
            lambda network, x: network.layer(x).flatten(2).transpose(1, 2),
            (1, 3, 9, 13),
            layer=lambda: nn.Conv2d(3, 5, 4, 4),
        ),
        of(
            lambda network, x: network.layer(x).flatten(2).permute(0, 2, 1),
            (2, 3, 8, 6),
            layer=lambda: nn.Conv2d(3, 5, (2, 3), (2, 3), (1, 0), bias=False),
        ),
        of(lambda network, x: network.layer(x).flatten(2).transpose(2, 1), MAPS, layer=lambda: nn.Conv2d(4, 6, 1)),
    ],
    # 1x1 layers
    "output_chunks_1mb": [
        sequence((1, 500, 4, 5), lambda: nn.Conv2d(500, WIDE, 1), nn.ReLU, lambda: nn.MaxPool2d(2)),
        sequence(
            (2, 500, 5, 5),
            lambda: nn.Conv2d(500, WIDE, 1, bias=False),
            nn.GELU,
            lambda: nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=WIDE),
            lambda: Computed(lambda network, x: torch.sigmoid(x) * network.scale, scale=torch.randn(WIDE, 1, 1)),
        ),
        sequence((1, 3, 500), lambda: nn.Linear(500, WIDE), nn.GELU),
        conv((1, 500, 2, 3), 500, WIDE, 1),
    ],
    "output_chunks_2mb": [sequence((1, 900, 3, 2), lambda: nn.Conv2d(900, 700, 1), nn.SiLU)],
    "output_chunks_1mb_summed": [
        sequence(
            (1, 500, 4, 5),
            lambda: nn.Conv2d(500, WIDE, 1),
            nn.ReLU,
            lambda: nn.AvgPool2d(2),
            lambda: nn.Conv2d(WIDE, 8, 1),
        ),
        sequence((2, 3, 500), lambda: nn.Linear(500, WIDE), nn.GELU, lambda: nn.Linear(WIDE, 8, bias=False)),
    ],
    "output_chunks_2mb_summed": [
        sequence((1, 900, 3, 3), lambda: nn.Conv2d(900, 700, 1), nn.Tanh, lambda: nn.Conv2d(700, 4, 3, 2, 1)),
    ],
    **alike(
        ("pointwise_tokens", "pointwise_rows", "pointwise_matrix"),
        [conv(MAPS, 4, 6, 1), conv((3, 4, 1, 7), 4, 2, 1, bias=False)],
    ),
    "channels_last": [
        conv(MAPS, 4, 6, 1),
        conv((3, 4, 1, 7), 4, 2, 1, bias=False),
        sequence((2, 4, 3, 5), lambda: nn.Conv2d(4, 8, 1), nn.GELU, lambda: nn.Conv2d(8, 3, 1, bias=False)),
        of(
            lambda network, x: network.shift - network.scale * F.gelu(network.layer(x)),
            MAPS,
            layer=lambda: nn.Conv2d(4, 3, 1),
            scale=lambda: torch.randn(3, 1, 1),
            shift=lambda: torch.randn(3, 1, 1),
        ),
    ],
    "pixel_bands_256kb": [
        sequence(
            (1, 4, 45, 37), lambda: nn.Conv2d(4, 64, 1), nn.GELU, lambda: nn.Conv2d(64, 6, 1, groups=2, bias=False)
        ),
        sequence((2, 1111, 8), lambda: nn.Linear(8, 80, bias=False), nn.SiLU, lambda: nn.Linear(80, 8), nn.Tanh),
    ],
    "pixel_bands_1024kb": [
        sequence((1, 4001, 8), lambda: nn.Linear(8, 80), nn.ReLU, lambda: nn.Linear(80, 8)),
    ],
    "pointwise_groups": [conv(MAPS, 4, 6, 1, groups=2), conv((2, 12, 3, 5), 12, 12, 1, groups=3, bias=False)],
    "tokens_pointwise": [linear((1, 7, 5), 5, 3), linear((2, 3, 4, 5), 5, 8, bias=False)],
    "tokens_rows": [linear((1, 7, 5), 5, 3), linear((2, 3, 4, 5), 5, 8, bias=False)],
    "tokens_product": [linear((1, 7, 5), 5, 3), linear((2, 5), 5, 8, bias=False)],
    "channels_first": [
        of(
            lambda network, x: (network.shift - network.scale * F.gelu(network.layer(x.permute(0, 2, 3, 1)))).permute(
                0, 3, 1, 2
            ),
            MAPS,
            layer=lambda: nn.Linear(4, 3),
            scale=lambda: torch.randn(3),
            shift=lambda: torch.randn(3),
        ),
        of(
            convnext,
            MAPS,
            first=lambda: nn.Linear(4, 8),
            second=lambda: nn.Linear(8, 4, bias=False),
            scale=lambda: torch.randn(4),
        ),
        of(
            lambda network, x: network.layer(F.gelu(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2),
            (2, 4, 3, 5),
            layer=lambda: nn.Linear(4, 3),
        ),
    ],
    # attention
    "attention_scaled_product": [
        of(by_columns, (1, 8, 3, 5), **{name: lambda: nn.Conv2d(8, 8, 1) for name in "qkv"}),
        attention(TOKENS),
        attention((2, 5, 12), heads=3, scale=1.0),
        attention(TOKENS, fused=False, place="query"),
        attention(TOKENS, fused=False, place="key"),
    ],
    "attention_scaled_query": [
        attention(TOKENS, heads=1),
        attention((2, 6, 8), BIAS, fused=False, place="product", mask=True),
        attention(TOKENS, fused=False, place="key"),
    ],
    "attention_scaled_key": [
        attention(TOKENS),
        attention((2, 5, 12), heads=3, fused=False, place="product"),
        attention(TOKENS, fused=False, place="query"),
    ],
    "attention_keys_once": [
        of(
            lambda network, x: F.scaled_dot_product_attention(
                *(layer(x).reshape(x.shape[0], 6, 2, 4).transpose(1, 2) for layer in (network.q, network.k, network.v))
            ),
            TOKENS,
            **{name: lambda: nn.Linear(8, 8) for name in "qkv"},
        ),
    ],
    "attention_fused": [
        attention(TOKENS, fused=False, place="product"),
        attention((2, 6, 8), BIAS, fused=False, place="query", mask=True),
        attention((2, 5, 12), heads=3, fused=False, place="key"),
        attention(TOKENS, fused=False),
    ],
    "attention_batched": [
        attention(TOKENS),
        attention((2, 5, 12), heads=3, fused=False, place="query"),
        of(by_columns, (1, 8, 3, 5), **{name: lambda: nn.Conv2d(8, 8, 1) for name in "qkv"}),
    ],
    "attention_layers_apart": [
        of(split_heads, TOKENS, layer=lambda: nn.Linear(8, 24)),
        of(permuted_heads, (2, 5, 12), layer=lambda: nn.Linear(12, 36, bias=False)),
        of(split_maps, (1, 8, 3, 5), layer=lambda: nn.Conv2d(8, 24, 1)),
    ],
    "attention_layers_joined": [
        of(plain_heads, TOKENS, **{name: lambda: nn.Linear(8, 8) for name in "qkv"}),
        of(
            plain_heads,
            (2, 6, 8),
            q=lambda: nn.Linear(8, 8),
            k=lambda: nn.Linear(8, 8, bias=False),
            v=lambda: nn.Linear(8, 8),
        ),
        of(by_columns, (1, 8, 3, 5), **{name: lambda: nn.Conv2d(8, 8, 1, bias=False) for name in "qkv"}),
    ],
    "attention_columns": [
        of(by_columns, (1, 8, 3, 5), **{name: lambda: nn.Conv2d(8, 8, 1) for name in "qkv"}),
        of(split_maps, (2, 8, 3, 3), layer=lambda: nn.Conv2d(8, 24, 1)),
    ],
    "maxima_reduced": [
        of(lambda network, x: x.reshape(-1, 3, 2, 5).amax(1), (1, 6, 5)),
        of(lambda network, x: x.reshape(x.shape[0], 4, 2, 5).amax(1), (2, 8, 5)),
    ],
    "maxima_sliced": [
        of(lambda network, x: x.reshape(-1, 3, 2, 5).amax(1), (1, 6, 5)),
        of(lambda network, x: torch.tanh(x).amax(3), (2, 3, 4, 7)),
    ],
    # constant products
    "product_separated": [
        of(lambda network, x: x.flatten(2) @ network.matrix, (1, 3, 4, 6), matrix=lambda: kronecker(4, 3, 6, 5)),
        of(
            lambda network, x: x @ network.matrix,
            (2, 3, 40),
            matrix=lambda: kronecker(5, 4, 8, 6) + kronecker(5, 4, 8, 6),
        ),
    ],
    "products_merged": [
        of(lambda network, x: fourier(x), (1, 2, 10, 9)),
        of(two_sides, (1, 3, 6, 5), rows=lambda: torch.randn(4, 6), columns=lambda: torch.randn(5, 7)),
        of(
            lambda network, x: network.rows @ (x @ network.columns).reshape(-1, 3, 4, 9),
            (2, 3, 6, 5),
            rows=lambda: torch.randn(2, 4),
            columns=lambda: torch.randn(5, 6),
        ),
    ],
    "product_linear": [
        of(lambda network, x: x @ network.matrix, (1, 3, 4, 6), matrix=lambda: torch.randn(6, 5)),
        of(lambda network, x: x @ network.matrix, (2, 7), matrix=lambda: torch.randn(7, 3)),
    ],
    "product_rows": [
        of(lambda network, x: x @ network.matrix, (1, 3, 4, 6), matrix=lambda: torch.randn(6, 5)),
        of(lambda network, x: x @ network.matrix, (2, 3, 7), matrix=lambda: torch.randn(7, 3)),
    ],
    "product_pointwise": [
        of(lambda network, x: network.matrix @ x, (1, 3, 4, 6), matrix=lambda: torch.randn(5, 4)),
        of(lambda network, x: network.matrix @ x, (2, 7, 3), matrix=lambda: torch.randn(2, 7)),
    ],
    "product_turned": [
        of(lambda network, x: network.matrix @ x, (1, 3, 4, 6), matrix=lambda: torch.randn(5, 4)),
        of(lambda network, x: network.matrix @ x, (2, 7, 3), matrix=lambda: torch.randn(2, 7)),
    ],
    # shifts
    "roll_sliced": [
        of(lambda network, x: torch.roll(x, 2, 2), MAPS),
        of(lambda network, x: torch.roll(x, -3, -1), (2, 5, 7)),
    ],
    "roll_gathered": [
        of(lambda network, x: torch.roll(x, 12, 3), MAPS),
        of(lambda network, x: torch.roll(x, -3, 1), (2, 5, 7)),
    ],
    "slices_rolled": [
        of(lambda network, x: torch.cat((x[:, :, 2:], x[:, :, :2]), 2), MAPS),
        of(lambda network, x: torch.cat((x[:, -3:], x[:, :-3]), 1), (2, 5, 7)),
    ],
    "gather_sliced": [
        of(lambda network, x: x.index_select(2, network.index), MAPS, index=lambda: torch.tensor([3, 4, 5, 0, 1, 8])),
        of(lambda network, x: x.index_select(1, network.index), (2, 4, 5), index=lambda: torch.tensor([1, 2])),
    ],
    # norms
    "layer_norm_spelled": [
        (lambda: nn.LayerNorm(7), (1, 5, 7)),
        (lambda: nn.LayerNorm((4, 5), elementwise_affine=False), (2, 3, 4, 5)),
    ],
    "group_norm_spelled": [(lambda: nn.GroupNorm(2, 4), MAPS), (lambda: nn.GroupNorm(1, 6, affine=False), (2, 6, 5))],
    "group_norm_as_layer": [(lambda: nn.GroupNorm(2, 4), MAPS), (lambda: nn.GroupNorm(1, 6, affine=False), (2, 6, 5))],
    "map_norm_spelled": [(lambda: nn.GroupNorm(1, 4), MAPS), (lambda: nn.GroupNorm(1, 6, affine=False), (2, 6, 5))],
    "map_norm_pooled": [(lambda: nn.GroupNorm(1, 4), MAPS), (lambda: nn.GroupNorm(1, 6, affine=False), (2, 6, 5, 3))],
    "map_norm_as_layer": [(lambda: nn.GroupNorm(1, 4), MAPS), (lambda: nn.GroupNorm(1, 6, affine=False), (2, 6, 5))],
    "norm_node": [
        of(lambda network, x: normed(x, -1), (1, 5, 7)),
        of(lambda network, x: normed(x, 1, divides=True), (2, 4, 5, 3)),
        of(lambda network, x: normed(x, 1, by_variance=True), MAPS),
    ],
    "channel_norm_spelled": [
        of(
            lambda network, x: network.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            MAPS,
            norm=lambda: nn.LayerNorm(4),
        ),
    ],
    "batch_norm_spelled": [
        (lambda: statistics(nn.BatchNorm2d(4)), MAPS),
        (lambda: statistics(nn.BatchNorm2d(3, affine=False)), (2, 3, 5, 7)),
    ],
    "affine_batch_norm": [
        of(
            lambda network, x: x * network.scale + network.shift,
            MAPS,
            scale=lambda: torch.randn(4, 1, 1),
            shift=lambda: torch.randn(4, 1, 1),
        ),
    ],
    "affine_depthwise": [
        (lambda: statistics(nn.BatchNorm2d(4)), MAPS),
        of(lambda network, x: x * network.scale + 2.0, (2, 3, 5, 7), scale=lambda: torch.randn(1, 3, 1, 1)),
    ],
    # padding
    "padding_outside": [
        conv(MAPS, 4, 6, 3, padding=1),
        conv((2, 4, 9, 8), 4, 4, (5, 3), stride=2, padding=(2, 1), dilation=2, groups=2, bias=False),
    ],
    "padding_inside": [
        of(lambda network, x: network.layer(F.pad(x, (2, 2, 1, 1))), MAPS, layer=lambda: nn.Conv2d(4, 6, 3, 2, 1)),
        sequence((2, 4, 9, 8), lambda: nn.ZeroPad2d(1), lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False)),
    ],
    # activations and pools
    "activation_after_pool": [
        sequence(MAPS, nn.Sigmoid, lambda: nn.MaxPool2d(3, 2, 1)),
        sequence((2, 3, 7, 9), lambda: nn.LeakyReLU(0.1), lambda: nn.MaxPool2d(2, ceil_mode=True)),
        sequence(MAPS, nn.ReLU6, lambda: nn.MaxPool2d((2, 3), (1, 2), dilation=2)),
        sequence(MAPS, nn.Hardsigmoid, lambda: nn.MaxPool2d(2)),
        sequence(MAPS, nn.ELU, lambda: nn.MaxPool2d(2)),
    ],
    "activation_before_pool": [
        sequence(MAPS, lambda: nn.MaxPool2d(3, 2, 1), nn.ReLU),
        sequence((2, 3, 7, 9), lambda: nn.MaxPool2d(2, ceil_mode=True), nn.Tanh),
    ],
    "gelu_spelled": [sequence((2, 3, 5), nn.GELU)],
    "silu_spelled": [sequence((2, 3, 5), nn.SiLU)],
    "hardswish_spelled": [sequence((2, 3, 50), nn.Hardswish)],
    "hardswish_gated": [sequence((2, 3, 50), nn.Hardswish)],
    "gelu_node": [
        GELU,
        of(lambda network, x: x * (torch.erf(x * math.sqrt(0.5)) + 1) * 0.5, (2, 7)),
        of(lambda network, x: (x * 0.5) * (1 + torch.erf(x / math.sqrt(2))), (2, 7)),
        of(lambda network, x: x * (1 + torch.erf(x / math.sqrt(2))) / 2, (1, 7)),
    ],
    "silu_node": [SILU, of(lambda network, x: torch.sigmoid(x) * x, (1, 4, 3, 3))],
    "hardswish_node": [
        of(lambda network, x: x * F.hardtanh(x + 3, 0, 6) / 6, (1, 70)),
        of(lambda network, x: x * (F.relu6(x + 3.0) / 6), (2, 70)),
        of(lambda network, x: x * F.hardsigmoid(x), (2, 70)),
        of(lambda network, x: torch.clamp(x + 3, 0, 6) * x * (1 / 6), (2, 70)),
    ],
    # sums and groups
    "concat_as_sum": [
        of(both, MAPS, layer=lambda: nn.Conv2d(8, 6, 3, 2, 1), axis=lambda: 1),
        of(both, (2, 3, 5), layer=lambda: nn.Linear(10, 4, bias=False), axis=lambda: -1),
    ],
    "sum_as_concat": [
        of(apart, MAPS, first=lambda: nn.Conv2d(4, 6, 3, 2, 1), second=lambda: nn.Conv2d(4, 6, 3, 2, 1, bias=False)),
        of(apart, (2, 3, 5), first=lambda: nn.Linear(5, 4), second=lambda: nn.Linear(5, 4)),
    ],
    "groups_apart": [conv(MAPS, 4, 6, 3, groups=2), conv((2, 6, 5, 9), 6, 6, (3, 1), 2, 1, groups=3, bias=False)],
    "groups_dense": [conv(MAPS, 4, 6, 3, groups=2), depthwise((2, 4, 5, 9), 3, stride=2, padding=1, bias=False)],
    # averages
    "average_depthwise": [
        sequence(MAPS, lambda: nn.AvgPool2d(3, 2, 1)),
        sequence((2, 3, 7, 9), lambda: nn.AvgPool2d((2, 3))),
        sequence(MAPS, lambda: nn.AvgPool2d(3, 1, 1, divisor_override=4)),
    ],
    "average_tiles": [sequence(MAPS, lambda: nn.AvgPool2d(2)), sequence((2, 3, 6, 9), lambda: nn.AvgPool2d((2, 3)))],
    "global_mean": [
        sequence(MAPS, lambda: nn.AdaptiveAvgPool2d(1)),
        sequence((2, 3, 5, 7), lambda: nn.AvgPool2d((5, 7))),
    ],
    "global_pool": [
        of(lambda network, x: x.mean((2, 3)), MAPS),
        of(lambda network, x: x.mean((-1, -2), keepdim=True), (2, 3, 5, 7)),
    ],
    "global_product": [
        of(lambda network, x: x.mean((2, 3)), MAPS),
        sequence((2, 3, 5, 7), lambda: nn.AdaptiveAvgPool2d(1)),
    ],
}
