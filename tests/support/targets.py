"""Targets as parameters of tests. `make test` has every target; the longest tests wait for `make test-all`."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from edgevit import recipes
from edgevit.recipes import list_recipes, load_recipe

# The parity status of a right artifact on a machine without GPU and macOS, by the need of its recipe.
STATUS = {"": "passed", "macOS": "evaluated", "an NVIDIA GPU": "built_not_run"}
# Their converters take longest. The tests that break each of them on purpose wait for `make test-all`.
PHONES = ("executorch", "litert", "ncnn")


# The beginning of the reason of an honest skip.
LACKS = "this processor lacks"


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
    """Return the target's own marker, and `slow` if it is."""
    return [getattr(pytest.mark, target), *([pytest.mark.slow] if slow else [])]


def targets(*, phones_slow: bool = False) -> list[Any]:
    """Return every target as a parameter with its marks."""
    names = [recipe.target for recipe in list_recipes()]
    return [pytest.param(name, marks=marks(name, slow=phones_slow and name in PHONES)) for name in names]
