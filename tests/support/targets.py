"""Targets as parameters of tests. What takes longest waits for `make test-all`; every target is in `make test` too."""

from __future__ import annotations

from typing import Any

import pytest

from edgevit.recipes import list_recipes

# What a machine without a GPU and without macOS says of a right artifact, by what the recipe needs.
STATUS = {"": "passed", "macOS": "evaluated", "an NVIDIA GPU": "built_not_run"}
# Their converters take longest: what breaks them on purpose, one by one, waits for `make test-all`.
PHONES = ("executorch", "litert", "ncnn")


def marks(target: str, *, slow: bool = False) -> list[pytest.MarkDecorator]:
    """The target's own marker, and `slow` if it is."""
    return [getattr(pytest.mark, target), *([pytest.mark.slow] if slow else [])]


def targets(*, phones_slow: bool = False) -> list[Any]:
    """Every target there is."""
    names = [recipe.target for recipe in list_recipes()]
    return [pytest.param(name, marks=marks(name, slow=phones_slow and name in PHONES)) for name in names]
