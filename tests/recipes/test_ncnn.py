"""Target ncnn: what pnnx makes of a network, in which forms, and what is refused by name."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.artifacts.folder import MANIFEST
from edgevit.errors import ExportError
from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject
from edgevit.folding import fold
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit_runtime.ncnn_spelling import _block_swaps, _digits
from edgevit_runtime.record import Stage, TensorSpec
from support.nets import Toy, image
from support.subjects import SIZE, as_subject

pytestmark = pytest.mark.ncnn
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")
RECIPE: Any = load_recipe("ncnn")
HELD = ["metadata.json", "model.ncnn.bin", "model.ncnn.param"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def f32(*shape: int, seed: int = 1) -> Tensor:
    return image(*shape, seed=seed, dtype=torch.float32)


class Mixed(nn.Module):
    """A little of all that the families have: GELU, roll, window attention, norms, pooling, a product of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU())
        self.norm, self.qkv, self.group = nn.LayerNorm(8), nn.Linear(8, 24), nn.GroupNorm(1, 8)
        self.columns = nn.Parameter(torch.randn(6, 6))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)  # 8 x 6
        x = x + torch.minimum(x, torch.roll(x, 3, 2)) + torch.roll(x, -2, 3)
        x = self.group(x) @ self.columns
        windows = x.reshape(-1, 8, 2, 4, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 12, 8)
        q, k, v = self.qkv(self.norm(windows)).chunk(3, -1)
        y = (windows + F.scaled_dot_product_attention(q, k, v)).reshape(-1, 2, 2, 4, 3, 8)
        y = y.permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, 8, 6)
        a, b = y.reshape(-1, 2, 4, 48).unbind(1)
        logits: Tensor = self.head(F.adaptive_avg_pool2d(y, 1).flatten(1) + torch.cat([a, b], 1).mean(2))
        return logits


def converted(
    folder: Path, model: nn.Module, *inputs: Tensor, precision: str = "fp32", **options: Any
) -> tuple[Stage, ...]:
    names = {f"in_{i}": tensor for i, tensor in enumerate(inputs)}
    folded = fold(model.eval(), inputs)
    return convert(folded, RECIPE, folder / "net_ncnn_model", inputs=names, precision=precision, **options)


def run(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    """Run a payload through the recipe's own load()."""
    session = RECIPE.load(path, threads=1)
    session.feed([np.ascontiguousarray(tensor.numpy()).tobytes() for tensor in inputs], inputs[0].shape[0])
    session.run()
    raw = zip(session.fetch(), session.outputs, strict=True)
    return [np.frombuffer(data, spec.dtype).reshape(spec.shape) for data, spec in raw]


def layers(path: Path) -> list[list[str]]:
    return [line.split() for line in (path / "model.ncnn.param").read_text().splitlines()[2:]]


def assert_computes(folder: Path, model: nn.Module, *inputs: Tensor) -> None:
    converted(folder, model, *inputs)
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(model(*inputs))
    for actual, goal in zip(run(folder / "net_ncnn_model", *inputs), expected, strict=True):
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, goal.numpy(), rtol=0, atol=1e-5 * float(goal.abs().max()))


# ---- an artifact -------------------------------------------------------------------------------------------------


def exported(folder: Path, precision: str, batch: int = 1) -> Artifact:
    return export_subject(as_subject(Mixed()), ExportRequest("ncnn", folder, precision, batch=batch))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_network_passes_stage_by_stage(tmp_path: Path, precision: str, batch: int) -> None:
    artifact = exported(tmp_path, precision, batch)
    names = ["convert", "precision"][: 2 if precision == "fp16" else 1]
    assert [stage.name for stage in artifact.stages] == ["fold", *names, "verify"]
    assert artifact.parity is not None
    assert artifact.parity.status == "passed"
    assert [check.stage for check in artifact.parity.checks[1::2]] == [*names, "artifact"]
    assert f"CPU {precision} weights, fp32 arithmetic" in artifact.parity.how
    assert artifact.inputs == (TensorSpec("image", (batch, 3, *SIZE)),)
    assert artifact.outputs == (TensorSpec("output", (batch, 5)),)
    payload = artifact.folder / artifact.payload
    assert sorted(path.name for path in artifact.folder.iterdir()) == [MANIFEST, "net_ncnn_model"]
    assert sorted(path.name for path in payload.iterdir()) == HELD
    sidecar = json.loads((payload / "metadata.json").read_text())
    assert sidecar["precision"] == precision
    assert sidecar["metadata"]["edgevit.parity"].startswith("passed: max_rel")
    assert (sidecar["metadata"]["batch"], sidecar["metadata"]["imgsz"]) == (str(batch), str(list(SIZE)))


def test_half_weights_are_half_and_change_the_result(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval(), f32(1, 3, 8, 8)
    convert_, precision = converted(tmp_path, model, x, precision="fp16")
    assert (convert_.precision, precision.precision) == ("fp32", "fp16")
    sizes = [(stage.path / "model.ncnn.bin").stat().st_size for stage in (convert_, precision)]
    assert sizes[1] < 0.55 * sizes[0]
    assert (tmp_path / "net_ncnn_model" / "model.ncnn.bin").stat().st_size == sizes[1]
    single, half = (run(stage.path, x)[0] for stage in (convert_, precision))
    expected = model(x).detach().numpy()
    assert np.abs(single - expected).max() < 1e-5 * np.abs(expected).max()
    assert 1e-5 < np.abs(half - expected).max() / np.abs(expected).max() < 2e-3


def test_a_session_computes_in_float32_on_one_thread_whatever_ncnn_prefers(tmp_path: Path) -> None:
    converted(tmp_path, nn.Linear(4, 3), f32(1, 4))
    session = RECIPE.load(tmp_path / "net_ncnn_model", threads=1)
    options = session._net.opt
    assert options.num_threads == 1
    halves = [name for name in dir(options) if name.startswith("use_") and ("16" in name or "int8" in name)]
    assert len(halves) >= 9
    assert not any(getattr(options, name) for name in (*halves, "use_vulkan_compute"))


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path) -> None:
    def compute(net: Any, words: Tensor, x: Tensor) -> Any:
        y = net.embed(words).mean(1)
        return {"words": y, "both": [y + net.fc(x), x.relu()]}

    model = Toy(compute, embed=nn.Embedding(9, 4), fc=nn.Linear(6, 4)).eval()
    words, x = torch.tensor([[1, 2, 8]]), f32(1, 6)
    assert_computes(tmp_path, model, words, x)
    session = RECIPE.load(tmp_path / "net_ncnn_model", threads=1)
    assert session.inputs == (TensorSpec("in_0", (1, 3), "int64"), TensorSpec("in_1", (1, 6)))
    assert [(spec.name, spec.shape) for spec in session.outputs] == [
        ("words", (1, 4)),
        ("both_0", (1, 4)),
        ("both_1", (1, 6)),
    ]


def test_an_export_says_nothing_of_its_own_accord(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """pytest makes an error of every warning; here it is lines on the screen, from pnnx too."""
    converted(tmp_path, Mixed(), f32(1, 3, *SIZE), precision="fp16")
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net_ncnn_model", "stages"]


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda net, x: x.sort(-1)[0], "no layer for aten::sort"),
        (lambda net, x: net.conv(x).index_select(1, net.order), "no layer for torch.index_select"),
        (lambda net, x: x > 0, "output is bool"),
        (lambda net, x: x.argmax(1), "output is int64"),
    ],
)
def test_what_ncnn_cannot_do_is_named(tmp_path: Path, compute: Any, message: str) -> None:
    order = torch.from_numpy(np.random.default_rng(0).permutation(100))
    with pytest.raises(ExportError, match="converter refused") as caught:
        converted(tmp_path, Toy(compute, conv=nn.Conv2d(3, 100, 1), order=order), f32(1, 3, 8, 6))
    assert message in caught.value.why
    assert not (tmp_path / "net_ncnn_model").exists()


def test_an_open_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="pnnx writes fixed shapes"):
        converted(tmp_path, nn.Linear(4, 3), f32(1, 4), dynamic_batch=True)
    assert not list(tmp_path.iterdir())


def test_a_converter_that_hangs_or_crashes_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECIPE, "_TIMEOUT_S", 1e-3)
    with pytest.raises(ExportError) as caught:
        converted(tmp_path / "slow", nn.Linear(4, 3), f32(1, 4))
    assert caught.value.why == "pnnx was not done after 0.001 s"
    monkeypatch.undo()
    import pnnx

    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\necho broken >&2\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(crash))
    with pytest.raises(ExportError, match="pnnx ended with -11") as caught:
        converted(tmp_path / "crashed", nn.Linear(4, 3), f32(1, 4))
    assert "broken" in str(caught.value.__cause__)


