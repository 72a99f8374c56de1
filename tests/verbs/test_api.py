"""The public functions: their names, signatures, reference page, and what each of them returns."""

from __future__ import annotations

import ast
import copy
import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edgevit
from edgevit.errors import CheckpointError, ModelError, UnknownNameError, UsageError
from edgevit.models import model_card
from edgevit.models.source import subject_of
from edgevit.records.artifact import Artifact
from edgevit.records.measurements import Measurements
from support.measured import failed, measured
from support.signatures import signature_text

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FUNCTIONS = [name for name in edgevit.__all__ if inspect.isfunction(getattr(edgevit, name))]
VERBS = {
    "fold", "quantize", "tune", "export", "verify", "evaluate", "profile", "sweep", "predict", "choose", "report",
}  # fmt: skip


class Net(nn.Module):
    """A small classifier, whose batch norm folds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.head(self.body(image))
        return logits


def test_every_verb_is_a_public_function() -> None:
    assert set(FUNCTIONS) == VERBS | {"create_model", "list_models"}
    assert set(edgevit.__all__) == {*FUNCTIONS, "LatencyDB", "__version__"} == set(dir(edgevit))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = edgevit.quantise


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_show_every_keyword_with_its_type(name: str) -> None:
    signature = inspect.signature(getattr(edgevit, name))
    for parameter in signature.parameters.values():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY), parameter
        assert parameter.annotation is not parameter.empty, parameter
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", sorted(VERBS - {"fold"}))
def test_docstrings_of_verbs_have_an_example_and_describe_each_parameter(name: str) -> None:
    text = inspect.getdoc(getattr(edgevit, name)) or ""
    example = "\n".join(re.findall(r"^ *>>> (.*)$", text, re.MULTILINE))
    assert f"edgevit.{name}(" in example and ast.parse(example)
    headings = re.findall(r"^(\w[\w, ]*)$", text.split("----------")[1], re.MULTILINE)
    described = set(re.findall(r"\w+", " ".join(headings)))
    assert described >= set(inspect.signature(getattr(edgevit, name)).parameters)


# docs/api.md


def test_every_public_name_has_a_section() -> None:
    assert set(SECTIONS) == set(edgevit.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_section_shows_the_signature_results_errors_and_an_example(name: str) -> None:
    text = SECTIONS[name]
    assert f"```text\n{signature_text(name, getattr(edgevit, name))}\n```\n" in text
    assert "\n**Returns** " in text and "\n**Raises** " in text
    [example] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert f"edgevit.{name}(" in example


# What the functions return


@pytest.fixture(scope="module")
def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def artifact(network: Net, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("api")
    return edgevit.export(network, "onnx", name="net", inputs={"image": torch.zeros(1, 3, 32, 24)}, out=folder)


@pytest.mark.onnx
def test_a_module_in_memory_is_exported_and_verified_with_the_module(network: Net, artifact: Artifact) -> None:
    assert (artifact.model, artifact.source.weights, artifact.inputs[0].shape) == ("net", "module", (1, 3, 32, 24))
    assert artifact.parity is not None and artifact.parity.status == "passed"
    assert edgevit.verify(artifact.folder, model=network).status == "passed"
    with pytest.raises(CheckpointError, match="module of a Python process") as caught:
        edgevit.verify(artifact)
    assert "model=" in caught.value.fix
    with pytest.raises(CheckpointError, match="not the weights"):
        edgevit.verify(artifact, model=Net().eval())


def test_modules_that_differ_never_share_a_name(network: Net) -> None:
    """Their folders would replace one another, and their rows would pass for one model's."""
    images = (torch.zeros(1, 3, 32, 24),)
    other_weights, other_activation = Net().eval(), copy.deepcopy(network)
    other_activation.body[2] = nn.Hardswish()
    names = {subject_of(module, images).name for module in (network, other_weights, other_activation)}
    assert len(names) == 3 and all(re.fullmatch(r"Net-[0-9a-f]{8}", name) for name in names)
    assert subject_of(copy.deepcopy(network), images).name in names


def test_a_module_of_the_zoo_in_memory_does_not_claim_the_published_accuracy() -> None:
    """It may be fine-tuned: its card's top-1 is of the official weights."""
    subject = subject_of(edgevit.create_model("mobilevig_ti", classes=3))
    assert (subject.family, subject.card) == ("custom", None) and subject.name not in edgevit.list_models()
    assert subject.inputs == model_card("mobilevig_ti").inputs
    with pytest.raises(UsageError, match="'mobilevig_ti' is a model of the zoo"):
        subject_of(subject.module, name="mobilevig_ti")


@pytest.mark.onnx
def test_a_module_with_its_preprocessing_inside_is_verified(network: Net, tmp_path: Path) -> None:
    inside = edgevit.export(network, "onnx", input_size=32, embed_preprocess=True, out=tmp_path)
    assert inside.inputs[0].dtype == "uint8"
    assert edgevit.verify(inside, model=network).status == "passed"


