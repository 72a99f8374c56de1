"""The operator that a converter refuses or gets wrong is named, with the module that it stands in."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgevit.errors import ExportError, ParityError
from edgevit.exporting.blame import operators_alone
from edgevit.exporting.pipeline import export_subject
from edgevit.folding import fold
from edgevit.recipes import load_recipe
from edgevit.records.artifact import ExportRequest
from support.nets import Toy, image, ready
from support.subjects import SIZE, as_subject


class Sorted(nn.Module):
    """Sorts the pixels of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return them in ascending order."""
        return x.flatten(2).sort(-1).values


def sorting() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Sorted())


def test_every_operator_runs_alone_on_the_numbers_that_it_has_in_the_network() -> None:
    model = ready(sorting())
    x = image(2, 3, 6, 5)
    alone = {one.label: one for one in operators_alone(fold(model, (x,)), {"x": x})}
    assert [label.split()[0] for label in alone] == ["aten.conv2d", "aten.relu", "aten.flatten.using_ints", "aten.sort"]
    assert [label.split()[-1] for label in alone] == ["0", "1", "2", "2"], "modules by their paths"
    (last,) = (one for label, one in alone.items() if label.startswith("aten.sort"))
    with torch.no_grad():
        assert torch.equal(last.module(*last.inputs.values())[0], model(x))
    twice = fold(ready(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU())), (x,))
    assert len(list(operators_alone(twice, {"x": x}))) == 2, "equal calls are tried once"


@pytest.mark.ncnn
def test_an_operator_that_is_refused_is_named_with_its_module(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="ncnn's converter refused the model") as caught:
        export_subject(as_subject(sorting()), ExportRequest("ncnn", tmp_path / "out"))
    assert caught.value.where == "aten.sort of module 2"
    assert caught.value.fix == "write aten.sort with other operators, or choose another target"
    assert caught.value.where in str(caught.value)


class Ranking(nn.Module):
    """Ranks what one row of a product says of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.products = nn.Linear(math.prod(SIZE), 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the numbers in ascending order. Alone, pnnx drops the slice of an input."""
        weights = self.products(x.flatten(2)).softmax(-1)
        result: torch.Tensor = weights[:, 0, 1:].sort(-1).values
        return result


@pytest.mark.ncnn
def test_an_operator_that_is_refused_only_because_it_stands_alone_is_not_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="ncnn's converter refused the model") as caught:
        export_subject(as_subject(nn.Sequential(Ranking())), ExportRequest("ncnn", tmp_path / "out"))
    assert caught.value.where == "aten.sort of module 0"
    assert "no layer for aten::sort" in caught.value.why


@pytest.mark.onnx
def test_an_operator_that_comes_out_wrong_is_named_with_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("onnx")
    monkeypatch.setattr(recipe, "RECIPE", dataclasses.replace(recipe.RECIPE, spellings=()))
    pool = nn.AvgPool2d(3, 2, 1, divisor_override=5)
    subject = as_subject(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.ReLU()))
    with pytest.raises(ParityError) as caught:
        export_subject(subject, ExportRequest("onnx", tmp_path / "out"))
    assert "stage convert, aten.avg_pool2d of module 2; the artifact is in quarantine" in caught.value.where
    assert caught.value.fix == "write aten.avg_pool2d with other operators, or report the converter's bug"


class NamelessError(Exception):
    """An exception of a converter's own, without a base that others have."""


@pytest.mark.onnx
def test_an_exception_of_any_class_becomes_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*arguments: Any, **options: Any) -> Any:
        raise NamelessError("first line\nsecond line")

    monkeypatch.setattr(load_recipe("onnx"), "export", export)
    with pytest.raises(ExportError, match="onnx's converter refused the model") as caught:
        export_subject(as_subject(Toy(lambda net, x: net.c(x), c=nn.Conv2d(3, 4, 1))), ExportRequest("onnx", tmp_path))
    assert caught.value.why == "first line"
    assert isinstance(caught.value.__cause__, NamelessError)
