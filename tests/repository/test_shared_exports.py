"""Conversions that commands of a test run share: what counts as the same, and what is handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgevit.folding import Folded, fold
from edgevit.models import randomize
from edgevit.recipes import load_recipe
from edgevit_runtime.record import RecipeModule, Stage
from support.shared_exports import convert_once, fold_once, module_key

IMAGE = torch.zeros(1, 3, 8, 8)
REQUEST: dict[str, Any] = {"inputs": {"image": IMAGE}, "precision": "fp32", "dynamic_batch": False, "options": {}}


def folded(seed: int = 0, width: int = 4) -> Folded:
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)).eval()
    randomize(model, seed)
    return fold(model, (IMAGE,))


class Converter:
    """Writes a payload and one stage, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, model: nn.Module, recipe: RecipeModule, payload: Path, **form: Any) -> tuple[Stage, ...]:
        self.times += 1
        stage = payload.parent / "stages" / "convert.onnx"
        stage.parent.mkdir()
        for file in (stage, payload):
            file.write_text(f"conversion {self.times}")
        return (Stage("convert", 0.5, stage, precision="fp32"),)


@pytest.fixture
def converter() -> Converter:
    return Converter()


def converted(
    folder: Path, converter: Converter, turn: int, model: nn.Module, target: str = "onnx", **other: Any
) -> Any:
    payload = folder / f"{turn}" / "net.onnx"
    payload.parent.mkdir()
    stages = convert_once(folder / "kept", converter, model, load_recipe(target), payload, **(REQUEST | other))
    return payload, stages


def test_the_same_network_is_converted_once(tmp_path: Path, converter: Converter) -> None:
    for turn in (1, 2):
        payload, [stage] = converted(tmp_path, converter, turn, folded())
        assert payload.read_text() == stage.path.read_text() == "conversion 1"
        assert stage == Stage("convert", 0.5, payload.parent / "stages" / "convert.onnx", precision="fp32")
        # What is done to a copy stays there.
        payload.write_text("annotated")
    assert converter.times == 1


@pytest.mark.parametrize(
    "other", [{"precision": "fp16"}, {"dynamic_batch": True}, {"options": {"a": "b"}}, {"target": "ncnn"},
              {"inputs": {"image": torch.zeros(2, 3, 8, 8)}}]
)  # fmt: skip
def test_another_request_is_another_conversion(tmp_path: Path, converter: Converter, other: dict[str, Any]) -> None:
    model = folded()
    converted(tmp_path, converter, 1, model)
    payload, _ = converted(tmp_path, converter, 2, model, **other)
    assert payload.read_text() == "conversion 2"


@pytest.mark.parametrize("other", [{"seed": 1}, {"width": 5}])
def test_another_network_is_another_conversion(tmp_path: Path, converter: Converter, other: dict[str, int]) -> None:
    converted(tmp_path, converter, 1, folded())
    payload, _ = converted(tmp_path, converter, 2, folded(**other))
    assert payload.read_text() == "conversion 2"


def test_a_network_that_is_not_folded_is_never_shared(tmp_path: Path, converter: Converter) -> None:
    for turn in (1, 2):
        converted(tmp_path, converter, turn, nn.Identity())
    assert converter.times == 2


def test_a_known_fold_is_that_of_the_same_code_and_weights() -> None:
    model, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    known: dict[str, tuple[Folded, str]] = {}
    first = fold_once(known, model.eval(), (IMAGE,))
    known[module_key(model, (IMAGE,))] = first
    assert fold_once(known, model, (IMAGE,)) is first
    assert fold_once(known, other.eval(), (IMAGE,)) is not first
    assert fold_once(known, model, (torch.zeros(1, 3, 9, 9),)) is not first
