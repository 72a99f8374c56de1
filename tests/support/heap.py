"""Keeps what imports leave out of collections of garbage.

coremltools collects before every conversion. Beside a few imported converters that takes longer than a small network's
conversion, and most of the time of one of a few operators.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

# A converter brings hundreds of modules along. A test's own few are not worth a collection.
_MANY = 50
_known = 0


@pytest.fixture(autouse=True, scope="module")
def former_files_stay() -> None:
    """Collect once before a file; later collections do not look at what the tests before it left in torch's caches."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def imports_stay() -> Iterator[None]:
    """Collect once after many imports; later collections look only at what was made since then."""
    keep_imports()
    yield
    keep_imports()


def keep_imports() -> None:
    """Take what lives out of later collections, if many modules were imported since the last time."""
    global _known
    if len(sys.modules) - _known > _MANY:
        gc.collect()
        gc.freeze()
        _known = len(sys.modules)
