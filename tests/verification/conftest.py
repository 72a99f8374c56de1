"""coremltools for the tests of ML programs."""

from __future__ import annotations

from typing import Any

import pytest

from support.heap import keep_imports
from support.ml_programs import quiet


@pytest.fixture(scope="module")
def ct() -> Any:
    """Import coremltools, without what it prints; skip where it is not installed."""
    with quiet():
        module = pytest.importorskip("coremltools")
    keep_imports()
    return module
