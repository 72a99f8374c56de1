"""The coreml target: what the recipe writes, evaluated by reference; no Core ML is needed, nor run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgevit.artifacts.trust import code_digests
from edgevit.errors import ExportError
from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.folding import fold
from edgevit.recipes import load_recipe
from edgevit.records.artifact import ExportRequest
from edgevit.verification.mil import read_program
from edgevit_runtime.record import TensorSpec, UnsupportedError
from support.nets import Toy, image
from support.subjects import tiny_subject

pytestmark = pytest.mark.coreml
RECIPE = load_recipe("coreml")
SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"


@pytest.fixture(scope="module", autouse=True)
def ct() -> Any:
    torch.set_num_threads(1)
    with RECIPE._quiet():  # type: ignore[attr-defined]  # what coremltools says when it is imported
        return pytest.importorskip("coremltools")


def described(package: Path) -> Any:
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((package / SPECIFICATION).read_bytes())
    return model.description


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_small_network_end_to_end(tmp_path: Path, precision: str) -> None:
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest("ios", tmp_path / "out", precision))
    assert artifact.parity is not None
    assert (artifact.parity.status, artifact.target, artifact.precision) == ("evaluated", "coreml", precision)
    assert "reference evaluator, separate process" in artifact.parity.how
    names = ["convert", "precision"][: 2 if precision == "fp16" else 1]
    assert [stage.name for stage in artifact.stages] == ["fold", *names, "verify"]
    twice = [stage for stage in (*names, "artifact") for _ in range(2)]
    assert [check.stage for check in artifact.parity.checks] == ["fold", *twice]
    payload = artifact.folder / artifact.payload
    files = sorted(str(path.relative_to(payload)) for path in payload.rglob("*") if path.is_file())
    assert files == [SPECIFICATION, "Data/com.apple.CoreML/weights/weight.bin", "Manifest.json"]
    assert [(spec.name, spec.shape, spec.dtype) for spec in artifact.inputs] == [("image", (1, 3, 16, 12), "float32")]
    assert artifact.outputs == (TensorSpec("output", (1, 5)),)
    program = read_program(payload)
    operations = [operation for operation in program.operations if operation.operator != "cast"]
    kinds = {spec.dtype for operation in operations for spec in operation.results}
    assert kinds == {"float16" if precision == "fp16" else "float32"}
    description = described(payload)
    assert description.metadata.author == "unknown"
    assert description.metadata.license == "unknown"
    assert description.metadata.shortDescription.endswith(f"tiny for coreml, {precision}")
    assert description.metadata.versionString == "0.1.0"
    assert description.metadata.userDefined["edgevit.precision"] == precision
    assert description.metadata.userDefined["edgevit.minimum_deployment_target"] == "iOS17"
    assert description.metadata.userDefined["edgevit.parity"].startswith("passed: max_rel")
    assert (
        json.loads(description.metadata.userDefined["edgevit.source"])["state_sha256"] == artifact.source.state_sha256
    )
    assert {feature.type.multiArrayType.dataType for feature in (*description.input, *description.output)} == {
        65568
    }  # float32
    again = verify_artifact(artifact, built_here=code_digests(artifact))
    assert (again.status, again.max_rel) == ("evaluated", artifact.parity.max_rel)


def test_the_batch_may_be_open(tmp_path: Path) -> None:
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest("coreml", tmp_path / "out", dynamic_batch=True))
    assert artifact.parity is not None
    assert artifact.parity.status == "evaluated"
    assert artifact.inputs == (TensorSpec("image", (-1, 3, 16, 12)),)
    assert artifact.outputs == (TensorSpec("output", (-1, 5)),)
    array = described(artifact.folder / artifact.payload).input[0].type.multiArrayType
    sizes = array.shapeRange.sizeRanges
    assert [(size.lowerBound, size.upperBound) for size in sizes] == [(1, 64), (3, 3), (16, 16), (12, 12)]


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path) -> None:
    def compute(net: Any, one: Any, other: Any) -> Any:
        return {"sum": net.fc(one) + other, "both": [one.relu(), other.argmax(-1)]}

    model = Toy(compute, fc=nn.Linear(6, 4)).eval()
    one, other = image(1, 6, dtype=torch.float32), image(1, 4, seed=2, dtype=torch.float32)
    path = tmp_path / "net.mlpackage"
    convert(fold(model, (one, other)), RECIPE, path, inputs={"b": one, "a": other}, precision="fp32")
    program = read_program(path)
    assert [(spec.name, spec.shape) for spec in program.inputs] == [("b", (1, 6)), ("a", (1, 4))]
    outputs = [(spec.name, spec.shape, spec.dtype) for spec in program.outputs]
    floats = [("sum", (1, 4), "float32"), ("both_0", (1, 6), "float32")]
    assert outputs == [*floats, ("both_1", (1,), "int32")]


def test_inputs_of_other_types_are_refused(tmp_path: Path) -> None:
    model, words = Toy(lambda net, x: net.embed(x).mean(1), embed=nn.Embedding(9, 4)).eval(), torch.tensor([[1, 2, 8]])
    with pytest.raises(ExportError, match="takes float32, int32 and images, and the input 'words' is int64"):
        convert(fold(model, (words,)), RECIPE, tmp_path / "x", inputs={"words": words}, precision="fp32")


def test_an_export_says_nothing_of_its_own_accord(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()).eval(), image(1, 3, 6, 6, dtype=torch.float32)
    convert(fold(model, (x,)), RECIPE, tmp_path / "net.mlpackage", inputs={"x": x}, precision="fp16")
    assert capfd.readouterr() == ("", "")


def test_metadata_leaves_the_weights_as_they_are(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()).eval(), image(1, 3, 6, 6, dtype=torch.float32)
    path = tmp_path / "net.mlpackage"
    convert(fold(model, (x,)), RECIPE, path, inputs={"x": x}, precision="fp32")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    RECIPE.annotate(path, {"author": "A. Author", "more": "1"})
    changed = [file for file in path.rglob("*") if file.is_file() and file.read_bytes() != before.pop(file)]
    assert (changed, before) == ([path / SPECIFICATION], {})
    assert described(path).metadata.author == "A. Author"
    assert described(path).metadata.userDefined["more"] == "1"


def test_core_ml_runs_on_macos_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(UnsupportedError, match="macOS only"):
        RECIPE.load(tmp_path, threads=1)


def test_a_session_gives_core_ml_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the session but Core ML itself, in whose place a function stands."""
    import coremltools

    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()).eval(), image(1, 3, 6, 6, dtype=torch.float32)
    path = tmp_path / "net.mlpackage"
    convert(fold(model, (x,)), RECIPE, path, inputs={"x": x}, precision="fp16")
    opened = []

    class Model:
        def __init__(self, name: str, compute_units: Any) -> None:
            opened.append((name, compute_units))

        def get_spec(self) -> Any:
            return coremltools.utils.load_spec(str(path))

        def predict(self, feeds: dict[str, Any]) -> dict[str, Any]:
            return {"output": feeds["x"][:, :1].astype("float64")}

    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(coremltools.models, "MLModel", Model)
    session = RECIPE.load(path, threads=1)
    assert opened == [(str(path), coremltools.ComputeUnit.CPU_ONLY)]
    assert session.inputs == (TensorSpec("x", (1, 3, 6, 6)),)
    assert session.outputs == (TensorSpec("output", (1, 4, 4, 4)),)
    session.feed([x.numpy().tobytes()], 1)
    session.run()
    np.testing.assert_array_equal(np.frombuffer(session.fetch()[0], "float32"), x[:, :1].numpy().ravel())
