"""Networks of timm and transformers as MODEL: real ones, with what their own configuration says of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgevit.artifacts.trust import code_digests
from edgevit.errors import CheckpointError, EdgevitError, ModelError, TargetUnavailableError, UsageError
from edgevit.exporting.child_process import export_here
from edgevit.exporting.pipeline import verify_artifact
from edgevit.models.hf_preprocessing import read_preprocessing
from edgevit.models.library_network import distinct, require_library
from edgevit.models.source import load_subject
from edgevit.records.artifact import ExportRequest, WeightsRequest
from edgevit.records.model import ASSUMED_PREPROCESSING
from edgevit.records.preprocessing import StatedPreprocessing, complete, read_stated
from edgevit_runtime.record import TensorSpec

ROOT = Path(__file__).parents[2]
# timm imports torchvision, whose wheel must match torch's build. Its networks need nothing of it.
STUB = ROOT / "benchmarks" / "torchvision_stub"


def needs(package: str) -> pytest.MarkDecorator:
    is_missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(is_missing, reason=f"{package} is not installed: make venv")


# --- timm --------------------------------------------------------------------------------------------------------

TIMM = """
import json, sys
from pathlib import Path
import timm, torch
from safetensors.torch import save_file
from edgevit.artifacts.trust import code_digests
from edgevit.errors import EdgevitError
from edgevit.exporting.child_process import export_here
from edgevit.exporting.pipeline import verify_artifact
from edgevit.models.source import load_subject
from edgevit.records.artifact import ExportRequest, WeightsRequest
from edgevit_runtime.codec import to_data

folder, name = Path(sys.argv[1]), "timm:test_resnet.r160_in1k"
answers = {}
artifact = export_here(ExportRequest("onnx", folder / "a", "fp32", name))
answers["artifact"] = to_data(artifact)
answers["verified"] = verify_artifact(artifact, built_here=code_digests(artifact)).status
subject = load_subject(name)
answers["labels"] = list(subject.labels)

tuned = timm.create_model("test_resnet", num_classes=3).eval()
torch.save({"state_dict": tuned.state_dict(), "state_dict_ema": tuned.state_dict()}, folder / "tuned.pth")
subject = load_subject(name, weights=WeightsRequest(folder / "tuned.pth"))
answers["tuned"] = [list(subject.module(torch.zeros(1, 3, 160, 160)).shape), list(subject.labels),
                    subject.source.weights, subject.source.choice.key]

hub = folder / "hub"
hub.mkdir()
config = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 96, 96], "crop_pct": 1.0, "crop_mode": "squash",
          "interpolation": "bilinear", "num_classes": 3}
(hub / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": 3,
    "label_names": ["a", "b", "c"], "pretrained_cfg": {**config, "label_names": ["a", "b", "c"]}}))
save_file(tuned.state_dict(), hub / "model.safetensors")
subject = load_subject(f"timm:{hub}")
answers["hub"] = [to_data(subject.inputs), to_data(subject.preprocessing), list(subject.labels), subject.source.weights]
same = all(torch.equal(value, tuned.state_dict()[key]) for key, value in subject.module.state_dict().items())
answers["hub_weights"] = same
try:
    load_subject("timm:test_resne")
except EdgevitError as error:
    answers["unknown"] = [error.what, error.why]
