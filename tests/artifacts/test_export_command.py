"""The command that an error suggests makes the same kind of artifact again, in the same folder, as it is printed."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
import torch

from edgevit.artifacts.export_command import export_command
from edgevit.artifacts.folder import open_artifact
from edgevit.records.artifact import Artifact
from support.command_line import edgevit, refused

NET = """
import torch
from torch import nn


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, photo, more=None):
        extra = 0 if more is None else more.float().sum(1, keepdim=True)
        return self.head(self.conv(photo).relu().mean((2, 3)) + extra)


def net():
    torch.manual_seed(0)
    return Sum().eval()
"""
FORMS = {
    "stated": (
        "--weights", "my weights.pt", "--weights-key", "model", "--input-size", "24x20", "--labels", "labels.txt",
        "--mean=-0.48145466,0.5,0.5", "--std", "0.25", "--range=-1,1", "--resize", "stretch", "--color", "BGR",
        "--input-range=-1,1", "--dynamic-batch",
    ),
    "several inputs": ("--input-shape", "photo=1x3x24x24", "--input-shape", "more=1x2:int64", "--unfolded"),
    "pixels": (
        "--input-shape", "1x3x24x24", "--embed-preprocess", "--resize", "28x26", "--interpolation", "box",
        "--batch-size", "2", "--out", "other place",
    ),
}  # fmt: skip
_VARYING = ("created", "stages", "sha256", "files", "size_bytes", "parity", "toolchain", "operators")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n", encoding="utf-8")
    torch.manual_seed(1)
    weights = {"conv.weight": torch.randn(4, 3, 3, 3), "conv.bias": torch.randn(4), "head.weight": torch.randn(3, 4)}
    weights["head.bias"] = torch.randn(3)
    averaged = {name: value * 2 for name, value in weights.items()}
    torch.save({"model": weights, "model_ema": averaged}, tmp_path / "my weights.pt")
    return tmp_path


def only(folder: Path) -> Artifact:
    [manifest] = folder.glob("*/*/manifest.json")
    return open_artifact(manifest.parent)


def facts(artifact: Artifact) -> dict[str, object]:
    return {name: value for name, value in vars(artifact).items() if name not in _VARYING}


@pytest.mark.onnx
@pytest.mark.parametrize("form", FORMS)
def test_the_command_makes_the_same_kind_of_artifact_again(
    form: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    outcome = edgevit("export", "net.py:net", "--target", "onnx", *FORMS[form])
    assert outcome.returncode == 0, outcome.stderr
    first = only(folder)
    command = shlex.split(export_command(first))
    outcome = edgevit(*command[1:])
    assert outcome.returncode == 0, outcome.stderr
    again = only(folder)
    assert again.created >= first.created and facts(again) == facts(first)


@pytest.mark.onnx
def test_what_is_not_known_here_is_left_to_the_reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    outcome = edgevit("export", "net.py:net", "--target", "onnx", *FORMS["stated"])
    assert outcome.returncode == 0, outcome.stderr
    artifact = only(folder)
    Path("my weights.pt").rename("moved.pt")
    assert "--weights 'path/to/my weights.pt' --weights-key model" in export_command(artifact)
    assert "--weights moved.pt --weights-key model" in export_command(artifact, weights=Path("moved.pt"))
    plain = dataclasses.replace(artifact, folder=Path("artifacts/net-net-onnx-fp32"))
    assert "--input-shape" not in export_command(plain), "the function states its inputs itself"
    # What `verify` prints is that command.
    Path("net.py").write_text(NET.replace("relu()", "sigmoid()"), encoding="utf-8")
    text = refused(2, "verify", artifact.folder, "--weights", "moved.pt")
    joined = " ".join(text.split())
    assert f"{export_command(artifact, weights=Path('moved.pt'))}, or give back its code" in joined
