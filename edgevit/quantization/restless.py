"""Restlessness: how far engines may differ that compute one int8 network, each in its own order.

An engine sums in another order, rounds a bias to an integer, or approximates an activation. So a number near the middle
between two steps may be rounded to the other one, and all that follows is computed from it. In a deep network such
steps are most of the noise that int8 adds at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from edgevit.folding import Folded
from edgevit.quantization.simulation import QUANTIZE

# By which share of a step a number may differ before it is rounded. Rounding adds half a step at most.
SHARE = 1 / 64
_SEED = 0


class Restless(Interpreter):
    """A simulation whose numbers are changed by a small share of a step before they are rounded, always alike."""

    def __init__(self, simulation: Folded) -> None:
        super().__init__(simulation.net)
        self._random = torch.Generator()

    def __call__(self, *inputs: Tensor) -> Any:
        """Compute the outputs."""
        self._random.manual_seed(_SEED)
        return self.run(*inputs)

    def run_node(self, node: Node) -> Any:
        """Compute a node; of a quantization, from changed numbers."""
        if node.target is not QUANTIZE:
            return super().run_node(node)
        values, *numbers = self.fetch_args_kwargs_from_env(node)[0]
        return QUANTIZE(values + self._changes(values, numbers), *numbers)

    def _changes(self, values: Tensor, numbers: Sequence[Any]) -> Tensor:
        between = torch.rand(values.shape, generator=self._random).mul_(2).sub_(1)
        return between.mul_(SHARE * numbers[0])
