"""edgevit: fold, export, prove, measure and choose vision models for phones, boards and GPUs.

Each verb is one function; docs/api.md describes them. Names load on first use, so that `import edgevit` costs no torch.
The logger `edgevit` is silent until a program adds a handler.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevit.folding import fold as fold
    from edgevit.models import create_model as create_model
    from edgevit.models import list_models as list_models
    from edgevit.selection import choose as choose
    from edgevit.store import LatencyDB as LatencyDB
    from edgevit.verbs.evaluate import evaluate as evaluate
    from edgevit.verbs.export import export as export
    from edgevit.verbs.predict import predict as predict
    from edgevit.verbs.profile import profile as profile
    from edgevit.verbs.quantize import quantize as quantize
    from edgevit.verbs.report import report as report
    from edgevit.verbs.sweep import sweep as sweep
    from edgevit.verbs.tune import tune as tune
    from edgevit.verbs.verify import verify as verify

__version__ = "0.1.0"
_PUBLIC = {
    "LatencyDB": "edgevit.store",
    "choose": "edgevit.selection",
    "create_model": "edgevit.models",
    "evaluate": "edgevit.verbs.evaluate",
    "export": "edgevit.verbs.export",
    "fold": "edgevit.folding",
    "list_models": "edgevit.models",
    "predict": "edgevit.verbs.predict",
    "profile": "edgevit.verbs.profile",
    "quantize": "edgevit.verbs.quantize",
    "report": "edgevit.verbs.report",
    "sweep": "edgevit.verbs.sweep",
    "tune": "edgevit.verbs.tune",
    "verify": "edgevit.verbs.verify",
}
__all__ = [
    "LatencyDB",
    "__version__",
    "choose",
    "create_model",
    "evaluate",
    "export",
    "fold",
    "list_models",
    "predict",
    "profile",
    "quantize",
    "report",
    "sweep",
    "tune",
    "verify",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgevit' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
