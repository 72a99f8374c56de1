"""Ways to break a conversion, for every target and each of its stages.

Each patches the very step that a stage consists of, so that the stages behind it inherit the damage. A new target needs
its stages and their breakers here: tests/exporting/test_failing_stage.py asks for them.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgevit.folding import Folded, graph
from edgevit.recipes import load_recipe
from edgevit_runtime.silence_converters import quiet
from support.nets import Toy

Breaker = Callable[[pytest.MonkeyPatch], None]
aten = torch.ops.aten

# The stages that each target's conversion has, between the fold and the finished artifact.
STAGES: dict[tuple[str, str], tuple[str, ...]] = {
    ("coreml", "fp32"): ("convert",),
    ("coreml", "fp16"): ("convert", "precision"),
    ("coreml", "int8"): ("convert", "precision"),
    ("coreml", "w6"): ("convert", "precision"),
    ("coreml", "w8"): ("convert", "precision"),
    ("executorch", "fp32"): ("respell", "lower"),
    ("executorch", "fp16"): ("respell", "halve", "lower"),
    ("executorch", "int8"): ("respell", "lower"),
    ("litert", "fp32"): ("convert",),
    ("litert", "fp16"): ("convert", "precision"),
    ("litert", "int8"): ("convert",),
    ("ncnn", "fp32"): ("convert",),
    ("ncnn", "fp16"): ("convert", "precision"),
    ("ncnn", "int8"): ("convert", "store_int8"),
    ("onnx", "fp32"): ("convert", "simplify"),
    ("onnx", "fp16"): ("convert", "simplify", "precision"),
    ("onnx", "int8"): ("convert", "simplify"),
    ("onnx", "w8"): ("convert", "simplify"),
    ("openvino", "fp32"): ("convert",),
    ("openvino", "fp16"): ("convert", "precision"),
    ("openvino", "bf16"): ("convert", "precision"),
    ("openvino", "int8"): ("convert",),
    ("openvino", "w8"): ("convert",),
    ("tensorrt", "fp32"): ("convert", "simplify", "build"),
    ("tensorrt", "fp16"): ("convert", "simplify", "precision", "build"),
    ("tensorrt", "int8"): ("convert", "simplify", "build"),
}
# Targets whose engine here computes in single what fp16 declares half. torch tries half between fold and conversion.
HALF = {("onnx", "fp16"), ("tensorrt", "fp16")}
# The stage at which a value beyond 65504 shows. Other targets store half weights, and compute in single precision.
OVERFLOWS_AT = {"coreml": "precision", "executorch": "halve", "onnx": "half", "tensorrt": "half"}
# The stage at which a weight beyond 65504 shows. OpenVINO leaves such a constant in single precision.
HEAVY_AT = {**OVERFLOWS_AT, "litert": "precision", "ncnn": "precision", "openvino": ""}
# Stages whose result nothing on this machine computes: none of them can be blamed, and none is proven.
NOT_COMPUTED = {("tensorrt", "build"), ("tensorrt", "artifact")}


def residual_net() -> nn.Module:
    """Build (B, 3, H, W) -> (B, 5): a norm, a residual branch with a ReLU, and a head whose bias stays as it is."""

    def compute(net: Any, x: torch.Tensor) -> torch.Tensor:
        x = net.norm(net.stem(x)).relu()
        x = x + net.narrow(net.wide(x).relu())
        result: torch.Tensor = net.head(x.relu().mean((2, 3)))
        return result

    torch.manual_seed(0)
    stem, norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
    return Toy(compute, stem=stem, norm=norm, wide=nn.Conv2d(6, 8, 1), narrow=nn.Conv2d(8, 6, 1), head=nn.Linear(6, 5))


# ---- damage to a model, or to a graph of it --------------------------------------------------------------------------


def without_branch(model: Folded) -> Folded:
    """Return a copy whose first sum of two maps is the first of them alone."""
    with quiet():
        broken = copy.deepcopy(model)
    bypass(broken.net.graph, aten.add.Tensor)
    broken.net.recompile()
    return broken


def without_relu(program: Any) -> Any:
    """Remove the first ReLU of an exported program."""
    bypass(program.graph, aten.relu.default)
    program.graph_module.recompile()
    return program


def bypass(graph_: Any, target: Any) -> None:
    node = next(candidate for candidate in graph_.nodes if candidate.target == target)
    node.replace_all_uses_with(node.args[0])
    graph_.eliminate_dead_code()


# ---- a step with another input, or another result -------------------------------------------------------------------


def misled(target: str, step: str, mislead: Callable[[Any], Any], kind: type = nn.Module) -> Breaker:
    """Return a breaker that replaces the first argument of this kind of a recipe's step."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        recipe = load_recipe(target)
        right = getattr(recipe, step)

        def wrong(*arguments: Any) -> Any:
            index = next(i for i, argument in enumerate(arguments) if isinstance(argument, kind))
            return right(*arguments[:index], mislead(arguments[index]), *arguments[index + 1 :])

        patch.setattr(recipe, step, wrong)

    return apply


