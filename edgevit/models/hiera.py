"""Hiera (Ryali et al., arXiv 2306.00989): transformer blocks whose tokens are pooled between stages. Training form.

Tokens are put once in an order in which all that follows is plain indexing. The parts of a token's index are its place
in a square of 2x2, the place of that square in 4x4, of that in 8x8, and last the mask unit of 32x32 pixels. So pooling
2x2 squares is a maximum over the first part, and attention inside units is attention in which units are more heads.
LayerNorm's eps is 1e-6, GELU exact. Keys and shapes are those of the official checkpoints
(github.com/facebookresearch/hiera, code Apache-2.0, weights CC-BY-NC-4.0), words and code ours.

Departures from the official code: forward returns logits in evaluation mode too, where the official head applies a
softmax; units and heads share an axis, so that attention sees tensors of rank 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.models.layers import DropPath
from edgevit.records.model import ModelCard, Preprocessing
from edgevit_runtime.record import TensorSpec

HEAD_STD, HEAD_SCALE = 0.02, 0.001  # official initialisation: all weights, and the classifier on top of it
PATCH = 4  # pixels a side between two tokens
UNIT = 8  # tokens a side of a mask unit, at the first stage
POOLS = 3  # times that tokens are pooled, from 8x8 to 1 a unit
RATIO = 4  # hidden over outer channels of the MLPs
IN_UNITS = (True, True, False, False)  # whether a stage attends within mask units
DROP_PATH = 0.1  # of the last block; grows linearly from 0 at the first


class PatchEmbed(nn.Module):
    """Overlapping patches as tokens in raster order: (N, 3, H, W) -> (N, HW / 16, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 7, PATCH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, HW / 16, C)."""
        out: Tensor = self.proj(x)
        return out.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Attention within mask units, or over all tokens (units = 1): (N, L, C) -> (N, L, C'), L / 4 where it pools.

    Where it pools, each query is the maximum over its 2x2 square.
    """

    def __init__(self, inputs: int, outputs: int, heads: int, *, pools: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(inputs, 3 * outputs)
        self.proj = nn.Linear(outputs, outputs)
        self.heads, self.pools = heads, pools

    def forward(self, x: Tensor, units: int) -> Tensor:
        """Map (N, L, C) to (N, L or L / 4, C')."""
        query, key, value = self.qkv(x).chunk(3, dim=2)
        query = _pool(query) if self.pools else query
        query, key, value = (_by_head(part, self.heads, units) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value)  # (N, units * heads, L / units, C' / heads)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(x.shape[0], -1, self.proj.in_features))
        return out


class MLP(nn.Module):
    """C -> 4C -> C with GELU between, on each token. Keeps (N, L, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, RATIO * channels)
        self.fc2 = nn.Linear(RATIO * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, C) to (N, L, C)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention, then MLP, each after a norm and beside a shortcut: (N, L, C) -> (N, L or L / 4, C').

    Where the channels grow, the shortcut is a projection of the normed tokens, pooled as the queries are.
    """

    def __init__(self, inputs: int, outputs: int, heads: int, drop_path: float, *, in_units: bool) -> None:
        super().__init__()
        grows = inputs != outputs
        self.norm1 = _norm(inputs)
        self.attn = Attention(inputs, outputs, heads, pools=grows)
        self.norm2 = _norm(outputs)
        self.mlp = MLP(outputs)
        self.proj = nn.Linear(inputs, outputs) if grows else None
        self.drop_path = DropPath(drop_path)
        self.in_units = in_units

    def forward(self, x: Tensor, units: int) -> Tensor:
        """Map (N, L, C) to (N, L or L / 4, C'). `units` is the number of mask units in the image."""
        normed = self.norm1(x)
        x = x if self.proj is None else _pool(self.proj(normed))
        x = x + self.drop_path(self.attn(normed, units if self.in_units else 1))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class Head(nn.Module):
    """The classifier: (N, C) -> logits (N, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C) to (N, classes)."""
        out: Tensor = self.projection(x)
        return out


class Hiera(nn.Module):
    """The training form: image (N, 3, S, S), ImageNet-normalised -> logits (N, classes).

    Channels double at each of the four stages, and heads with them, from `channels` and `heads`. `size` is S, a
    multiple of 32 and fixed by the position embedding.
    """

    def __init__(
        self, channels: int, depths: Sequence[int], *, heads: int = 1, size: int = 224, classes: int = 1000
    ) -> None:
        super().__init__()
        side = size // PATCH
        self.units = (side // UNIT) ** 2
        self.patch_embed = PatchEmbed(channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, side**2, channels))
        self.blocks = nn.ModuleList(_blocks(channels, depths, heads))
        self.norm = _norm(channels << len(depths) - 1)
        self.head = Head(channels << len(depths) - 1, classes)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, 3, S, S) to logits (N, classes)."""
        x = _unroll(self.patch_embed(x) + self.pos_embed)  # (N, 3, 224, 224) -> (N, 3136, C)
        for block in self.blocks:
            x = block(x, self.units)  # 3136 -> 784 -> 196 -> 49 tokens
        logits: Tensor = self.head(self.norm(x.mean(dim=1)))  # -> (N, 8C) -> (N, 1000)
        return logits

    def _initialise(self) -> None:
        """Apply the official initialisation."""
        nn.init.trunc_normal_(self.pos_embed, std=HEAD_STD)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                nn.init.trunc_normal_(module.weight, std=HEAD_STD)
                nn.init.constant_(module.bias, HEAD_STD)
            elif isinstance(module, nn.LayerNorm):
                nn.init.constant_(module.bias, HEAD_STD)
        with torch.no_grad():
            self.head.projection.weight.mul_(HEAD_SCALE)
            self.head.projection.bias.mul_(HEAD_SCALE)


def _blocks(channels: int, depths: Sequence[int], heads: int) -> Iterator[Block]:
    """Build the blocks. A stage's first block pools and grows, but attends as the stage before: keys stay unpooled."""
    rates = iter(torch.linspace(0.0, DROP_PATH, sum(depths), device="cpu").tolist())
    before = channels
    for stage, depth in enumerate(depths):
        width = channels << stage
        for i in range(depth):
            in_units = IN_UNITS[stage - 1 if stage and not i else stage]
            yield Block(before, width, heads << stage, next(rates), in_units=in_units)
            before = width


