"""References of a comparison: the model's own answers, on inputs that it is made for, or a refusal with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edgevit.artifacts.folder import open_artifact
from edgevit.errors import ModelError
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.folding import prove
from edgevit.records.artifact import ExportRequest, SampleRequest
from support.narrowing import present
from support.nets import Toy, restless
from support.subjects import SIZE, as_subject

pytestmark = pytest.mark.onnx


NO_ANSWERS: dict[str, tuple[Callable[..., torch.Tensor], str, str]] = {
    "NaN": (lambda net, x: net.c(x).mean((2, 3)).abs().neg().sqrt(), "itself gives NaN", "--input-range"),
    "infinity": (lambda net, x: net.c(x).mean((2, 3)) / 0, "itself gives", "--input-range"),
    "chance": (
        lambda net, x: net.c(x) + torch.rand_like(x), "two answers to one input", "turn it off",
    ),
    "zero": (lambda net, x: net.c(x).mean((2, 3)) * 0, "nothing can be proven", "load trained weights"),
    "constant": (lambda net, x: net.c(x * 0).mean((2, 3)), "nothing can be proven", "load trained weights"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_a_model_whose_own_answers_prove_nothing_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    compute, problem, fix = NO_ANSWERS[kind]
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=problem) as caught:
        export_subject(as_subject(Toy(compute, c=nn.Conv2d(3, 3, 1))), ExportRequest("onnx", out))
    assert fix in caught.value.fix
    assert not out.exists()


def test_a_range_that_the_model_is_made_for_is_kept_for_the_next_verification(tmp_path: Path) -> None:
    subject = as_subject(Toy(lambda net, x: net.c(x.sqrt()).mean((2, 3)), c=nn.Conv2d(3, 4, 1)))
    artifact = export_subject(subject, ExportRequest("onnx", tmp_path, samples=SampleRequest((0.0, 1.0))))
    assert artifact.input_range == (0.0, 1.0)
    assert artifact.parity is not None and "noise from 0 to 1" in artifact.parity.inputs
    parity = verify_artifact(open_artifact(artifact.folder), model=subject.module)
    assert (parity.status, parity.inputs) == ("passed", artifact.parity.inputs)


def test_equal_infinities_of_a_mask_are_equal(tmp_path: Path) -> None:
    allowed = torch.tensor([True, True, False, True])
    subject = as_subject(
        Toy(
            lambda net, x: net.c(x).mean((2, 3)).masked_fill(~net.allowed, -torch.inf),
            c=nn.Conv2d(3, 4, 1),
            allowed=allowed,
        )
    )
    parity = export_subject(subject, ExportRequest("onnx", tmp_path)).parity
    assert parity is not None and parity.status == "passed"


def test_a_model_that_amplifies_rounding_is_named_and_its_fold_proven_in_float64(tmp_path: Path) -> None:
    subject = as_subject(restless(25))
    with pytest.raises(ModelError, match="nothing can be proven") as caught:
        export_subject(subject, ExportRequest("onnx", tmp_path / "out"))
    assert "amplifies rounding" in caught.value.why
    proof = prove(subject.module, (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),))
    assert proof.passed and proof.float32_tolerance > 1e-4
    assert present(proof.float64_max_rel) < 1e-7


class HigherScored(nn.Module):
    """Gives one of two maps, the one with the higher score; the scores are equal but for rounding on some images."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.maps, numbers = nn.Conv2d(3, 4, 1), images.flatten(1).double()
        weight = torch.ones(1, numbers.shape[1], dtype=torch.float64)
        difference = torch.linspace(-1, 1, numbers.shape[1], dtype=torch.float64)
        difference -= difference @ torch.linalg.pinv(numbers) @ numbers
        self.register_buffer("score", weight.float())
        self.register_buffer("other", (weight + difference).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 1, H, W)."""
        scores = [linear(x.flatten(1), weight) for weight in self.buffers()]
        index = torch.cat(scores, 1).topk(1).indices[..., None, None].expand(-1, 1, *x.shape[2:])
        chosen: Tensor = self.maps(x).gather(1, index)
        return chosen


def test_where_rounding_decides_an_engine_may_give_the_models_other_answer(tmp_path: Path) -> None:
    images = torch.randn(8, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "images.npy", images.numpy())
    request = ExportRequest("onnx", tmp_path / "out", samples=SampleRequest(file=tmp_path / "images.npy"))
    artifact = export_subject(as_subject(HigherScored(images)), request)
    assert artifact.parity is not None and artifact.parity.status == "passed"
    assert "samples against the model's answer to an input changed in its last digits" in artifact.parity.how
    assert max(present(check.max_rel) for check in artifact.parity.checks) < 1e-4
