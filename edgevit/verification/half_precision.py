"""Half precision as a payload declares it, for engines that compute in single what is declared half.

Such an engine hides an overflow, which the next engine or processor will not. Here torch computes in single precision,
and every weight, input and result is rounded to half: as exact as a kernel with a wide accumulator, and as fast.
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
    """A model that computes in half precision, takes and gives single, and says what overflowed first."""

    def __init__(self, model: nn.Module) -> None:
        with quiet():
            self._model = copy.deepcopy(model)
        self.overflow = ""  # `square (operation 4) overflows: exact values reach 1.4e+06`; empty: nothing did
        for name, held in (*self._model.named_parameters(), *self._model.named_buffers()):
            if held.is_floating_point():
                self._note(f"the weight {name!r}", held)
                held.data = _rounded(held.data)

    def __call__(self, *inputs: Tensor) -> Any:
        """Compute, each result rounded."""
        with torch.inference_mode(), _Rounding(self._note):
            return self._model(*(_rounded(item) for item in inputs))

    def _note(self, what: str, exact: Tensor) -> None:
        if not self.overflow and bool((exact.isfinite() & ~_rounded(exact).isfinite()).any()):
            self.overflow = f"{what} overflows: exact values reach {exact.abs().max().item():.1e}"


class _Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every result of an operator that is not finite in half precision is noted, and all are rounded to it."""

    def __init__(self, note: Callable[[str, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note, self._count = note, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self._note(f"{func.overloadpacket.__name__} (operation {self._count})", leaf)
        self._count += 1
        return torch.utils._pytree.tree_map(lambda leaf: _rounded(leaf) if isinstance(leaf, Tensor) else leaf, made)


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor
