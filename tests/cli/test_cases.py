"""Small networks as a new user would try them on the command line: each works, or says in one error what to do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from support.command_line import edgevit

NETWORKS = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, compute, **parts):
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.compute(self, *inputs)


def masked():
    torch.manual_seed(0)
    net = Net(lambda net, x: net.conv(x).mean((2, 3)).masked_fill(~net.allowed, -torch.inf), conv=nn.Conv2d(3, 4, 1))
    net.register_buffer("allowed", torch.tensor([True, True, False, True]))
    return net.eval()


def rooted():
    return Net(lambda net, x: net.conv(x.sqrt()), conv=nn.Conv2d(3, 4, 1)).eval()


def noisy():
    return Net(lambda net, x: net.conv(x) + torch.rand_like(x), conv=nn.Conv2d(3, 3, 1)).eval()


def dead():
    net = Net(lambda net, x: net.conv(x), conv=nn.Conv2d(3, 3, 1))
    nn.init.zeros_(net.conv.weight)
    return net.eval()


def even_same():
    parts = (nn.Conv2d(3, 8, 4, padding="same"), nn.BatchNorm2d(8), nn.Conv2d(8, 8, (4, 3), padding="same"))
    return nn.Sequential(*parts, nn.BatchNorm2d(8)).eval()


def half_weights():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).half().eval()


def double_weights():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).double().eval()


def bfloat_weights():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).bfloat16().eval()


def names_float32():
    one, parts = torch.ones(1, dtype=torch.float32), {"conv": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8)}
    return Net(lambda net, x: net.norm(net.conv(x)).float() * one, **parts).eval()


def no_parameters():
    return nn.PixelUnshuffle(2).eval()


def grey():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)).eval()


def four_channels():
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).eval()


def sound():
    return nn.Sequential(nn.Conv1d(40, 8, 3), nn.BatchNorm1d(8), nn.ReLU()).eval()


def volume():
    return nn.Sequential(nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU()).eval()


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x, y):
        return self.body(x).mean((2, 3)) - 2 * self.body(y).mean((2, 3))


def siamese():
    torch.manual_seed(0)
    return Siamese().eval()


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.line = nn.Embedding(2, 8), nn.Linear(8, 8)

    def forward(self, ids, weight):
        return self.line(self.words(ids)) * weight


def tokens():
    torch.manual_seed(0)
    return Tokens().eval()


def broken():
    return Net(lambda net, x: net.convolution(x), conv=nn.Conv2d(3, 8, 3)).eval()


def one_image_only():
    parts = {"conv": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8)}
    return Net(lambda net, x: net.norm(net.conv(x)).view(1, 8, -1), **parts).eval()


def absent_output():
    outputs = {"aux": None, "count": 3}
    return Net(lambda net, x: {"logits": net.conv(x).mean((2, 3)), **outputs}, conv=nn.Conv2d(3, 4, 1)).eval()


def heads(joined):
    torch.manual_seed(1)

    def compute(net, x):
        features = net.stem(x).relu()
        boxes = net.box(features).sigmoid().flatten(2) * 640
        shifted = (features * 30 + 60000).relu()
        scores = net.score((shifted - shifted.mean((2, 3), keepdim=True)) / 30).sigmoid().flatten(2)
        return torch.cat((boxes, scores), 1) if joined else (boxes, scores)

    return Net(compute, stem=nn.Conv2d(3, 16, 3, 2, 1), box=nn.Conv2d(16, 4, 1), score=nn.Conv2d(16, 20, 1)).eval()


def joined_head():
    return heads(True)


def separate_heads():
    return heads(False)
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with networks.py, which is the working directory."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folded(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return edgevit("fold", f"networks.py:{name}", "--input-size", "32", "--json", *options)


@pytest.mark.parametrize(
    "name",
    [
        "masked",
        "even_same",
        "half_weights",
        "double_weights",
        "bfloat_weights",
        "names_float32",
        "no_parameters",
        "one_image_only",
        "absent_output",
    ],
)
def test_it_folds_with_proof_and_without_a_norm_left(networks: Path, name: str) -> None:
    result = folded(name)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["passed"] and report["report"]["unfolded"] == []


def test_a_range_makes_a_model_of_roots_provable(networks: Path) -> None:
    result = folded("rooted")
    assert result.returncode == 1
    assert "gives NaN" in result.stderr and "--input-range" in result.stderr
    assert folded("rooted", "--input-range", "0,1").returncode == 0


@pytest.mark.parametrize(
    ("name", "problem", "fix"),
    [
        ("noisy", "gives two answers to one input", "evaluation mode"),
        ("dead", "nothing can be proven of", "load trained weights"),
        ("grey", "which was assumed: one RGB image of --input-size", "--input-shape"),
        ("siamese", "which was assumed: one RGB image of --input-size", "--input-shape"),
        ("broken", "has no attribute 'convolution'", "--input-s"),
    ],
)
def test_what_proves_nothing_is_named(networks: Path, name: str, problem: str, fix: str) -> None:
    result = folded(name)
    assert result.returncode == 1
    assert problem in result.stderr and fix in result.stderr


INPUTS = {
    "grey": ["1x1x32x32"],
    "four_channels": ["1x4x32x32"],
    "sound": ["1x40x50"],
    "volume": ["1x1x8x8x8"],
    # Named as in forward, so that their order on the command line does not matter.
    "siamese": ["y=1x3x16x20", "x=1x3x32x24"],
    "tokens": ["1x9:int64", "weight=1x1x8:float32"],
}


def shapes_of(name: str) -> list[str]:
    return [word for shape in INPUTS[name] for word in ("--input-shape", shape)]


@pytest.mark.onnx
@pytest.mark.parametrize("name", INPUTS)
def test_a_network_of_any_inputs_is_folded_exported_and_verified_again(networks: Path, name: str) -> None:
    result = edgevit("fold", f"networks.py:{name}", "--json", *shapes_of(name))
    assert result.returncode == 0 and json.loads(result.stdout)["passed"], result.stderr
    exported = edgevit("export", f"networks.py:{name}", "-t", "onnx", "--json", *shapes_of(name))
    assert exported.returncode == 0, exported.stderr
    (artifact,) = json.loads(exported.stdout)["artifacts"]
    assert artifact["parity"]["status"] == "passed"
    if name == "siamese":
        shapes = [(spec["name"], spec["shape"]) for spec in artifact["inputs"]]
        assert shapes == [("x", [1, 3, 32, 24]), ("y", [1, 3, 16, 20])], "as forward takes them"
    assert edgevit("verify", artifact["folder"]).returncode == 0


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        (["1x3x32x32"], "takes 2 input(s), and 1 were stated"),
        (["x=1x3x32x32", "x=1x3x32x32"], "two inputs have the name 'x'"),
        (["y=1x3x32x32", "1x3x32x32"], "the order of the inputs"),
        (["2x3x32x32", "2x3x32x32"], "begins with 2"),
        (["1x3x32x32:half", "1x3x32x32"], "no type of an input"),
        (["1x0x32x32", "1x3x32x32"], "no shape of an input"),
        (["3x", "1x3x32x32"], "no shape of an input"),
    ],
)
def test_inputs_that_cannot_be_are_refused(networks: Path, shapes: list[str], problem: str) -> None:
    words = [word for shape in shapes for word in ("--input-shape", shape)]
    result = edgevit("fold", "networks.py:siamese", *words)
    assert result.returncode == 2 and problem in result.stderr, result.stderr


def test_a_size_beside_a_shape_is_refused(networks: Path) -> None:
    result = folded("grey", "--input-shape", "1x1x32x32")
    assert result.returncode == 2 and "say the same" in result.stderr


@pytest.mark.parametrize("text", ["0", "1,0", "a,b", "0,inf", "0,1,2"])
def test_a_range_that_is_none_is_refused(networks: Path, text: str) -> None:
    result = folded("rooted", f"--input-range={text}")
    assert result.returncode == 2
    assert "is not a range" in result.stderr


@pytest.mark.onnx
@pytest.mark.parametrize("name", ["joined_head", "separate_heads"])
def test_scores_that_half_precision_loses_fail_beside_boxes_too(networks: Path, name: str) -> None:
    arguments = ("export", f"networks.py:{name}", "-t", "onnx", "--precision", "fp16", "--input-size", "32", "-q")
    result = edgevit(*arguments)
    assert result.returncode == 4, result.stderr
    assert "stage half" in result.stderr and "channel" in result.stderr
    assert edgevit(*arguments, "--precision", "fp32").returncode == 0


@pytest.mark.onnx
def test_a_sweep_verifies_in_the_range_that_it_is_given(networks: Path) -> None:
    arguments = ("--models", "networks.py:rooted", "--targets", "onnx", "--input-size", "32", "--quick", "--db", "a.db")
    refused = edgevit("sweep", *arguments)
    assert refused.returncode == 1 and "--input-range" in refused.stdout + refused.stderr
    assert edgevit("sweep", *arguments, "--input-range", "0,1").returncode == 0
    (manifest,) = networks.glob("artifacts/*/manifest.json")
    assert json.loads(manifest.read_text())["artifact"]["input_range"] == [0.0, 1.0]
    made = manifest.stat().st_mtime_ns
    assert edgevit("sweep", *arguments).returncode == 0
    assert manifest.stat().st_mtime_ns == made, "without another range it is taken as it is"
    assert edgevit("sweep", *arguments, "--input-range", "0,2").returncode == 0
    assert json.loads(manifest.read_text())["artifact"]["input_range"] == [0.0, 2.0]


@pytest.mark.onnx
def test_profile_takes_only_artifacts_of_the_named_checkpoint_and_labels(networks: Path) -> None:
    state = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)).state_dict()
    torch.save(state, networks / "grey.pt")
    torch.save({name: tensor + 1 for name, tensor in state.items()}, networks / "other.pt")
    (networks / "names.txt").write_text("a\nb\n")
    shape = ("--input-shape", "1x1x32x32")
    assert edgevit("export", "networks.py:grey", "-t", "onnx", "--weights", "grey.pt", *shape, "-q").returncode == 0
    profile = ("profile", "artifacts/networks-grey-1x32x32-onnx-fp32", "--quick", "--db", "a.db")
    refused_weights = edgevit(*profile, "--weights", "other.pt")
    assert refused_weights.returncode == 1 and "it was made from grey.pt" in refused_weights.stderr
    refused_labels = edgevit(*profile, "--weights", "grey.pt", "--labels", "names.txt")
    assert refused_labels.returncode == 2 and "the artifact has other labels" in refused_labels.stderr
    assert edgevit(*profile, "--weights", "grey.pt").returncode == 0
    sweep = ("sweep", "--models", "networks.py:grey,networks.py:masked", "--targets", "onnx", "--weights", "grey.pt")
    several = edgevit(*sweep, *shape)
    assert several.returncode == 2 and "a checkpoint is of one model" in several.stderr
