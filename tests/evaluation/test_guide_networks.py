"""The networks of docs/guide.md: each engine gives every picture the class that torch gives it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgevit.artifacts.trust import code_digests
from edgevit.evaluation import EvaluationRequest, evaluate
from edgevit.exporting.pipeline import export_subject
from edgevit.models.source import load_subject
from edgevit.records.artifact import ExportRequest, WeightsRequest
from support.command_line import programs
from support.targets import marks

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
# The targets whose engines run on any processor.
TARGETS = ("onnx", "openvino", "ncnn", "litert", "executorch")
# Every width in every engine takes a minute.
VARIANTS = [
    pytest.param(width, target, marks=marks(target, slow=width != "medium"))
    for width in ("small", "medium", "large")
    for target in TARGETS
]


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the guide's first two blocks of Python: meter.py, three checkpoints and a folder of pictures."""
    folder = tmp_path_factory.mktemp("guide")
    text = "".join(re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)[:2])
    (folder / "blocks.py").write_text(text, "utf-8")
    subprocess.run([programs() / "python", "blocks.py"], cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


def torchs_answers(folder: Path, width: str) -> dict[tuple[int, int], int]:
    """Return how many pictures of each class torch gives each class, by the averaged weights.

    Nothing of edgevit takes part: neither its loader of checkpoints nor its pixels.
    """
    spec = importlib.util.spec_from_file_location("meter_of_the_guide", folder / "meter.py")
    assert spec is not None and spec.loader is not None
    meter: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(meter)
    model = getattr(meter, width)()
    model.load_state_dict(torch.load(folder / f"{width}.pt", weights_only=True)["model_ema"])
    files = [(actual, file) for actual, label in enumerate(meter.labels) for file in _pictures(folder, label)]
    pixels = [np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR), np.float32) for _, file in files]
    with torch.inference_mode():
        answers = model((torch.from_numpy(np.stack(pixels))[:, None] / 255 - 0.287) / 0.304).argmax(1).tolist()
    return Counter((actual, answer) for (actual, _), answer in zip(files, answers, strict=True))


def _pictures(folder: Path, label: str) -> list[Path]:
    return sorted((folder / "pictures" / label).iterdir())


@pytest.mark.parametrize(("width", "target"), VARIANTS)
def test_an_artifact_classifies_each_picture_as_torch_does(guide: Path, width: str, target: str) -> None:
    weights = WeightsRequest(guide / f"{width}.pt")
    subject = load_subject(f"{guide}/meter.py:{width}", weights=weights)
    artifact = export_subject(subject, ExportRequest(target, guide / "artifacts"))
    request = EvaluationRequest(guide / "pictures", against_model=True, weights=weights)
    evaluation = evaluate(artifact, request, built_here=code_digests(artifact))
    expected = torchs_answers(guide, width)
    assert {(actual, given): images for actual, given, images in evaluation.confusion.counts} == expected
    assert evaluation.top1.right == sum(images for (actual, given), images in expected.items() if actual == given)
    assert evaluation.agreement is not None and evaluation.agreement.changed == 0
    assert evaluation.assumed == () and evaluation.top1.total == 360