def test_requests_that_make_no_sense_are_refused(network: Net, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say what it takes"):
        edgevit.export(network, "onnx", out=tmp_path)
    with pytest.raises(UsageError, match="weights are of a named model"):
        edgevit.export(network, "onnx", input_size=32, weights="x.pt", out=tmp_path)
    with pytest.raises(UsageError, match="inputs are of an nn"):
        edgevit.export("mobilevig_ti", "onnx", inputs=(torch.zeros(1, 3, 32, 32),), out=tmp_path)
    with pytest.raises(UsageError, match="a name is for an nn"):
        edgevit.export("mobilevig_ti", "onnx", name="mine", out=tmp_path)
    with pytest.raises(ModelError, match="training mode"):
        edgevit.export(Net(), "onnx", input_size=32, out=tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean onnx"):
        edgevit.export(network, "onx", input_size=32, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.onnx
def test_one_artifact_gives_a_row_and_several_give_rows(artifact: Artifact, tmp_path: Path) -> None:
    db = str(tmp_path / "x.db")
    row = edgevit.profile(artifact, quick=True, db=db)
    assert (row.status, row.model, row.artifact_sha256) == ("ok", "net", artifact.sha256)
    rows = edgevit.profile([artifact.folder], threads=2, quick=True, db=db)
    assert isinstance(rows, Measurements) and [one.threads for one in rows] == [2]
    with edgevit.LatencyDB.open(db) as database:
        assert {one.measurement_id for one in database.measurements(model="net")} >= {row.measurement_id}


def test_predictions_are_of_models_that_a_device_has_not_measured(tmp_path: Path) -> None:
    edgevit.LatencyDB.open(str(tmp_path / "x.db")).close()
    predictions = edgevit.predict(["mobilevig_ti", "mobilevig_s"], "onnx", db=str(tmp_path / "x.db"))
    assert [one.model for one in predictions] == ["mobilevig_s", "mobilevig_ti"]
    assert {one.level for one in predictions} == {"refused"}, "this device has no row"
    assert repr(predictions) == "Predictions(0 of 2 models)"
    with pytest.raises(UnknownNameError, match="mobilevig_ti"):
        edgevit.predict("mobilevig_t", "onnx", db=str(tmp_path / "x.db"))


def test_a_prediction_is_for_one_device_by_its_name_id_or_class(tmp_path: Path) -> None:
    db = str(tmp_path / "x.db")
    with edgevit.LatencyDB.open(db, shipped=False) as database:
        database.add(measured(model="mobilevig_ti", device="board", device_id="unit-1", device_class="rk3588"))
    for name in ("board", "unit-1", "rk3588"):
        assert len(edgevit.predict("mobilevig_*", "onnx", device=name, threads=4, db=db)) == 3, (
            "one of four is measured"
        )
    with pytest.raises(UnknownNameError, match="board"):
        edgevit.predict("mobilevig_*", "onnx", device="bored", db=db)
    with edgevit.LatencyDB.open(db) as database:
        database.add(measured(model="mobilevig_ti", device="other", device_id="unit-2", device_class="rk3588"))
    with pytest.raises(UsageError, match=r"(?s)rk3588 is several devices.*unit-1, unit-2"):
        edgevit.predict("mobilevig_*", "onnx", device="rk3588", db=db)


def test_rows_have_a_short_repr_and_a_frame() -> None:
    rows = Measurements([measured(model="a"), failed(model="b")])
    text = repr(rows)
    assert text.startswith("Measurements(2: a ") and len(text) < 120
    frame: Any = rows.to_frame()
    assert list(frame["model"]) == ["a", "b"] and "samples_ns" not in frame
    assert repr(Measurements()) == "Measurements(0)"
    assert repr(rows[0]).startswith("Measurement(a ") and len(repr(rows[0])) < 120


@pytest.mark.onnx
def test_an_artifact_and_its_parity_have_short_reprs(artifact: Artifact) -> None:
    assert repr(artifact) == f"Artifact(net onnx fp32, passed, {artifact.size_bytes / 1e6:.1f} MB, '{artifact.folder}')"
    assert repr(artifact.parity).startswith("Parity(passed, max_rel ") and len(repr(artifact.parity)) < 120


# import edgevit


def test_importing_edgevit_loads_no_room() -> None:
    code = "import sys, edgevit; print([n for n in sys.modules if n.startswith('edgevit.') or n in ('torch', 'numpy')])"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout == "[]\n"


def test_the_logger_is_silent_by_default() -> None:
    assert any(isinstance(one, logging.NullHandler) for one in logging.getLogger("edgevit").handlers)
    code = "import logging, edgevit; logging.getLogger('edgevit.sweeps').warning('heard')"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (outcome.stdout, outcome.stderr) == ("", "")