print(json.dumps(answers))
"""


@needs("timm")
def test_a_network_of_timm_goes_through(tmp_path: Path) -> None:
    """One process does it all, because the stand-in for torchvision must not be seen by other tests."""
    path = os.pathsep.join([str(ROOT / "runtime"), *([] if importlib.util.find_spec("torchvision") else [str(STUB)])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", TIMM, str(tmp_path)]
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    answers = json.loads(outcome.stdout.splitlines()[-1])
    artifact = answers["artifact"]
    assert artifact["parity"]["status"] == answers["verified"] == "passed" and artifact["folded"]
    assert artifact["model_inputs"] == [{"name": "image", "shape": [-1, 3, 160, 160], "dtype": "float32"}]
    preprocessing = artifact["preprocessing"]
    assert (preprocessing["mean"], preprocessing["std"]) == ([0.5] * 3, [0.5] * 3)
    assert (preprocessing["crop_pct"], preprocessing["interpolation"]) == (0.95, "bilinear")
    assert preprocessing["assumed"] == [] and artifact["source"]["weights"] == "random"
    assert len(answers["labels"]) == 1000 and answers["labels"][0] == "n01440764"
    assert artifact["labels"] == answers["labels"]
    assert answers["tuned"] == [[1, 3], [], "file", "state_dict_ema"], "the file's number of classes counts"
    inputs, preprocessing, labels, weights = answers["hub"]
    assert inputs[0]["shape"] == [-1, 3, 96, 96] and labels == ["a", "b", "c"] and weights == "file"
    assert preprocessing["stretch"] and preprocessing["mean"] == [0.1] * 3 and preprocessing["assumed"] == []
    assert answers["hub_weights"]
    assert "test_resne" in answers["unknown"][0] and "test_resnet" in answers["unknown"][1]


# --- transformers ------------------------------------------------------------------------------------------------

VIT = {
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2, "do_rescale": True,
    "rescale_factor": 0.00392156862745098, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.6, 0.7], "image_processor_type": "ViTImageProcessor",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small classifier as save_pretrained() does; return its folder."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: make venv")
    path = tmp_path_factory.mktemp("hf") / "resnet"
    labels = {0: "crane", 1: "cat", 2: "crane"}
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=labels
    )
    torch.manual_seed(3)
    transformers.ResNetForImageClassification(config).eval().save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(VIT))
    return path


def test_a_network_of_transformers_goes_through(folder: Path, tmp_path: Path) -> None:
    model = f"hf:{folder}"
    artifact = export_here(ExportRequest("onnx", tmp_path, "fp32", model))
    assert artifact.parity is not None and artifact.parity.status == "passed" and artifact.folded
    assert artifact.labels == ("crane (0)", "cat", "crane (2)")
    assert artifact.model_inputs == (TensorSpec("pixel_values", (-1, 3, 32, 32)),)
    preprocessing = artifact.preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
    assert preprocessing.stretch and preprocessing.interpolation == "bilinear" and not preprocessing.assumed
    assert (artifact.source.weights, artifact.source.weights_file) == ("file", "resnet")
    assert verify_artifact(artifact, built_here=code_digests(artifact)).status == "passed", (
        "the folder brings its weights along"
    )


def test_the_weights_of_the_folder_are_those_that_transformers_loads(folder: Path) -> None:
    import transformers

    module = load_subject(f"hf:{folder}").module
    theirs = transformers.ResNetForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(module(image), theirs(image).logits)


def test_options_count_before_the_configuration(folder: Path) -> None:
    stated = read_stated({"mean": "0.1", "resize": "64", "color": None})
    subject = load_subject(f"hf:{folder}", input_size=(48, 48), preprocessing=stated)
    assert subject.inputs[0].shape == (-1, 3, 48, 48)
    assert subject.preprocessing.mean == (0.1, 0.1, 0.1) and subject.preprocessing.std == (0.5, 0.6, 0.7)
    assert (subject.preprocessing.resize, subject.preprocessing.stretch) == ((64,), False)


def copied(folder: Path, target: Path, **changes: Any) -> Path:
    """Copy the folder's configuration with changes to it, without weights."""
    target.mkdir()
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (target / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return target


def test_a_folder_without_weights_has_random_ones_and_takes_a_file(folder: Path, tmp_path: Path) -> None:
    bare = copied(folder, tmp_path / "bare")
    first, second = (load_subject(f"hf:{bare}", input_size=(32, 32)) for _ in range(2))
    assert first.source == second.source and first.source.weights == "random"
    assert first.preprocessing.assumed == ("mean", "std", "range", "crop", "interpolation", "color")
    subject = load_subject(f"hf:{bare}", input_size=(32, 32), weights=WeightsRequest(folder))
    assert subject.source.weights == "file"
    assert subject.source.state_sha256 == load_subject(f"hf:{folder}").source.state_sha256
    with pytest.raises(UsageError, match="does not say what it takes"):
        load_subject(f"hf:{bare}")


def test_tensors_that_transformers_would_draw_at_random_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    partial = copied(folder, tmp_path / "partial")
    state = load_file(folder / "model.safetensors")
    missing = next(name for name in state if name.startswith("classifier"))
    save_file({key: value for key, value in state.items() if key != missing}, partial / "model.safetensors")
    with pytest.raises(CheckpointError, match="1 missing: classifier"):
        load_subject(f"hf:{partial}", input_size=(32, 32))
    state[missing] = torch.full_like(state[missing], float("nan"))
    save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{missing} holds NaN"):
        load_subject(f"hf:{partial}", input_size=(32, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "modeling.Net"}}, "needs code of its own"),
        ({"architectures": None}, "does not say which network it is"),
        ({"architectures": None, "architecture": "resnet18"}, "is a network of timm"),
        ({"architectures": ["NetOfTheFuture"]}, "is no network of transformers"),
        ({"model_type": "resnet", "depths": "three"}, "cannot be loaded"),
    ],
)
def test_folders_that_cannot_be_loaded_say_why(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_subject(f"hf:{copied(folder, tmp_path / 'changed', **changes)}", input_size=(32, 32))
    assert caught.value.fix or caught.value.why


def test_a_name_of_the_hub_is_no_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match="names no folder") as caught:
        load_subject("hf:microsoft/resnet-18")
    assert caught.value.fix.startswith("hf download microsoft/resnet-18 --local-dir")


