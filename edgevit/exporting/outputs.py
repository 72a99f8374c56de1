"""Outputs of a model as converters take them: a flat tuple of tensors, and their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgevit.errors import ExportError
from edgevit.folding.agreement import register_records
from edgevit_runtime.record import output_names


class PlainOutputs(nn.Module):
    """A model that gives its tensors alone, without what they lie in, and without None and numbers beside them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """Compute the tensors, in the order of the model's outputs."""
        tensors = tuple(leaf for leaf in pytree.tree_leaves(self.model(*inputs)) if isinstance(leaf, Tensor))
        return tensors[0] if len(tensors) == 1 else tensors


def plain_outputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model with outputs that every converter takes, the same object if it has them, and their names.

    Keys of dictionaries and fields of records become names; outputs in order alone are `output`, or `output_0`,
    `output_1`... Raises ExportError for a model without tensors among its outputs.
    """
    with torch.inference_mode():
        result = model(*inputs.values())
    register_records(result)
    paths = [path for path, leaf in pytree.tree_flatten_with_path(result)[0] if isinstance(leaf, Tensor)]
    if not paths:
        raise ExportError(f"{type(model).__name__} has no tensor among its outputs")
    is_plain = isinstance(result, Tensor) or (
        isinstance(result, (tuple, list))
        and len(result) == len(paths)
        and all(isinstance(part, Tensor) for part in result)
    )
    return (model if is_plain else PlainOutputs(model)), tuple(_names(paths, set(inputs)))


def _names(paths: Sequence[Sequence[Any]], taken: set[str]) -> list[str]:
    named = any(isinstance(key, (pytree.MappingKey, pytree.GetAttrKey)) for path in paths for key in path)
    if not named:
        return output_names(len(paths))
    names: list[str] = []
    for path in paths:
        text = re.sub(r"\W+", "_", "_".join(str(_part(key)) for key in path)).strip("_") or "output"
        name = f"output_{text}" if text[0].isdigit() else text
        number = 1
        while name in taken or name in names:
            number += 1
            name = f"{text}_{number}"
        names.append(name)
    return names


def _part(key: Any) -> Any:
    """Return a dictionary's key, a record's field or a position."""
    return (
        key.key if isinstance(key, pytree.MappingKey) else key.name if isinstance(key, pytree.GetAttrKey) else key.idx
    )
