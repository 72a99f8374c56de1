"""Values of a graph's nodes: tensors without data, and sizes as numbers, at two batch sizes.

Both together say which sizes follow the batch, and how. No engine of symbols is needed for that.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.quick_values import quick_value

aten = torch.ops.aten

# Two batch sizes. What a node computes at each stands in its `meta`: tensors without data, and sizes as numbers.
# At a batch of one, an operator that mixes images would look like one that does not. The other one is prime, and larger
# than any number of images that a model treats in a way of its own.
BATCHES = (2, 65_537)
VALUE, OTHER = "val", "val_at_other_batch"
# Path of the module that a node comes from; of the model's own forward FILE.py:LINE.
ORIGIN = "module"

# Below the number of any multiple of the batch.
_UNUSUAL = 2**40


def shape(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's output; an open batch is -1, k times as many is -k, see size_of."""
    return tuple(map(size_of, node.meta[VALUE].shape, node.meta[OTHER].shape))


def size_of(first: int, other: int) -> int:
    """Return a size from those at BATCHES; where it is open a negative number: -k for k times the batch.

    A size that is open in any other way has a number of its own, so that different sizes never look equal.
    """
    if first == other:
        return first
    times, rest = divmod(first, BATCHES[0])
    is_multiple = times > 0 and not rest and other == times * BATCHES[1]
    return -times if is_multiple else -_UNUSUAL - zlib.crc32(f"{first} {other}".encode())


def infer(node: Node) -> None:
    """Set a call's values at BATCHES from those of its arguments."""
    for key in (VALUE, OTHER):
        args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda source, key=key: source.meta[key])  # type: ignore[misc]
        node.meta[key] = without_data(node.target, args, kwargs)


def set_constant(node: Node, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    """Set the values of a node that stands for a constant, in its own dtype or another one."""
    node.meta[VALUE] = node.meta[OTHER] = torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device="meta")


@cache
def _device_arguments(func: Any) -> tuple[tuple[int, ...], bool]:
    """Return the positions of positional devices among an operator's arguments, and whether it names one at all."""
    kinds = [(str(argument.type), argument.kwarg_only) for argument in func._schema.arguments]
    positions = tuple(i for i, (kind, by_name) in enumerate(kinds) if "Device" in kind and not by_name)
    return positions, any("Device" in kind for kind, _ in kinds)


def without_data(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an operator's result on tensors without data."""
    quick = quick_value(func, args, kwargs)
    if quick is not None:
        return quick
    if not hasattr(func, "_schema"):
        return func(*args, **kwargs)
    positions, has_device = _device_arguments(func)
    if has_device:
        args = tuple(torch.device("meta") if i in positions else argument for i, argument in enumerate(args))
        if not positions:
            kwargs = {**kwargs, "device": torch.device("meta")}
    return func(*args, **kwargs)
