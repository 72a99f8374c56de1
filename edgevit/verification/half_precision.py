"""Half-precision simulation, for engines that compute in single precision where the payload declares half.

Such an engine hides an overflow that another engine or processor shows. Here torch computes in single precision and
rounds every weight, input and result to half. That is as exact as a kernel with a wide accumulator, and as fast.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgevit_runtime.silence_converters import quiet


class HalfPrecision:
    """A model whose values are rounded to half precision, with single-precision inputs and outputs.

    It records the first overflow.
    """

    def __init__(self, model: nn.Module) -> None:
        with quiet():
            self._model = copy.deepcopy(model)
        self.overflow = ""  # `square (operation 4) overflows: exact values reach 1.4e+06`, or empty
        for name, weight in (*self._model.named_parameters(), *self._model.named_buffers()):
            if weight.is_floating_point():
                self._note(f"the weight {name!r}", weight)
                weight.data = _rounded(weight.data)

    def __call__(self, *inputs: Tensor) -> Any:
        """Compute the outputs, every result rounded."""
        with torch.inference_mode(), _Rounding(self._note):
            return self._model(*(_rounded(tensor) for tensor in inputs))

    def _note(self, source: str, exact: Tensor) -> None:
        if not self.overflow and bool((exact.isfinite() & ~_rounded(exact).isfinite()).any()):
            self.overflow = f"{source} overflows: exact values reach {exact.abs().max().item():.1e}"


class _Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds every operator's results to half precision, and reports each to `note` before it is rounded."""

    def __init__(self, note: Callable[[str, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note, self._count = note, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self._note(f"{func.overloadpacket.__name__} (operation {self._count})", leaf)
        self._count += 1
        return torch.utils._pytree.tree_map(lambda leaf: _rounded(leaf) if isinstance(leaf, Tensor) else leaf, result)


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor
