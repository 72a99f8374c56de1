"""Children that are warm, for tests that convert."""

from __future__ import annotations

from support.warm_children import warm_children

__all__ = ["warm_children"]
