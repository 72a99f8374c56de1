"""Input and arithmetic layouts that several converters need. These functions run on the host and import torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def half_inside(model: Any) -> Any:
    """Return the model with float16 weights and arithmetic, and float32 inputs and outputs.

    Inputs of other types do not change.
    """
    import torch

    class HalfInside(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(model).half()

        def forward(self, *inputs: Any) -> Any:
            halves = (tensor.half() if tensor.is_floating_point() else tensor for tensor in inputs)
            return torch.utils._pytree.tree_map(lambda tensor: tensor.float(), self.inner(*halves))

    return HalfInside().eval()


def of_planes(model: Any, inputs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the model and its inputs with raw images, uint8 (N, H, W, 3), as float32 (N, 3, H, W) from 0 to 255.

    This is for engines without byte tensors, which have their own type of image. Raises ValueError for bytes that are
    no image.
    """
    import torch

    raw = [tensor.dtype == torch.uint8 for tensor in inputs.values()]
    for (name, tensor), is_raw in zip(inputs.items(), raw, strict=True):
        if is_raw and (tensor.dim() != 4 or tensor.shape[3] != 3):
            shape = list(tensor.shape)
            raise ValueError(f"of bytes this target takes RGB images (N, H, W, 3), and {name!r} is {shape}")
    if not any(raw):
        return model, dict(inputs)

    class OfPlanes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *tensors: Any) -> Any:
            return self.inner(*(x.permute(0, 2, 3, 1) if r else x for x, r in zip(tensors, raw, strict=True)))

    pairs = zip(inputs.items(), raw, strict=True)
    return OfPlanes(), {n: x.permute(0, 3, 1, 2).float().contiguous() if r else x for (n, x), r in pairs}