# --- both --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "package"), [("timm", "timm"), ("hf", "transformers")])
def test_without_the_library_the_extra_is_named(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest))
    with pytest.raises(TargetUnavailableError, match=f"needs {package}, which is not installed") as caught:
        load_subject(f"{kind}:{tmp_path}")
    assert caught.value.fix == f"pip install 'edgevit[{kind}]'"
    assert f"\n{kind} = [" in (ROOT / "pyproject.toml").read_text()
    require_library("json", kind, "any")


def test_a_library_that_cannot_be_imported_is_an_error_of_edgevit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("edgevit.models.timm_network.require_library", lambda *names: None)
    with pytest.raises(EdgevitError, match="cannot be loaded") as caught:
        load_subject("timm:resnet18")
    assert caught.value.fix == "pip install -U 'edgevit[timm]'"


def test_labels_that_occur_twice_get_their_number() -> None:
    assert distinct(["crane", "cat", "crane"]) == ("crane (0)", "cat", "crane (2)")


CROP = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, "resample": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("processor", "resize", "stretch", "assumed", "size"),
    [
        ({**VIT}, (), True, (), (32, 32)),
        ({**VIT, "size": 224}, (), True, (), (224, 224)),
        ({**CROP, "size": {"shortest_edge": 256}, "image_processor_type": "MobileNetV2ImageProcessor"},
         (256,), False, (), (224, 224)),
        ({**CROP, "size": 224, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor"},
         (224,), False, (), (224, 224)),
        ({**CROP, "size": {"height": 256, "width": 256}, "image_processor_type": "DeiTImageProcessorFast"},
         (256, 256), False, (), (224, 224)),
        ({**CROP, "do_center_crop": None, "size": {"shortest_edge": 224}, "crop_pct": 0.875,
          "image_processor_type": "ConvNextImageProcessor"}, (256,), False, (), (224, 224)),
        ({**CROP, "do_center_crop": None, "size": {"shortest_edge": 384}, "crop_pct": 0.875,
          "image_processor_type": "ConvNextImageProcessor"}, (), True, (), (384, 384)),
        ({**CROP, "size": {"shortest_edge": 224}, "image_processor_type": "LevitImageProcessor"},
         (256,), False, (), (224, 224)),
        ({**CROP, "size": {"height": 224, "width": 224}, "image_processor_type": "PerceiverImageProcessor"},
         (), False, ("crop",), (224, 224)),
        ({**CROP, "do_resize": False, "image_processor_type": "ViTImageProcessor"}, (), False, ("crop",), (224, 224)),
    ],
)  # fmt: skip
def test_image_processors_are_read(
    tmp_path: Path, processor: dict[str, Any], resize: tuple[int, ...], stretch: bool, assumed: tuple[str, ...],
    size: tuple[int, int],
) -> None:  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    stated, read_size = read_preprocessing(tmp_path, {})
    assert read_size == size
    preprocessing = complete(ASSUMED_PREPROCESSING, stated, (TensorSpec("x", (-1, 3, *size)),))
    assert (preprocessing.resize, preprocessing.stretch, preprocessing.assumed) == (resize, stretch, assumed)


@pytest.mark.parametrize(
    ("processor", "stated"),
    [
        ({"do_rescale": False, "image_mean": [1, 2, 3], "image_std": [4, 5, 6]},
         StatedPreprocessing((1, 2, 3), (4, 5, 6), (0, 255), color="RGB")),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False, "do_flip_channel_order": True},
         StatedPreprocessing((0,), (1,), (-1, 1), color="BGR")),
        ({"image_mean": [0.5], "image_std": [0.5], "include_top": True,
          "image_processor_type": "EfficientNetImageProcessor"},
         StatedPreprocessing((0.5,), (0.25,), (0, 1), color="RGB")),
    ],
)  # fmt: skip
def test_normalisation_is_read(tmp_path: Path, processor: dict[str, Any], stated: StatedPreprocessing) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_resize": False, **processor}))
    assert read_preprocessing(tmp_path, {})[0] == stated


def test_a_damaged_preprocessing_is_refused(tmp_path: Path) -> None:
    texts = (
        "{",
        "[]",
        '{"image_processor": 3}',
        '{"image_mean": [1e999], "image_std": [1]}',
        '{"size": {"height": -3, "width": 4}}',
    )
    for text in texts:
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(ModelError, match="preprocessing cannot be read"):
            read_preprocessing(tmp_path, {})
