"""A network in a second, with what phone runtimes have trouble with: attention, rolls, norms of tokens, pooling, GELU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mixed(nn.Module):
    """(B, 3, 16, 12) -> (B, 5)."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(1, 8)
        self.mix = nn.Conv2d(16, 8, 1)
        self.tokens = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.pool = nn.MaxPool2d(2)
        self.spread = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(nn.functional.gelu(self.stem(x)))
        x = nn.functional.gelu(self.mix(torch.cat([x, x.roll((2, -1), (2, 3))], 1)))
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.tokens(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = (tokens + self.out(mixed)).transpose(1, 2).unflatten(2, (8, 6))
        x = self.spread @ self.pool(nn.functional.silu(x))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
