"""Keeps what imports and former files leave out of collections of garbage.

Beside a few imported converters, Python's own collections take half of the time of tests of a database. coremltools
collects before every conversion, which takes longer than a small network's conversion.
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
