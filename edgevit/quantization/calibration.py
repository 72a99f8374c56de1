"""Calibration: ranges, means and some values of a network's tensors on samples, gathered batch by batch.

What is kept of a tensor does not grow with the number of samples: two ends and a mean of each channel, and values at a
stride that doubles whenever there are too many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from edgevit.errors import QuantizationError
from edgevit.folding import Folded

# Of each tensor, at most twice as many values are kept.
KEPT_VALUES = 2**14


@dataclass(frozen=True, eq=False)
class Observed:
    """What a tensor had on the samples: ends and mean of each channel (C,) in float64, and every stride-th value."""

    low: Tensor
    high: Tensor
    mean: Tensor
    values: Tensor
    stride: int

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest number of all channels."""
        return float(self.low.min()), float(self.high.max())

    @property
    def reach(self) -> Tensor:
        """The largest magnitude of each channel, (C,)."""
        return torch.maximum(-self.low, self.high).clamp(min=0.0)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the tensors of a network had on samples, by the names of their nodes and the axis of their channels."""

    tensors: Mapping[tuple[str, int], Observed]
    samples: int

    def observed(self, name: str, axis: int | None = None) -> Observed:
        """Return what a tensor had, with the channels along this axis; of any axis without one."""
        if axis is not None:
            return self.tensors[name, axis]
        return next(observed for (tensor, _), observed in self.tensors.items() if tensor == name)


class _Tally:
    """Ends, sum and values of one tensor, with its channels along one axis."""

    def __init__(self, axis: int) -> None:
        self._axis, self._stride, self._numbers = axis, 1, 0
        self._low = self._high = self._sum = torch.zeros(0, dtype=torch.float64)
        self._values: Tensor = torch.zeros(0)

    def add(self, tensor: Tensor) -> None:
        """Take a batch."""
        rows = tensor.movedim(self._axis, 0).flatten(1)
        low, high = (end.double() for end in torch.aminmax(rows, dim=1))
        total = rows.sum(1, dtype=torch.float64)
        if self._numbers:
            low, high, total = torch.minimum(self._low, low), torch.maximum(self._high, high), self._sum + total
        self._low, self._high, self._sum = low, high, total
        self._numbers += rows.shape[1]
        self._values = torch.cat([self._values, tensor.flatten()[:: self._stride].float()])
        while len(self._values) > 2 * KEPT_VALUES:
            self._values = self._values[::2].clone()
            self._stride *= 2

    def observed(self) -> Observed:
        """Return what was gathered."""
        return Observed(self._low, self._high, self._sum / self._numbers, self._values, self._stride)


class _Watcher(Interpreter):
    """Runs a network and shows the results of some nodes to their tallies."""

    def __init__(self, net: torch.fx.GraphModule, tallies: Mapping[str, list[_Tally]]) -> None:
        super().__init__(net)
        self._tallies = tallies

    def run_node(self, node: Node) -> Any:
        """Compute a node."""
        result = super().run_node(node)
        for tally in self._tallies.get(node.name, ()):
            tally.add(result)
        return result


def calibrate(
    folded: Folded, samples: Iterable[tuple[Tensor, ...]], watched: Collection[tuple[str, int]]
) -> Calibration:
    """Run a network on batches of samples, and return what the watched tensors had.

    watched: pairs of a node's name and the axis of its channels. Raises QuantizationError without samples, and where a
    tensor is not finite on one.
    """
    tallies = {(name, axis): _Tally(axis) for name, axis in sorted(watched)}
    by_name: dict[str, list[_Tally]] = {}
    for (name, _), tally in tallies.items():
        by_name.setdefault(name, []).append(tally)
    watcher, count = _Watcher(folded.net, by_name), 0
    with torch.inference_mode():
        for inputs in samples:
            watcher.run(*inputs)
            count += inputs[0].shape[0] if inputs[0].dim() else 1
    if not count:
        raise QuantizationError("there are no samples to calibrate on", fix="--data FOLDER of images, or FILE.npy")
    tensors = {key: tally.observed() for key, tally in tallies.items()}
    for (name, _), observed in tensors.items():
        if not bool(torch.isfinite(observed.low).all() and torch.isfinite(observed.high).all()):
            raise QuantizationError(
                "a tensor is not finite on these samples", where=name, fix="samples that the model can compute"
            )
    return Calibration(tensors, count)
