"""Random networks for the tests of folding: graphs of the operators that trained vision networks are made of.

A network is a list of steps. Each appends one value or several, computed from values before it. hypothesis draws them,
so it also finds the smallest network that shows a mistake; `describe()` lists its steps. Sizes come from tensors, so
that the batch stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.folding import graph

Choice = TypeVar("Choice")
Compute = Callable[..., "Tensor | Sequence[Tensor]"]
# Networks are drawn at this batch, and a network must take any other.
BATCH = 2
_MOST_NUMBERS = 3000
_MOST_CHANNELS = 24
NORMS = (
    graph.BATCH_NORM,
    torch.ops.aten.instance_norm.default,
    torch.ops.aten.layer_norm.default,
    torch.ops.aten.group_norm.default,
)
NORM_MODULES = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
)


class Drawing(Protocol):
    """hypothesis' function that draws a value of a strategy."""

    def __call__(self, strategy: st.SearchStrategy[Choice], /) -> Choice: ...


@dataclass(frozen=True)
class Step:
    """A step of a network: its text, the values that it reads, and its function of the parts and these values."""

    text: str
    sources: tuple[int, ...]
    compute: Compute


class Vector(nn.Module):
    """A parameter of a network: a scale, a shift, a position."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))


class RandomNetwork(nn.Module):
    """The steps over their parts; the outputs are the values at `outputs`."""

    def __init__(self, steps: Sequence[Step], parts: Sequence[nn.Module], outputs: Sequence[int]) -> None:
        super().__init__()
        self.steps, self.parts, self.outputs = list(steps), nn.ModuleList(parts), tuple(outputs)

    def forward(self, *inputs: Tensor) -> Any:
        values = list(inputs)
        for step in self.steps:
            values += as_values(step.compute(self.parts, *(values[i] for i in step.sources)))
        return (
            {f"value_{i}": values[i] for i in self.outputs}
            if len(self.outputs) > 2
            else tuple(values[i] for i in self.outputs)
        )

    def describe(self) -> str:
        """Return the steps, one a line."""
        return "\n".join([*(f"{step.text} of {step.sources}" for step in self.steps), f"outputs {self.outputs}"])


def as_values(result: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


class Builder:
    """A network under construction: its values at batch `BATCH`, its parts and its steps."""

    def __init__(self, drawing: Drawing, *inputs: Tensor) -> None:
        self.drawing = drawing
        self.values: list[Tensor] = list(inputs)
        self.parts: list[nn.Module] = []
        self.steps: list[Step] = []

    def integer(self, low: int, high: int) -> int:
        return self.drawing(st.integers(low, high))

    def choice(self, *options: Choice) -> Choice:
        return self.drawing(st.sampled_from(options))

    def chance(self) -> bool:
        return self.drawing(st.booleans())

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self.values[index].shape)

    def alike(self, index: int, *, except_axis: int | None = None) -> list[int]:
        """Return the values of the same shape, an axis aside."""
        shape = self.shape(index)

        def matches(other: tuple[int, ...]) -> bool:
            pairs = enumerate(zip(shape, other, strict=True))
            return all(axis == except_axis or size == other_size for axis, (size, other_size) in pairs)

        return [i for i in range(len(self.values)) if len(self.shape(i)) == len(shape) and matches(self.shape(i))]

    def part(self, module: nn.Module) -> int:
        self.parts.append(module.double().eval())
        return len(self.parts) - 1

    def add(self, text: str, compute: Compute, *sources: int) -> bool:
        """Append a step, unless its values are too large or too many channels, and return whether it was appended."""
        with torch.no_grad():
            results = as_values(compute(self.parts, *(self.values[i] for i in sources)))
        if any(value.numel() > _MOST_NUMBERS or max(value.shape[1:]) > 8 * _MOST_CHANNELS for value in results):
            return False
        self.values += results
        self.steps.append(Step(text, sources, compute))
        return True

    def add_module(self, module: nn.Module, index: int) -> bool:
        text = " ".join(str(module).split())
        p = self.part(module)
        return self.add(text, lambda parts, x: parts[p](x), index)


def fill(network: nn.Module, seed: int) -> None:
    """Overwrite all weights and statistics of norms with random numbers; scales have both signs."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(tensor.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for module in network.modules():
            is_scale = isinstance(module, (*NORM_MODULES, Vector))
            for name, tensor in module.named_parameters(recurse=False):
                fan_in = max(tensor.numel() // tensor.shape[0], 1) if tensor.dim() > 1 else 1
                values = draw(tensor, -1, 1) * (3 / fan_in) ** 0.5
                if is_scale and name == "weight":
                    # Of ten channels, two are turned over and one is dead.
                    signs = (10 * draw(tensor, 0, 1)).floor().sub(2).sign()
                    values = draw(tensor, 0.5, 1.5) * signs
                tensor.copy_(values)
            if isinstance(mean := getattr(module, "running_mean", None), Tensor):
                mean.copy_(draw(mean, -1, 1))
                variance = module.running_var
                assert isinstance(variance, Tensor)
                variance.copy_(draw(variance, 0.3, 3))
