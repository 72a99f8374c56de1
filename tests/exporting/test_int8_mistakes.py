"""Mistakes that people and converters make in int8 files: each is put into one on purpose, and is found and named.

The file is an ONNX one, which has all numbers in the open. What is wrong with the numbers themselves shows before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgevit.cli.export import finishing_line
from edgevit.errors import ParityError, QuantizationError
from edgevit.exporting import preparation
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.preparation import Preparation
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from support.saboteurs import residual_net
from support.subjects import as_subject

pytestmark = pytest.mark.onnx

Model = Any  # an onnx.ModelProto
Mistake = Callable[[Model], None]


def constant(model: Model, name: str) -> Any:
    return next(each for each in model.graph.initializer if each.name == name)


def nodes(model: Model, operator: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == operator]


def change(model: Model, name: str, edit: Callable[[Any], Any], dtype: Any = None) -> None:
    """Replace the numbers of a constant, which other nodes may have too."""
    old = constant(model, name)
    array = edit(numpy_helper.to_array(old).copy())
    old.CopyFrom(numpy_helper.from_array(array.astype(dtype or array.dtype), name))


def own(model: Model, node: Any, position: int) -> str:
    """Give a node a copy of one of its constants, and return its name."""
    copy = onnx.TensorProto()
    copy.CopyFrom(constant(model, node.input[position]))
    copy.name = f"own_{node.output[0]}_{position}"
    model.graph.initializer.append(copy)
    node.input[position] = copy.name
    return str(copy.name)


def pair(model: Model, number: int) -> list[Any]:
    """Return the quantization of an activation and its reverse."""
    quantize = nodes(model, "QuantizeLinear")[number]
    (reverse,) = [node for node in nodes(model, "DequantizeLinear") if node.input[0] == quantize.output[0]]
    return [quantize, reverse]


def weight(model: Model, number: int) -> Any:
    """Return the node that makes a weight of int8 numbers."""
    constants = {each.name for each in model.graph.initializer}
    return [node for node in nodes(model, "DequantizeLinear") if node.input[0] in constants][number]


def weights_are_read_as_unsigned(model: Model) -> None:
    node = weight(model, 1)
    change(model, node.input[0], lambda steps: steps.view(np.uint8))
    change(model, own(model, node, 2), np.zeros_like, np.uint8)


def weights_keep_four_bits(model: Model) -> None:
    change(model, weight(model, 1).input[0], lambda steps: (steps // 16) * 16)


def a_zero_point_is_off_on_one_side(model: Model) -> None:
    change(model, own(model, pair(model, 3)[1], 2), lambda zero: zero + 1)


def scales_of_two_tensors_are_exchanged(model: Model) -> None:
    first, second = pair(model, 0), pair(model, 5)
    for one, other in zip(first, second, strict=True):
        one.input[1], other.input[1] = other.input[1], one.input[1]


def one_scale_is_doubled_on_one_side(model: Model) -> None:
    change(model, own(model, pair(model, 1)[1], 1), lambda scale: scale * 2)


def one_scale_stands_for_all_channels(model: Model) -> None:
    change(model, weight(model, 1).input[1], lambda scales: np.full_like(scales, scales.max()))


def scales_are_those_of_the_other_axis(model: Model) -> None:
    """The third weight has 6 channels out and 8 in; its neighbour has them the other way round."""
    change(model, weight(model, 2).input[1], lambda scales: scales[::-1])


def weights_saturate(model: Model) -> None:
    change(model, weight(model, 0).input[0], lambda steps: np.clip(steps, -40, 40))


def a_channel_is_lost(model: Model) -> None:
    def without(steps: Any) -> Any:
        steps[3] = 0
        return steps

    change(model, weight(model, 1).input[0], without)


def the_output_is_clipped(model: Model) -> None:
    for node in pair(model, -1):
        change(model, own(model, node, 1), lambda scale: scale / 4)


def a_bias_is_in_other_steps(model: Model) -> None:
    change(model, nodes(model, "Conv")[0].input[2], lambda bias: bias * 1.5)


def an_activation_is_left_to_a_grid_that_does_not_clip(model: Model) -> None:
    """A ReLU is removed as if a grid of uint8 without negative numbers followed; this one has some."""
    relu = nodes(model, "Relu")[1]
    for reader in model.graph.node:
        for position, name in enumerate(reader.input):
            if name == relu.output[0]:
                reader.input[position] = relu.input[0]
    model.graph.node.remove(relu)
    for node in pair(model, 2):
        change(model, own(model, node, 2), lambda zero: zero + 64)


MISTAKES = (
    weights_are_read_as_unsigned,
    weights_keep_four_bits,
    a_zero_point_is_off_on_one_side,
    scales_of_two_tensors_are_exchanged,
    one_scale_is_doubled_on_one_side,
    one_scale_stands_for_all_channels,
    scales_are_those_of_the_other_axis,
    weights_saturate,
    a_channel_is_lost,
    the_output_is_clipped,
    a_bias_is_in_other_steps,
    an_activation_is_left_to_a_grid_that_does_not_clip,
)


def make(mistake: Mistake, step: str, patch: pytest.MonkeyPatch) -> None:
    """Let a step of the conversion make a mistake."""
    recipe = load_recipe("onnx")
    right = getattr(recipe, step)

    def wrong(path: Path, *arguments: Any) -> None:
        right(path, *arguments)
        model = onnx.load(str(path))
        mistake(model)
        onnx.save(model, str(path))

    patch.setattr(recipe, step, wrong)


def request(out: Path) -> ExportRequest:
    return ExportRequest("onnx", out, "int8")


@cache
def prepared() -> Preparation:
    """Return the network with its numbers, which are right in every test but the last."""
    return Preparation(as_subject(residual_net()), request(Path()))


def export(out: Path) -> Artifact:
    return export_subject(prepared().subject, request(out), preparation=prepared())


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_the_file_is_found_and_its_stage_named(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(mistake, "_convert", monkeypatch)
    with pytest.raises(ParityError) as error:
        export(tmp_path / "out")
    assert error.value.where.startswith("stage convert;")


def test_the_same_file_without_a_mistake_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(lambda model: None, "_convert", monkeypatch)
    artifact = export(tmp_path / "out")
    assert artifact.parity is not None and artifact.parity.status == "passed"
    assert artifact.operators.int8 == {"QGemm": 1, "QLinearConv": 3}


def test_a_layer_that_is_silently_in_float_shows_in_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are better than int8, so that no comparison can find it."""

    def one_in_float(model: Model) -> None:
        quantize, reverse = pair(model, 2)
        for reader in model.graph.node:
            for position, name in enumerate(reader.input):
                if name == reverse.output[0]:
                    reader.input[position] = quantize.input[0]

    make(one_in_float, "_convert", monkeypatch)
    artifact = export(tmp_path / "out")
    assert artifact.operators.int8 == {"QGemm": 1, "QLinearConv": 1}, "both neighbours lose a side"
    line = finishing_line(artifact)
    assert "4 of 4 layers quantized" in line and "only 2 of them in the engine's int8 kernels here" in line


def test_samples_that_were_prepared_otherwise_show_before_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges from pixels of a tenth of the size clip the network's inputs."""
    right = preparation.calibration_samples  # type: ignore[attr-defined]

    def dimmed(*arguments: Any, **options: Any) -> Any:
        samples = right(*arguments, **options)
        return dataclasses.replace(samples, batches=[tuple(x / 10 for x in batch) for batch in samples.batches])

    monkeypatch.setattr(preparation, "calibration_samples", dimmed)
    with pytest.raises(QuantizationError, match="cannot reach the floor"):
        export_subject(as_subject(residual_net()), request(tmp_path / "out"))