def misled_in_half(target: str, step: str, mislead: Callable[[Any], Any], kind: type) -> Breaker:
    """Return the same breaker for a step that serves every precision; it spares fp32."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        right = getattr(load_recipe(target), step)
        misled(target, step, mislead, kind)(patch)
        wrong = getattr(load_recipe(target), step)
        patch.setattr(
            load_recipe(target),
            step,
            lambda *arguments: (wrong if {"fp16", "bf16"} & _texts(arguments) else right)(*arguments),
        )

    return apply


def _texts(arguments: Sequence[Any]) -> set[str]:
    return {argument for argument in arguments if isinstance(argument, str)}


def drops_a_branch(target: str, step: str) -> Breaker:
    return misled(target, step, without_branch)


def wrong_epsilon(patch: pytest.MonkeyPatch) -> None:
    """Make folding take a norm's epsilon for 1e-3."""
    right = graph.norm_affine  # type: ignore[attr-defined]

    def wrong(norm: Any) -> Any:
        return right(dataclasses.replace(norm, eps=1e-3))

    patch.setattr(graph, "norm_affine", wrong)


def leaky_simplifier(patch: pytest.MonkeyPatch) -> None:
    """Make the simplifier take a ReLU for a leaky one."""
    import onnxsim

    right = onnxsim.simplify

    def wrong(model: Any) -> Any:
        simplified, valid = right(model)
        next(node for node in simplified.graph.node if node.op_type == "Relu").op_type = "LeakyRelu"
        return simplified, valid

    patch.setattr(onnxsim, "simplify", wrong)


def openvino_without_relu(model: Any) -> Any:
    relu = next(operation for operation in model.get_ordered_ops() if operation.get_type_name() == "Relu")
    relu.output(0).replace(relu.input_value(0))
    return model


def tflite_with_a_lost_scale(source: Path) -> Path:
    """Halve the weights of one layer."""
    import numpy as np
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(source))
    weights = [tensor for tensor in model.subgraphs[0].tensors if len(tensor.shape) == 4 and tensor.buffer]
    buffer = next(model.buffers[tensor.buffer] for tensor in weights if model.buffers[tensor.buffer].data is not None)
    buffer.data = np.frombuffer(bytes(buffer.data), "float32").__mul__(0.5).astype("float32").view("uint8")
    other = source.with_name("harmed.tflite")
    flatbuffer_utils.write_model(model, str(other))
    return other


def ncnn_without_relu(patch: pytest.MonkeyPatch) -> None:
    """Make the converter lose the ReLU of the first convolution, for half weights only."""
    recipe = load_recipe("ncnn")
    right = recipe._pnnx  # type: ignore[attr-defined]

    def wrong(trace: Path, folder: Path, sidecar: Any) -> None:
        right(trace, folder, sidecar)
        if sidecar.precision == "fp16":
            file = folder / recipe._PARAM  # type: ignore[attr-defined]
            text, count = re.subn(r"(?m)^(Convolution.* 9=)1\b", r"\g<1>0", file.read_text(), count=1)
            assert count == 1, file.read_text()
            file.write_text(text)

    patch.setattr(recipe, "_pnnx", wrong)


def ncnn_with_doubled_scales(patch: pytest.MonkeyPatch) -> None:
    """Make the writer of int8 files halve the scales of a layer's weights, and let the check of layers pass."""
    import numpy as np

    recipe = load_recipe("ncnn")
    right = recipe.in_int8  # type: ignore[attr-defined]

    def wrong(layers: Any, weights: Any) -> Any:
        stored = right(layers, weights)
        layer = next(layer for layer in stored if layer.kind == "Convolution")
        layer.constants[-2] = (np.frombuffer(layer.constants[-2], "float32") / 2).tobytes()
        return stored

    patch.setattr(recipe, "in_int8", wrong)
    patch.setattr(recipe, "_require_exact", lambda *arguments: None)


def damaged_afterwards(target: str, weights: bytes) -> Breaker:
    """Return a breaker that damages these bytes of the payload, four at least, when the metadata is written."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        recipe = load_recipe(target)
        right = recipe.annotate

        def wrong(path: Path, metadata: Any) -> None:
            right(path, metadata)
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            holding = [file for file in files if weights in file.read_bytes()]
            assert holding, "the payload holds no such bytes"
            for file in holding:
                raw = file.read_bytes()
                file.write_bytes(raw.replace(weights, weights[4:] + weights[:4]))

        patch.setattr(recipe, "annotate", wrong)

    return apply


# (target, stage) -> what goes wrong there. The fold and the finished artifact are broken alike for all targets.
BREAKERS: dict[tuple[str, str], Breaker] = {
    ("coreml", "convert"): drops_a_branch("coreml", "_capture"),
    ("coreml", "precision"): misled_in_half("coreml", "_convert", without_relu, torch.export.ExportedProgram),
    ("executorch", "respell"): drops_a_branch("executorch", "respelled"),
    ("executorch", "halve"): drops_a_branch("executorch", "half_inside"),
    ("executorch", "lower"): misled("executorch", "_lowered", without_relu, torch.export.ExportedProgram),
    ("litert", "convert"): drops_a_branch("litert", "_convert"),
    ("litert", "precision"): misled("litert", "_halve", tflite_with_a_lost_scale, Path),
    ("ncnn", "convert"): drops_a_branch("ncnn", "_trace"),
    ("ncnn", "precision"): ncnn_without_relu,
    ("ncnn", "store_int8"): ncnn_with_doubled_scales,
    ("onnx", "convert"): drops_a_branch("onnx", "_convert"),
    ("onnx", "simplify"): leaky_simplifier,
    ("onnx", "precision"): drops_a_branch("onnx", "half_inside"),
    ("openvino", "convert"): drops_a_branch("openvino", "_convert"),
    ("openvino", "precision"): misled_in_half("openvino", "_save", openvino_without_relu, object),
    ("tensorrt", "convert"): drops_a_branch("onnx", "_convert"),
    ("tensorrt", "simplify"): leaky_simplifier,
    ("tensorrt", "precision"): drops_a_branch("onnx", "half_inside"),
}
