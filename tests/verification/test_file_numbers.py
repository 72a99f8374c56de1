"""Numbers of int8 files: one wrong channel of 80 in a deep layer hides in the outputs' noise, and not in the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgevit.errors import ParityError
from edgevit.exporting import pipeline
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.preparation import Preparation
from edgevit.folding import Folded
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.verification import parity
from edgevit.verification.file_numbers import NUMBERS, verify_numbers
from edgevit_runtime.stated_numbers import StatedNumbers, StatedWeight
from support.nets import Toy
from support.subjects import as_subject

CHANNELS, DEEP = 80, "blocks_9"
# tensorrt reads the file of onnx.
READ = [
    pytest.param("onnx", "int8", marks=pytest.mark.onnx),
    pytest.param("onnx", "w8", marks=[pytest.mark.onnx, pytest.mark.slow]),
    pytest.param("openvino", "int8", marks=pytest.mark.openvino),
    pytest.param("openvino", "w8", marks=[pytest.mark.openvino, pytest.mark.slow]),
    pytest.param("litert", "int8", marks=pytest.mark.litert),
    pytest.param("tensorrt", "int8", marks=[pytest.mark.tensorrt, pytest.mark.slow]),
]


def deep() -> nn.Module:
    """Build (B, 3, H, W) -> (B, 5) with ten residual blocks of 80 channels, every other one depthwise."""

    def compute(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        for number in range(10):
            x = x + getattr(net, f"blocks_{number}")(x).relu()
        result: Tensor = net.head(x.mean((2, 3)))
        return result

    torch.manual_seed(0)
    blocks = {f"blocks_{n}": nn.Conv2d(CHANNELS, CHANNELS, 3 - 2 * (n % 2), padding=1 - n % 2,
                                       groups=1 if n % 2 else CHANNELS) for n in range(10)}  # fmt: skip
    return Toy(compute, stem=nn.Conv2d(3, CHANNELS, 1), **blocks, head=nn.Linear(CHANNELS, 5))


@cache
def prepared() -> Preparation:
    return Preparation(as_subject(deep()), ExportRequest("", Path()))


def export(target: str, precision: str, out: Path) -> Artifact:
    return export_subject(prepared().subject, ExportRequest(target, out, precision), preparation=prepared())


def converting(change: Callable[[Any], None], patch: pytest.MonkeyPatch) -> None:
    """Let conversions begin with a network whose numbers were changed, as a converter might change them."""
    right = pipeline.convert  # type: ignore[attr-defined]

    def convert(model: Folded, *arguments: Any, **options: Any) -> Any:
        net = GraphModule(model.net, model.net.graph)
        for name, tensor in list(net.named_buffers()):
            setattr(net, name, tensor.clone())
        change(net)
        return right(Folded(net, model.shapes, model.report), *arguments, **options)

    patch.setattr(pipeline, "convert", convert)


def wrong_weights(net: Any) -> None:
    steps = getattr(net, f"{DEEP}_weight_int8")
    steps[17] = steps[17].flip(0)


def wrong_scale(net: Any) -> None:
    getattr(net, f"{DEEP}_weight_scale")[17] *= 1.25


@pytest.mark.parametrize(("target", "precision"), READ)
def test_a_wrong_channel_of_a_deep_layer_is_named(
    target: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converting(wrong_weights, monkeypatch)
    with pytest.raises(ParityError) as error:
        export(target, precision, tmp_path)
    assert error.value.where.startswith("stage convert")
    assert f"layer {DEEP}: 1 of 80 channels have other weights" in error.value.why
    assert "(channel 17)" in error.value.why


@pytest.mark.litert
def test_a_wrong_scale_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converting(wrong_scale, monkeypatch)
    with pytest.raises(ParityError, match=f"layer {DEEP}: 1 of 80 channels have other scales"):
        export("litert", "int8", tmp_path)


@pytest.mark.onnx
def test_the_outputs_alone_do_not_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converting(wrong_scale, monkeypatch)
    monkeypatch.setattr(parity, "verify_numbers", lambda *arguments: [])
    artifact = export("onnx", "int8", tmp_path)
    assert artifact.parity is not None and artifact.parity.status == "passed"


@pytest.mark.litert
def test_a_right_file_states_the_numbers_of_the_simulation(tmp_path: Path) -> None:
    artifact = export("litert", "int8", tmp_path)
    assert artifact.parity is not None
    (check, *_) = [check for check in artifact.parity.checks if check.against == NUMBERS]
    assert check.passed and check.how == "read from the file: 12 weights, 23 grids"


# ---- numbers without a file ------------------------------------------------------------------------------------------

WEIGHT = StatedWeight("layer", np.arange(-6, 6, dtype=np.int16).reshape(3, 4), np.array([0.1, 0.2, 0.3], np.float32))


def judged(monkeypatch: pytest.MonkeyPatch, stated: StatedNumbers) -> str:
    """Return what is wrong of a file that states these numbers."""
    recipe = dataclasses.make_dataclass("R", ["stated_numbers", "RECIPE"])(lambda path: stated, None)
    monkeypatch.setattr("edgevit.verification.file_numbers.load_recipe", lambda target: recipe)
    monkeypatch.setattr("edgevit.verification.file_numbers.missing", lambda described: [])
    expected = StatedNumbers((WEIGHT,), frozenset({(0.5, 3)}))
    (check,) = verify_numbers("convert", "any", Path(), expected)
    assert check.passed == (not check.problem)
    return check.problem


def test_every_kind_of_wrong_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def stated(*weights: StatedWeight, grids: frozenset[tuple[float, int]] = frozenset({(0.5, 3)})) -> str:
        return judged(monkeypatch, StatedNumbers(weights, grids))

    pool = StatedWeight("pool", np.full((2, 2), 127), np.ones(2))
    assert stated(WEIGHT) == "" == stated(WEIGHT, WEIGHT, pool) == stated(WEIGHT, grids=frozenset())
    assert "no int8 weight of 12 numbers" in stated(pool)
    other = dataclasses.replace(WEIGHT, name="copy", steps=WEIGHT.steps[::-1])
    assert "copy of the file has a weight that no layer should have" in stated(WEIGHT, other)
    assert "3 of 3 channels have other scales" in stated(dataclasses.replace(WEIGHT, scales=WEIGHT.scales * 2))
    assert "scale 0.5 with the zero point 4" in stated(WEIGHT, grids=frozenset({(0.5, 3), (0.5, 4)}))
    assert "scale 0.501 with" in stated(WEIGHT, grids=frozenset({(0.501, 3)}))
