"""Targets as parameters of tests. What takes longest waits for `make test-all`; every target is in `make test` too."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from edgevit import recipes
from edgevit.recipes import list_recipes, load_recipe

# What a machine without a GPU and without macOS says of a right artifact, by what the recipe needs.
STATUS = {"": "passed", "macOS": "evaluated", "an NVIDIA GPU": "built_not_run"}
# Their converters take longest: what breaks them on purpose, one by one, waits for `make test-all`.
PHONES = ("executorch", "litert", "ncnn")


LACKS = "this processor lacks"  # how the reason of an honest skip begins


@cache
def missing_instructions(target: str, precision: str) -> str:
    """Return the instruction set that this processor lacks for a precision; empty if it computes it."""
    return recipes.missing_instructions(target, precision)


def expected_status(target: str, precision: str = "fp32") -> str:
    """Return the parity status of a right artifact on this machine."""
    if missing_instructions(target, precision):
        return "needs_processor"
    return STATUS[load_recipe(target).RECIPE.needs]


def require_instructions(target: str, precision: str) -> None:
    """Skip a test that runs an artifact of this precision on a processor that cannot compute it."""
    if lacking := missing_instructions(target, precision):
        pytest.skip(f"{LACKS} {lacking}, which {target} {precision} is computed in")


def marks(target: str, *, slow: bool = False) -> list[pytest.MarkDecorator]:
    """The target's own marker, and `slow` if it is."""
    return [getattr(pytest.mark, target), *([pytest.mark.slow] if slow else [])]


def targets(*, phones_slow: bool = False) -> list[Any]:
    """Every target there is."""
    names = [recipe.target for recipe in list_recipes()]
    return [pytest.param(name, marks=marks(name, slow=phones_slow and name in PHONES)) for name in names]
