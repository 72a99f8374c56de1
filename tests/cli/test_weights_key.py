"""--weights-key: which of several sets of weights an artifact has, on the screen, in the manifest and in checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgevit.artifacts.folder import open_artifact
from edgevit.errors import UsageError
from edgevit.models.source import load_subject, state_sha256
from edgevit.records.artifact import ExportRequest, WeightsRequest
from edgevit.sweeps.plan import plan
from support.command_line import edgevit, refused

FILE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 3)).eval()
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Write a network, and a checkpoint with raw and averaged weights; return MODEL."""
    (tmp_path / "mine.py").write_text(FILE)
    name = f"{tmp_path}/mine.py:net"
    states = [load_subject(name, weights=WeightsRequest(seed=seed), input_size=(8, 8)) for seed in (1, 2)]
    raw, averaged = (subject.module.state_dict() for subject in states)
    torch.save({"model": raw, "model_ema": averaged, "epoch": 3}, tmp_path / "best.pth")
    return name


SENTENCE = "weights: the averaged set model_ema of best.pth; not model (--weights-key model takes that)"


def test_both_sets_are_named_and_the_manifest_keeps_the_choice(model: str, tmp_path: Path) -> None:
    weights, size = tmp_path / "best.pth", ("--input-size", 8)
    outcome = edgevit("export", model, "-t", "onnx", "--weights", weights, *size, "-o", tmp_path / "a")
    assert outcome.returncode == 0, outcome.stderr
    assert SENTENCE in outcome.stdout
    (folder,) = (tmp_path / "a").iterdir()
    choice = open_artifact(folder).source.choice
    assert choice is not None and (choice.key, choice.averaged, choice.others) == ("model_ema", True, ("model",))
    outcome = edgevit("verify", folder, "--weights", weights)
    assert outcome.returncode == 0 and SENTENCE in outcome.stdout
    text = refused(1, "verify", folder, "--weights", weights, "--weights-key", "model")
    assert "not the weights the artifact was made from" in text and "made from model_ema of best.pth" in text
    text = refused(1, "profile", folder, "--weights", weights, "--weights-key", "model")
    assert "not made from model of a checkpoint" in text and "it was made from model_ema of best.pth" in text


def test_a_key_takes_the_raw_set_and_verify_finds_it_again(model: str, tmp_path: Path) -> None:
    weights = tmp_path / "best.pth"
    options = ("--weights", weights, "--weights-key", "model", "--input-size", 8, "-o", tmp_path / "a", "--json")
    outcome = edgevit("export", model, "-t", "onnx", *options)
    assert outcome.returncode == 0, outcome.stderr
    artifact = json.loads(outcome.stdout)["artifacts"][0]
    raw = torch.load(weights, weights_only=True)["model"]
    net = load_subject(model, input_size=(8, 8)).module
    net.load_state_dict(raw)
    assert artifact["source"]["state_sha256"] == state_sha256(net)
    assert artifact["source"]["choice"]["key"] == "model"
    assert edgevit("verify", artifact["folder"], "--weights", weights).returncode == 0


def test_fold_names_the_sets_and_drawn_weights(model: str, tmp_path: Path) -> None:
    outcome = edgevit("fold", model, "--weights", tmp_path / "best.pth", "--input-size", 8)
    assert SENTENCE in outcome.stdout
    outcome = edgevit("fold", model, "--input-size", 8, "--seed", 4)
    assert f"weights: random, drawn by {model} from seed 4: --weights FILE loads trained ones" in outcome.stdout


def test_a_key_without_a_file_is_refused(model: str) -> None:
    assert "--weights FILE --weights-key ema" in refused(2, "fold", model, "--weights-key", "ema", "--input-size", 8)


def test_a_sweep_takes_the_checkpoint_of_one_model(model: str, tmp_path: Path) -> None:
    template = ExportRequest("", tmp_path, weights=tmp_path / "best.pth", weights_key="model", input_size=(8, 8))
    (request,) = plan([model, model], ["onnx"], ["fp32"], template)
    assert request.weights_request == WeightsRequest(tmp_path / "best.pth", "model")
    with pytest.raises(UsageError, match="a checkpoint is of one model"):
        plan([model, "mobilevig_ti"], ["onnx"], ["fp32"], template)
