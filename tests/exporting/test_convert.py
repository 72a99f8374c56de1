"""What a conversion is refused for before it starts."""

from __future__ import annotations

from typing import Any

import pytest

from edgevit.errors import UsageError
from edgevit.exporting.convert import check_request
from edgevit.recipes import list_recipes, load_recipe

TARGETS = [recipe.target for recipe in list_recipes()]


@pytest.mark.parametrize("target", TARGETS)
def test_an_unknown_option_is_refused_with_those_that_there_are(target: str) -> None:
    recipe: Any = load_recipe(target)
    with pytest.raises(UsageError, match=f"target {target} has no option 'optimise'") as caught:
        check_request(recipe, recipe.RECIPE.precisions[0], options={"optimise": "3"})
    assert caught.value.why == f"it takes: {', '.join(recipe.RECIPE.options) or 'none'}"


@pytest.mark.parametrize("target", TARGETS)
def test_an_unknown_precision_is_refused_with_those_that_there_are(target: str) -> None:
    recipe: Any = load_recipe(target)
    with pytest.raises(UsageError, match=f"target {target} has no precision 'int3'") as caught:
        check_request(recipe, "int3")
    assert caught.value.fix == f"--precision {' or '.join(recipe.RECIPE.precisions)}"
