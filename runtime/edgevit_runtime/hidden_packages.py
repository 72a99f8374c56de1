"""Packages that a converter imports where they are installed, although a conversion does not need them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let packages seem not to be installed, those aside that are imported already."""
    absent = [name for name in names if name not in sys.modules]
    # An import of such a name raises ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
