"""edgevit: fold, export, prove, measure and choose vision models for phones, boards and GPUs.

Names load on first use, so that `import edgevit` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevit.models import create_model as create_model
    from edgevit.models import list_models as list_models
    from edgevit.selection import choose as choose
    from edgevit.store import LatencyDB as LatencyDB

__version__ = "0.1.0"
_PUBLIC = {
    "LatencyDB": "edgevit.store",
    "choose": "edgevit.selection",
    "create_model": "edgevit.models",
    "list_models": "edgevit.models",
}
__all__ = ["LatencyDB", "__version__", "choose", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgevit' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
