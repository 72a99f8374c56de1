"""Target litert: what the recipe writes, what its session runs with."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgevit.errors import ExportError
from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from support.nets import Toy
from support.phones import Mixed, Wide, busy_threads
from support.subjects import as_subject, tiny_subject

pytestmark = pytest.mark.litert
# To import it takes seconds, which only the worker of this file should spend.
if find_spec("litert_torch") is None:
    pytest.skip("litert_torch is not installed: make venv", allow_module_level=True)
RECIPE = load_recipe("tflite")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def metadata(path: Path) -> dict[str, str]:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    return {entry.name.decode(): bytes(model.buffers[entry.buffer].data).decode() for entry in model.metadata}


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("litert")
    return export_subject(as_subject(Mixed(), name="mixed"), ExportRequest("litert", folder, precision=request.param))


def test_what_phones_have_trouble_with_passes(exported: Artifact) -> None:
    assert exported.parity is not None
    assert exported.parity.status == "passed"
    assert exported.parity.how.startswith("ai-edge-litert 2")
    stages = ["convert", "precision"][: 2 if exported.precision == "fp16" else 1]
    assert [stage.name for stage in exported.stages] == ["fold", *stages, "verify"]
    assert [(spec.name, spec.shape, spec.dtype) for spec in exported.inputs] == [("image", (1, 3, 16, 12), "float32")]
    assert [(spec.name, spec.shape, spec.dtype) for spec in exported.outputs] == [("output", (1, 5), "float32")]
    assert exported.parity.max_rel is not None
    assert (exported.parity.max_rel > 1e-6) == (exported.precision == "fp16"), "half weights cost precision"


def test_a_payload_says_what_it_is(exported: Artifact) -> None:
    entries = metadata(exported.folder / exported.payload)
    assert entries["edgevit.precision"] == exported.precision
    assert entries["edgevit.parity"].startswith("passed")


def test_outputs_keep_the_models_order_whatever_their_names(tmp_path: Path) -> None:
    heads = {name: nn.Conv2d(3, channels, 1) for name, channels in (("scores", 4), ("boxes", 2), ("all", 3))}
    model = Toy(lambda net, x: {name: getattr(net, name)(x) for name in heads}, **heads)
    artifact = export_subject(as_subject(model), ExportRequest("litert", tmp_path / "out"))
    assert artifact.parity is not None and artifact.parity.status == "passed"
    assert [(spec.name, spec.shape[1]) for spec in artifact.outputs] == [("scores", 4), ("boxes", 2), ("all", 3)]


def test_what_xnnpack_does_not_take_is_told(tmp_path: Path) -> None:
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.relu(x).cumsum(-1) * 2

    artifact = export_subject(as_subject(Sorted()), ExportRequest("litert", tmp_path / "out"))
    assert artifact.operators.fallbacks == {"CUMSUM": 1}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Precision -> a network with weights enough to weigh them, and to keep threads busy."""
    folder = tmp_path_factory.mktemp("wide")
    orders = [ExportRequest("litert", folder, precision=precision) for precision in ("fp32", "fp16")]
    return {order.precision: export_subject(as_subject(Wide()), order) for order in orders}


def test_half_weights_are_half_the_size(wide: dict[str, Artifact]) -> None:
    assert 0.5 < wide["fp16"].size_bytes / wide["fp32"].size_bytes < 0.6


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the time of threads")
def test_the_thread_count_is_honoured(wide: dict[str, Artifact]) -> None:
    artifact = wide["fp32"]
    for threads in (1, 2):
        assert busy_threads(RECIPE.load(artifact.folder / artifact.payload, threads=threads)) == threads


def test_several_rows_run(tmp_path: Path) -> None:
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest("litert", tmp_path / "out", batch=3))
    assert artifact.outputs[0].shape == (3, 5)


def test_a_conversion_is_quiet_and_its_failure_is_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Unknown(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values: torch.Tensor = torch.linalg.svdvals(x)
            return values

    x = torch.ones(1, 3, 4, 4)
    convert(nn.ReLU().eval(), RECIPE, tmp_path / "x.tflite", inputs={"x": x}, precision="fp32", allow_unfolded=True)
    assert capfd.readouterr() == ("", "")
    (tmp_path / "bad").mkdir()
    bad = tmp_path / "bad" / "x.tflite"
    with pytest.raises(ExportError, match="litert's converter refused the model"):
        convert(Unknown().eval(), RECIPE, bad, inputs={"x": x}, precision="fp32", allow_unfolded=True)
