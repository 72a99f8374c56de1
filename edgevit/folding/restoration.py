"""The state of a module, kept while others run and capture it: a forward may fill caches and count its calls.

torch.export leaves tensors without numbers in a cache that a forward fills, which the next call would compute with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class State:
    """Attributes, buffers and containers of a module and of all in it. Parameters are not copied."""

    def __init__(self, model: nn.Module) -> None:
        self._saved: dict[int, tuple[Any, Any]] = {}
        for module in model.modules():
            self._save(vars(module))

    def _save(self, value: Any) -> None:
        if id(value) in self._saved or isinstance(value, (nn.Parameter, nn.Module)):
            return
        if isinstance(value, Tensor):
            self._saved[id(value)] = (value, value.detach().clone())
        elif isinstance(value, (dict, list, set, tuple)):
            self._saved[id(value)] = (value, value if isinstance(value, tuple) else value.copy())
            for element in value.values() if isinstance(value, dict) else value:
                self._save(element)

    def has_changed(self) -> bool:
        """Return whether any attribute is another object than before, or any buffer has other numbers."""
        return any(_differs(value, before) for value, before in self._saved.values())

    def restore(self) -> None:
        """Put every attribute, buffer and container back as it was."""
        for value, before in self._saved.values():
            if not _differs(value, before):
                continue
            if isinstance(value, Tensor):
                # A tensor that was made in inference mode may be written to in that mode alone.
                with torch.inference_mode(value.is_inference()), torch.no_grad():
                    value.copy_(before)
            elif isinstance(value, list):
                value[:] = before
            else:
                value.clear()
                value.update(before)


def _differs(value: Any, before: Any) -> bool:
    if isinstance(value, Tensor):
        # On the meta device there are no numbers; a NaN is copied once too often.
        return not value.is_meta and not torch.equal(_dense(value.detach()), _dense(before))
    if isinstance(value, dict):
        return list(value) != list(before) or any(value[key] is not before[key] for key in before)
    if isinstance(value, list):
        return len(value) != len(before) or any(a is not b for a, b in zip(value, before, strict=True))
    return isinstance(value, set) and value != before


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore at the end what runs and captures of a module change in it."""
    state = State(model)
    try:
        yield
    finally:
        state.restore()