def test_a_damaged_folder_is_an_error_not_a_print(tmp_path: Path) -> None:
    converted(tmp_path, nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3)), f32(1, 4))
    path = tmp_path / "net_ncnn_model"
    param = path / "model.ncnn.param"
    good = param.read_text()
    for old, new, message in [
        ("InnerProduct", "OuterProduct", "cannot read model.ncnn.param"),
        ("out0", "out9", "cannot compute output"),
        ("in0", "in9", "does not take input in_0"),
    ]:
        bad = re.sub(rf"\b{old}\b", new, good)
        assert bad != good
        param.write_text(bad)
        with pytest.raises(RuntimeError, match=message):
            run(path, f32(1, 4))
    param.write_text(good)
    weights = path / "model.ncnn.bin"
    weights.write_bytes(weights.read_bytes()[:64])
    with pytest.raises(RuntimeError, match=r"cannot read model\.ncnn\.bin"):
        run(path, f32(1, 4))


# ---- forms that ncnn has -----------------------------------------------------------------------------------------


def permuted(sizes: tuple[int, ...], order: tuple[int, ...]) -> list[int]:
    """Return the indices of the gather that equals a transposition of these axes."""
    return np.arange(np.prod(sizes)).reshape(sizes).transpose(order).ravel().tolist()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_transpositions_are_found_in_a_gather(order: tuple[int, ...]) -> None:
    indices = permuted((2, 3, 2, 5), order)
    digits = _digits(indices)
    assert digits is not None
    now = sorted(digits, key=lambda digit: -digit[1])
    value: Any = np.arange(len(indices))
    for sizes in _block_swaps(now, digits):
        value = value.reshape(sizes).swapaxes(1, 2)
    assert value.ravel().tolist() == indices


@pytest.mark.parametrize(
    "indices",
    [
        [1, 0],
        [0, 1, 3, 2],
        [0, 1, 2, 4],
        [0, 0],
        [0, 2, 4],
        [1, 2, 3],
        random.Random(0).sample(range(24), 24),
        [*permuted((2, 3, 4), (2, 0, 1))[:-2], 23, 15],
    ],
)
def test_other_gathers_are_not_taken_for_transpositions(indices: list[int]) -> None:
    assert _digits(indices) is None


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("kind", ["transposed", "few runs", "repeated"])
def test_a_gather_with_a_constant_index_runs(tmp_path: Path, axis: int, kind: str) -> None:
    index = {
        "transposed": permuted((2, 2, 2, 3), (3, 1, 0, 2)),
        "few runs": [*range(9, 24), *range(5), 7, 8, *range(5, 7)],
        "repeated": [3, 4, 5, 3, 4, 5, 0],
    }[kind]
    model = Toy(
        lambda net, x: net.conv(x).index_select(axis, net.index), conv=nn.Conv2d(3, 24, 1), index=torch.tensor(index)
    )
    assert_computes(tmp_path, model, f32(1, 3, 24, 24))
    kinds = {layer[0] for layer in layers(tmp_path / "net_ncnn_model")}
    assert ("Permute" in kinds) == (kind == "transposed")


def test_a_product_of_what_was_unbound_converts(tmp_path: Path) -> None:
    """Attention written out: the forms that ncnn has are made one after the other, and each reads the shapes."""

    def attend(net: Any, x: Tensor) -> Tensor:
        tokens = net.patches(x).flatten(2).transpose(1, 2)
        q, k, v = net.qkv(tokens).reshape(-1, 12, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        result: Tensor = mixed.transpose(1, 2).reshape(-1, 12, 8)
        return result

    assert_computes(tmp_path, Toy(attend, patches=nn.Conv2d(3, 4, 2, 2), qkv=nn.Linear(4, 24)), f32(1, 3, 8, 6))


@pytest.mark.parametrize("present", ["weight", "bias"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_norm_with_weights_or_biases_alone_converts(tmp_path: Path, norm: str, present: str) -> None:
    def compute(net: Any, x: Tensor) -> Tensor:
        affine = (net.affine, None) if present == "weight" else (None, net.affine)
        return F.group_norm(x, 2, *affine) if norm == "group" else F.layer_norm(x.transpose(1, 3), (4,), *affine)

    assert_computes(tmp_path, Toy(compute, affine=nn.Parameter(torch.randn(4))), f32(1, 4, 6, 6))


def test_no_reshape_is_left_to_the_run_time(tmp_path: Path) -> None:
    """Each costs milliseconds: pnnx makes them of unbind and of products with four axes."""
    x = f32(1, 3, *SIZE)
    assert_computes(tmp_path, Mixed(), x)
    kinds = layers(tmp_path / "net_ncnn_model")
    assert {"SDPA", "GELU", "LayerNorm", "Slice", "Permute"} <= {layer[0] for layer in kinds}
    assert [layer for layer in kinds if layer[0] == "Reshape" and any("w," in part for part in layer)] == []
