"""Networks in one expression, for tests: `Toy(lambda net, x: net.norm(net.conv(x)), conv=..., norm=...)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from edgevit.folding import Folded, fold, max_rel
from edgevit.folding.proof import outputs
from edgevit.models import randomize

FLOAT64 = 1e-10
LINEAR = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


class Toy(nn.Module):
    """Parts by name, and the function of them and of the inputs that is computed."""

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


def ready(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, in float64, norms and weights random: a fold that loses any of them computes something else."""
    model = model.double().eval()
    randomize(model, seed)
    return model


def image(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def fold_and_compare(model: nn.Module, *inputs: Tensor, fixed: bool = False, **options: Any) -> Folded:
    """Fold in float64; compare on the inputs and, where the batch is open (`fixed` says not), on a batch of three."""
    folded = fold(ready(model), inputs, **options)
    assert_same(model, folded, inputs)
    assert folded.report.batch_is_open != fixed
    if not fixed:
        assert_same(model, folded, [torch.cat([item, item.flip(-1), item])[:3] for item in inputs])
    return folded


def assert_same(model: nn.Module, folded: nn.Module, inputs: Sequence[Tensor], tolerance: float = FLOAT64) -> None:
    with torch.no_grad():
        expected = outputs(model, [item.clone() for item in inputs])
        found = outputs(folded, [item.clone() for item in inputs])
    assert len(expected) == len(found) > 0
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        assert max_rel(a.detach(), b) <= tolerance


def calls(folded: Folded) -> list[Node]:
    return [node for node in folded.net.graph.nodes if node.op == "call_function"]


def operators(folded: Folded) -> Counter[str]:
    """How often each operator is called: {"conv2d": 2, "relu": 1}."""
    return Counter(str(node.target).removeprefix("aten.").split(".")[0] for node in calls(folded))


def biases(folded: Folded) -> list[bool]:
    """Of each convolution and fully connected layer, in order of execution, whether it has a bias."""
    return [len(node.args) > 2 and node.args[2] is not None for node in calls(folded) if node.target in LINEAR]
