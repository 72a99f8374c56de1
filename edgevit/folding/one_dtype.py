"""Computes a network of several floating dtypes in one, so that its algebra can be proven without its rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class OneDtype(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode in which every operator that names a floating dtype takes this one: casts between them change nothing.

    Parameters and inputs must be in that dtype already. Casts to integers stay.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments, keywords = torch.utils._pytree.tree_map(self._chosen, (args, kwargs or {}))
        return func(*arguments, **keywords)

    def _chosen(self, value: Any) -> Any:
        if not isinstance(value, torch.dtype):
            return value
        return self._dtype if value.is_floating_point else self._dtype.to_complex() if value.is_complex else value
