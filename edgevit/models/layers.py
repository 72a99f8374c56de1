"""Blocks that several families share."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv 1603.09382): drops whole samples of a branch in training. Keeps (N, ...).

    `rate` is the probability to drop. The remaining samples are scaled by 1 / (1 - rate), so evaluation needs no scale.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of (N, ...) in training mode; return x in evaluation mode."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], *(1,) * (x.dim() - 1)).bernoulli_(keep).div_(keep)
