"""Collections of garbage that are quick, for tests that convert."""

from __future__ import annotations

from support.heap import imports_stay

__all__ = ["imports_stay"]
