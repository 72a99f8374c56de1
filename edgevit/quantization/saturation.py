"""Saturation: what x86 without a dot product of bytes computes from a network in int8.

There, two neighbouring products of a uint8 and an int8 are added in 16 bits, and their sum is clipped. Neighbours are
two channels at one place of the kernel. Depthwise layers are computed otherwise, and do not clip.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Interpreter, Node

from edgevit.folding import Folded
from edgevit.folding.graph import CONVOLUTION, LINEAR, arguments, is_call
from edgevit.quantization.simulation import DEQUANTIZE, DEQUANTIZE_CHANNELS, constant

LOWEST, HIGHEST = -(2**15), 2**15 - 1
# Of products at once, 4 bytes each.
_CHUNK = 2**25


class Saturating(Interpreter):
    """A simulation whose layers add pairs of products in 16 bits. The other operators compute as they did.

    clipped: how many sums were clipped in all runs.
    """

    def __init__(self, simulation: Folded) -> None:
        super().__init__(simulation.net)
        self.clipped = 0

    def __call__(self, *inputs: Tensor) -> Any:
        """Compute the outputs."""
        return self.run(*inputs)

    def run_node(self, node: Node) -> Any:
        """Compute a node; of a layer on unsigned numbers, with pairs in 16 bits."""
        layer = self._layer(node)
        if layer is None:
            return super().run_node(node)
        named, (steps, zero_point, scale), (kernel, scales) = layer
        if is_call(node, LINEAR):
            sums = self._of_rows(steps.flatten(0, -2), kernel, zero_point).reshape(*steps.shape[:-1], -1)
            result = sums * (scales * scale)
        else:
            sums = self._of_maps(steps, kernel, zero_point, named)
            result = sums * (scales * scale)[:, None, None]
        if named["bias"] is None:
            return result
        bias = constant(self.module, named["bias"])  # type: ignore[arg-type]
        return result + (bias if is_call(node, LINEAR) else bias[:, None, None])

    def _layer(self, node: Node) -> tuple[dict[str, Any], tuple[Tensor, int, float], tuple[Tensor, Tensor]] | None:
        """Return a layer's arguments, the steps of its input and its weight; None where nothing is added in pairs."""
        if not is_call(node, CONVOLUTION, LINEAR):
            return None
        named = arguments(node)
        source, weight = named["input"], named["weight"]
        if not (is_call(source, DEQUANTIZE) and is_call(weight, DEQUANTIZE_CHANNELS)):
            return None
        numbers: Any = source.args
        _, scale, zero_point, _, _, dtype = numbers[:6]
        kernel, scales = (constant(self.module, part) for part in weight.args[:2])  # type: ignore[arg-type]
        if dtype != torch.uint8 or (named.get("groups", 1) > 1 and kernel.shape[1] == 1):
            return None
        values: Any = self.fetch_args_kwargs_from_env(node)[0][0]
        return named, (torch.round(values / scale) + zero_point, zero_point, scale), (kernel.float(), scales)

    def _of_maps(self, steps: Tensor, kernel: Tensor, zero_point: int, named: dict[str, Any]) -> Tensor:
        """Return the sums of a convolution over maps, (N, out, H, W)."""
        sides, stride, dilation, groups = kernel.shape[2:], named["stride"], named["dilation"], named["groups"]
        vertical, horizontal = named["padding"]
        padded = F.pad(steps, [horizontal, horizontal, vertical, vertical], value=float(zero_point))
        columns = F.unfold(padded, tuple(sides), dilation=dilation, stride=stride)
        count, channels = steps.shape[:2]
        # From (channel, place) to (place, channel): neighbours are channels.
        ordered = columns.reshape(count, groups, channels // groups, sides.numel(), -1).transpose(2, 3)
        rows = ordered.flatten(2, 3).permute(1, 0, 3, 2).flatten(1, 2)
        weights = kernel.flatten(2).transpose(1, 2).flatten(1).reshape(groups, -1, rows.shape[2])
        sums = [self._of_rows(row, weight, zero_point) for row, weight in zip(rows, weights, strict=True)]
        size = [
            (whole - far * (side - 1) - 1) // step + 1
            for whole, side, step, far in zip(padded.shape[2:], sides, stride, dilation, strict=True)
        ]
        return torch.cat(sums, 1).reshape(count, *size, -1).permute(0, 3, 1, 2)

    def _of_rows(self, rows: Tensor, weight: Tensor, zero_point: int) -> Tensor:
        """Return the sums of products of rows (N, K) with a weight (out, K), pair by pair in 16 bits: (N, out)."""
        if rows.shape[1] % 2:
            rows, weight = F.pad(rows, [0, 1]), F.pad(weight, [0, 1])
        chunks = []
        for part in torch.split(rows, max(1, _CHUNK // weight.numel())):
            pairs = (part[:, None] * weight).reshape(len(part), len(weight), -1, 2).sum(3)
            clipped = pairs.clamp(LOWEST, HIGHEST)
            self.clipped += int((clipped != pairs).sum())
            chunks.append(clipped.sum(2, dtype=torch.float64))
        return (torch.cat(chunks) - zero_point * weight.sum(1, dtype=torch.float64)).float()
