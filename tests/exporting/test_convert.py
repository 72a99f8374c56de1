"""What a conversion is refused for before it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import ExportError, UsageError
from edgevit.exporting.convert import convert
from edgevit.exporting.requirements import check_request
from edgevit.folding import fold
from edgevit.recipes import list_recipes, load_recipe
from support.nets import Toy, image

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


def under_autocast(net: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        y = net.stem(x)
    return y.float()


HALVES: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "a block in half precision": (lambda net, x: net.block(net.stem(x).half()).float(), "float16"),
    "numbers on the way": (lambda net, x: net.stem(x).bfloat16().relu().float(), "bfloat16"),
    "autocast": (under_autocast, "bfloat16"),
}


@pytest.mark.parametrize("name", HALVES)
def test_a_model_that_is_half_precision_in_part_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    compute, dtype = HALVES[name]
    x = image(1, 3, 6, 6, dtype=torch.float32)
    folded = fold(Toy(compute, stem=nn.Conv2d(3, 4, 3), block=nn.Conv2d(4, 4, 1).half()).eval(), (x,))
    with pytest.raises(ExportError, match=f"computes in {dtype}") as caught:
        convert(folded, load_recipe("onnx"), tmp_path / "model.onnx", inputs={"image": x}, precision="fp32")
    assert caught.value.where.startswith("aten.") and "model.float()" in caught.value.fix
    assert not list(tmp_path.iterdir())
