"""Forms that several converters take a model in. For the host: torch is imported inside."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def half_inside(model: Any) -> Any:
    """The model with float16 weights and arithmetic; float32 in, float32 out. Other inputs stay as they are."""
    import torch

    class HalfInside(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(model).half()

        def forward(self, *inputs: Any) -> Any:
            halves = (item.half() if item.is_floating_point() else item for item in inputs)
            return torch.utils._pytree.tree_map(lambda item: item.float(), self.inner(*halves))

    return HalfInside().eval()


def of_planes(model: Any, inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model and its inputs with raw images, uint8 (N, H, W, 3), as float32 (N, 3, H, W) from 0 to 255.

    For engines that have no bytes and take images as their own kind. Raises ValueError for bytes that are no image.
    """
    import torch

    raw = [item.dtype == torch.uint8 for item in inputs.values()]
    for (name, item), is_raw in zip(inputs.items(), raw, strict=True):
        if is_raw and (item.dim() != 4 or item.shape[3] != 3):
            raise ValueError(f"of bytes this target takes RGB images (N, H, W, 3), and {name!r} is {list(item.shape)}")
    if not any(raw):
        return model, dict(inputs)

    class OfPlanes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *given: Any) -> Any:
            return self.inner(*(x.permute(0, 2, 3, 1) if r else x for x, r in zip(given, raw, strict=True)))

    given = zip(inputs.items(), raw, strict=True)
    return OfPlanes(), {n: x.permute(0, 3, 1, 2).float().contiguous() if r else x for (n, x), r in given}
