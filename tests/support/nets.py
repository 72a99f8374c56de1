"""Networks in one expression, for tests: `Toy(lambda net, x: net.norm(net.conv(x)), conv=..., norm=...)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from edgevit.folding import Folded, fold, max_rel
from edgevit.folding.agreement import outputs
from edgevit.models import randomize

FLOAT64 = 1e-10
LINEAR = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


class Toy(nn.Module):
    """A module of named parts, which computes a function of them and of the inputs."""

    def __init__(self, compute: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self._compute = compute
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self._compute(self, *inputs)


def restless(rounds: int) -> nn.Module:
    """Build (B, 3, H, W) -> (B, 4): a logistic map, each round of which doubles a change of the last digit."""

    def compute(net: Any, x: Tensor) -> Any:
        y = net.norm(net.conv(x)).sigmoid()
        for _ in range(rounds):
            y = 3.9 * y * (1 - y)
        return y.mean((2, 3))

    return Toy(compute, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))


def ready(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the model in eval mode and float64, its norms and weights random.

    A fold that loses any of them computes something else.
    """
    model = model.double().eval()
    randomize(model, seed)
    return model


def image(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def fold_and_compare(model: nn.Module, *inputs: Tensor, fixed: bool = False, **options: Any) -> Folded:
    """Fold in float64 and compare on the inputs. Compare on a batch of three as well, unless the batch is `fixed`."""
    folded = fold(ready(model), inputs, **options)
    assert_same(model, folded, inputs)
    assert folded.report.batch_is_open != fixed
    if not fixed:
        assert_same(model, folded, [torch.cat([tensor, tensor.flip(-1), tensor])[:3] for tensor in inputs])
    return folded


def assert_same(model: nn.Module, folded: nn.Module, inputs: Sequence[Tensor], tolerance: float = FLOAT64) -> None:
    with torch.no_grad():
        expected = outputs(model, [tensor.clone() for tensor in inputs])
        computed = outputs(folded, [tensor.clone() for tensor in inputs])
    assert len(expected) == len(computed) > 0
    for a, b in zip(expected, computed, strict=True):
        assert a.dtype == b.dtype
        assert max_rel(a.detach(), b) <= tolerance


def calls(folded: Folded) -> list[Node]:
    return [node for node in folded.net.graph.nodes if node.op == "call_function"]


def operators(folded: Folded) -> Counter[str]:
    """Count the calls of each operator: {"conv2d": 2, "relu": 1}."""
    return Counter(str(node.target).removeprefix("aten.").split(".")[0] for node in calls(folded))


def biases(folded: Folded) -> list[bool]:
    """Return whether each convolution and fully connected layer has a bias, in order of execution."""
    return [len(node.args) > 2 and node.args[2] is not None for node in calls(folded) if node.target in LINEAR]
