"""Target executorch: graphs respelled for XNNPACK, what a program runs with."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from support.nets import Toy, image
from support.phones import Mixed, Wide, busy_threads
from support.subjects import as_subject

pytestmark = pytest.mark.executorch
pytest.importorskip("executorch")
RECIPE = load_recipe("pte")
recipe = cast(ModuleType, RECIPE)
attention = nn.functional.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# ---- respelling --------------------------------------------------------------------------------------------------

X = (1, 4, 6, 8)


@pytest.mark.parametrize(
    ("compute", "shape", "gone"),
    [
        (lambda net, x: attention(x, x * 2, x + 1), X, "scaled_dot_product_attention"),
        (lambda net, x: attention(x, x, x, scale=1.0), X, "scaled_dot_product_attention"),
        (lambda net, x: attention(x, x, x, attn_mask=net.mask), X, "scaled_dot_product_attention"),
        (lambda net, x: attention(x, x, x, is_causal=True), X, ""),
        (lambda net, x: x @ x.transpose(-2, -1), X, "matmul"),
        (lambda net, x: net.left @ x, X, "matmul"),
        (lambda net, x: x @ net.batched, X, "matmul"),
        (lambda net, x: net.stack @ x, X, "matmul"),
        (lambda net, x: x @ net.right, X, ""),
        (lambda net, x: x.roll((2, -1, 8), (2, 3, 3)), X, "roll"),
        (lambda net, x: x.roll(5), X, ""),
        (lambda net, x: torch.cat(x.chunk(4, -1)[::-1], 1), X, "chunk"),
        (lambda net, x: torch.stack(x.chunk(4, 2)[:2], 1), (1, 4, 7, 8), "chunk"),
        (lambda net, x: x.unbind(1)[3] - x.unbind(-1)[2].mT, (1, 8, 6, 8), "unbind"),
        (lambda net, x: x.select(2, -2), X, "select"),
        (lambda net, x: x.mean((-1, -2)), X, ""),
        (lambda net, x: x.mean((-2,)), (1, 6, 8), ""),
        (lambda net, x: x.mean((0, 2)), X, ""),
        (lambda net, x: net.group(x), X, "group_norm"),
        (lambda net, x: net.groups(x), X, ""),
        (lambda net, x: net.layer(x) + net.bare(x), X, "layer_norm"),
        (lambda net, x: nn.functional.layer_norm(x, (6, 8)), X, ""),
    ],
)
def test_a_respelled_graph_is_the_same_function(compute: Any, shape: tuple[int, ...], gone: str) -> None:
    parts = {
        "mask": image(6, 6),
        "left": image(3, 6),
        "batched": image(4, 8, 5),
        "right": image(8, 5),
        "stack": image(4, 5, 6),
    }
    norms = {"group": nn.GroupNorm(1, 4), "groups": nn.GroupNorm(2, 4), "layer": nn.LayerNorm(8)}
    model = Toy(compute, **parts, **norms, bare=nn.LayerNorm(8, elementwise_affine=False)).double().eval()
    for norm in norms.values():
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
    x = image(*shape, seed=3) * 3 + 1
    program = recipe.respelled(model, {"x": x})
    actual, expected = program.module()(x), model(x)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    if gone:
        assert not [node for node in program.graph.nodes if gone in str(node.target)]


# ---- artifacts ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("executorch")
    return export_subject(as_subject(Mixed(), name="mixed"), ExportRequest("et", folder, precision=request.param))


def test_what_phones_have_trouble_with_passes(exported: Artifact) -> None:
    assert exported.parity is not None
    assert exported.parity.status == "passed"
    assert exported.parity.how == f"executorch {exported.toolchain['executorch']} XnnpackBackend, separate process"
    stages = ["respell", "halve", "lower"] if exported.precision == "fp16" else ["respell", "lower"]
    assert [stage.name for stage in exported.stages] == ["fold", *stages, "verify"]
    judged = ["respell", "lower"] if exported.precision == "fp16" else ["lower"]
    assert list(dict.fromkeys(check.stage for check in exported.parity.checks)) == ["fold", *judged, "artifact"]
    assert [(spec.name, spec.shape, spec.dtype) for spec in exported.inputs] == [("image", (1, 3, 16, 12), "float32")]
    assert [(spec.name, spec.shape, spec.dtype) for spec in exported.outputs] == [("output", (1, 5), "float32")]
    assert exported.parity.max_rel is not None
    assert (exported.parity.max_rel > 1e-5) == (exported.precision == "fp16"), "half precision costs precision"


def test_a_program_says_what_xnnpack_left(exported: Artifact) -> None:
    assert exported.operators.fallbacks == ({} if exported.precision == "fp32" else HALF)


def test_programs_of_other_labels_are_other_artifacts(tmp_path: Path) -> None:
    """The bytes of a program tell no labels and no preprocessing, and an accuracy belongs to a digest."""
    subject = as_subject(nn.Conv2d(3, 2, 3).eval(), name="plain")
    artifacts = [
        export_subject(dataclasses.replace(subject, labels=labels), ExportRequest("et", tmp_path / labels[0]))
        for labels in (("cat", "dog"), ("dog", "cat"))
    ]
    programs = [artifact.folder / artifact.payload for artifact in artifacts]
    assert programs[0].read_bytes() == programs[1].read_bytes()
    assert artifacts[0].sha256 != artifacts[1].sha256
    beside = [json.loads(program.with_name(f"{program.name}.json").read_text()) for program in programs]
    assert [metadata["names"] for metadata in beside] == ["{0: 'cat', 1: 'dog'}", "{0: 'dog', 1: 'cat'}"]
    assert all("edgevit.preprocessing" in metadata for metadata in beside)


# XNNPACK has GELU in float32 alone. It converts no numbers either: input and output, two norms' epsilons, and the
# attention's softmax, which torch computes in float32.
HALF = {"aten.gelu.default": 2, "dim_order_ops._to_dim_order_copy.default": 6}


@pytest.mark.parametrize(
    ("layer", "smallest", "largest"), [(nn.Linear(300, 300), 0.5, 0.6), (nn.Conv2d(3, 300, 10), 0.9, 1.01)]
)
def test_half_weights_are_half_the_size_where_xnnpack_keeps_them(
    layer: nn.Module, smallest: float, largest: float, tmp_path: Path
) -> None:
    """ExecuTorch's serializer always writes a convolution's weights in float32."""
    sizes = []
    for precision in ("fp32", "fp16"):
        (tmp_path / precision).mkdir()
        path = tmp_path / precision / "net.pte"
        examples = {"image": image(1, 3, 300, 300, dtype=torch.float32)}
        convert(layer.eval(), RECIPE, path, inputs=examples, precision=precision, allow_unfolded=True)
        sizes.append(path.stat().st_size)
    assert smallest < sizes[1] / sizes[0] < largest


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the time of threads")
def test_the_thread_count_is_honoured(tmp_path: Path) -> None:
    examples = {"image": image(1, 3, 16, 12, dtype=torch.float32)}
    convert(Wide().eval(), RECIPE, tmp_path / "net.pte", inputs=examples, precision="fp32", allow_unfolded=True)
    for threads in (1, 2):
        assert busy_threads(RECIPE.load(tmp_path / "net.pte", threads=threads)) == threads


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path) -> None:
    def compute(net: Any, a: Tensor, b: Tensor) -> Any:
        return a @ b, a - 2

    a, b = image(2, 3, 4, dtype=torch.float32), image(2, 4, 5, seed=2, dtype=torch.float32)
    model = Toy(compute).eval()
    convert(model, RECIPE, tmp_path / "net.pte", inputs={"a": a, "b": b}, precision="fp32", allow_unfolded=True)
    session = RECIPE.load(tmp_path / "net.pte", threads=1)
    assert [(spec.name, spec.shape) for spec in session.inputs] == [("a", (2, 3, 4)), ("b", (2, 4, 5))]
    assert [(spec.name, spec.shape) for spec in session.outputs] == [("output_0", (2, 3, 5)), ("output_1", (2, 3, 4))]
    session.feed([a.numpy().tobytes(), b.numpy().tobytes()], 2)
    for _ in range(2):  # a program's memory is its own after a run, its inputs' too
        session.run()
        for raw, expected in zip(session.fetch(), model(a, b), strict=True):
            np.testing.assert_allclose(np.frombuffer(raw, "float32"), expected.numpy().ravel(), rtol=1e-5, atol=1e-6)
