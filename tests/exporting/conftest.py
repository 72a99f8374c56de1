"""Collections of garbage that are quick, for tests that convert."""

from __future__ import annotations

from support.heap import former_files_stay, imports_stay

__all__ = ["former_files_stay", "imports_stay"]
