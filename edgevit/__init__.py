"""edgevit: fold, export, prove, measure and choose vision models for phones, boards and GPUs.

Names load on first use, so that `import edgevit` costs no torch. A room whose function has the room's own name is
imported from there, because Python binds a submodule over it: `from edgevit.fold import fold`. `edgevit.choose` is the
room and can be called as well: `edgevit.choose("pi5", max_latency="25ms")`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevit.choose import choose as choose
    from edgevit.models import create_model as create_model
    from edgevit.models import list_models as list_models
    from edgevit.store import LatencyDB as LatencyDB

__version__ = "0.1.0"
_ROOMS = {"LatencyDB": "edgevit.store", "create_model": "edgevit.models", "list_models": "edgevit.models"}
__all__ = ["LatencyDB", "__version__", "choose", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    if name == "choose":
        return importlib.import_module("edgevit.choose")
    if name not in _ROOMS:
        raise AttributeError(f"module 'edgevit' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return __all__
