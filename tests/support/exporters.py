"""Shares the registry that torch's ONNX exporter builds anew for every export, for which it parses 500 functions.

That was half of the time of a small network's export. edgevit adds nothing to the registry.
"""

from __future__ import annotations

import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry

_build = ONNXRegistry.from_torchlib
_shared = functools.cache(_build)


def share_registry() -> None:
    """Let every later export of this process have the same registry of operators."""
    ONNXRegistry.from_torchlib = staticmethod(_shared)  # type: ignore[method-assign]


def forget_registry() -> None:
    """Make the next export build its registry, for tests of the lines that this prints."""
    _shared.cache_clear()
