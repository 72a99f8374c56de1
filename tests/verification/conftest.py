"""coremltools for the tests of ML programs, and collections of garbage that are quick beside it."""

from __future__ import annotations

from typing import Any

import pytest

from support.heap import former_files_stay, imports_stay, keep_imports
from support.ml_programs import quiet

__all__ = ["former_files_stay", "imports_stay"]


@pytest.fixture(scope="module")
def ct() -> Any:
    """Import coremltools, without what it prints; skip where it is not installed."""
    with quiet():
        module = pytest.importorskip("coremltools")
    keep_imports()
    return module
