"""Collections of garbage that are quick, and children that are warm, for tests that convert."""

from __future__ import annotations

from support.heap import former_files_stay, imports_stay
from support.warm_children import warm_children

__all__ = ["former_files_stay", "imports_stay", "warm_children"]
