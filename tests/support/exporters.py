"""Shares what torch's ONNX exporter builds anew for every export: a registry, for which it parses 500 functions.

That was half of the time of a small network's export. edgevit adds nothing to the registry.
"""

from __future__ import annotations

import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry


@functools.cache
def share_registry() -> None:
    """Let every later export of this process have the same registry of operators."""
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign, assignment]