def _norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)


def _unroll(x: Tensor) -> Tensor:
    """Reorder tokens from raster order to (index in 2x2, its index in 4x4, its in 8x8, unit). Keeps (N, L, C)."""
    batch, tokens, channels = x.shape
    side = math.isqrt(tokens)
    for _ in range(POOLS):  # the indices so far are part of the batch
        side //= 2
        x = x.reshape(-1, side, 2, side, 2, channels).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, tokens, channels)


def _pool(x: Tensor) -> Tensor:
    """Return the maximum over each 2x2 square: (N, L, C) -> (N, L / 4, C)."""
    return x.reshape(x.shape[0], 4, -1, x.shape[2]).amax(dim=1)


def _by_head(x: Tensor, heads: int, units: int) -> Tensor:
    """Reshape (N, L, C) to (N, units * heads, L / units, C / heads): a unit is the last part of a token's index."""
    return x.reshape(x.shape[0], -1, units * heads, x.shape[2] // heads).transpose(1, 2)


# --- variants -----------------------------------------------------------------------------------------------------

CARDS = (
    ModelCard(
        name="hiera_tiny",
        family="hiera",
        inputs=(TensorSpec("image", (-1, 3, 224, 224), "float32"),),
        source="arXiv 2306.00989; github.com/facebookresearch/hiera",
        licence="Apache-2.0; official weights CC-BY-NC-4.0",
        provenance="published",
        top1_percent=82.8,
        top1_source="README of github.com/facebookresearch/hiera",
        preprocessing=Preprocessing(),
    ),
)


def build(name: str, *, classes: int = 1000) -> Hiera:
    """Build the variant called `name`, in training form and mode, with the official random initialisation."""
    return Hiera(96, (1, 2, 7, 2), classes=classes)
