"""Attributes of a module and of all in it as plain values, so that two moments can be compared."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def attributes(model: nn.Module) -> dict[str, Any]:
    """Return every attribute, buffer, parameter and gradient by its path; a tensor by its identity and its numbers."""
    present = {
        f"{path}.{name}": _plain(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
    }
    gradients = {f"gradient of {path}": _plain(parameter.grad) for path, parameter in model.named_parameters()}
    return present | gradients


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return type(value), id(value), value.dtype, value.requires_grad, value.detach().tolist()
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    return value if isinstance(value, (bool, int, float, str)) or value is None else id(value)
