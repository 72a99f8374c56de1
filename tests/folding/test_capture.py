"""How often a proof and a fold capture a network: once where one capture serves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.folding import fold, inference_form, prove
from edgevit.folding.capture import capture
from edgevit.folding.graph import Net
from edgevit.models import randomize
from support.narrowing import present
from support.nets import Toy, image
from support.saboteurs import residual_net


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtype of the first input of each capture."""
    dtypes: list[torch.dtype] = []

    def counted(model: nn.Module, inputs: tuple[Tensor, ...]) -> Net:
        dtypes.append(inputs[0].dtype)
        return capture(model, inputs)

    monkeypatch.setattr(inference_form, "capture", counted)
    return dtypes


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch of each torch.export.export."""
    batches: list[int] = []
    original = torch.export.export

    def counted(model: nn.Module, inputs: tuple[Tensor, ...], **options: Any) -> Any:
        batches.append(len(inputs[0]))
        return original(model, inputs, **options)

    monkeypatch.setattr(torch.export, "export", counted)
    return batches


def test_a_proof_captures_once(captures: list[torch.dtype]) -> None:
    model = residual_net().eval().float()
    randomize(model)
    proof = prove(model, (image(2, 3, 12, 12, dtype=torch.float32),))
    assert proof.passed and 0 < present(proof.float64_max_rel) < 1e-13 < present(proof.float32_max_rel)
    assert captures == [torch.float32]


NAMES_A_DTYPE = {
    "names a dtype": lambda net, x: net.a(x).to(torch.float32),
    "makes tensors of a dtype": lambda net, x: net.a(x) + torch.ones(4, 1, 1, dtype=torch.float64).to(x.dtype),
}


@pytest.mark.parametrize("name", NAMES_A_DTYPE)
def test_a_proof_of_a_graph_that_names_a_dtype_captures_once(name: str, captures: list[torch.dtype]) -> None:
    model = Toy(NAMES_A_DTYPE[name], a=nn.Conv2d(3, 4, 3)).eval().float()
    proof = prove(model, (image(2, 3, 8, 8, dtype=torch.float32),))
    assert proof.passed and present(proof.float64_max_rel) < 1e-13
    assert captures == [torch.float32]


def test_a_proof_of_a_graph_that_depends_on_its_precision_captures_each(captures: list[torch.dtype]) -> None:
    model = Toy(lambda net, x: net.a(x) + torch.finfo(x.dtype).eps ** 0.5, a=nn.Conv2d(3, 4, 3)).eval().float()
    x = image(2, 3, 8, 8, dtype=torch.float32)
    assert prove(model, (x,)).passed
    assert captures == [torch.float32, torch.float64]
    assert fold(model, (x,))(x).dtype == torch.float32, "its check captures each, too"


def test_a_float64_model_is_not_proven_by_rounding_its_fold(captures: list[torch.dtype]) -> None:
    assert prove(residual_net().eval().double(), (image(2, 3, 12, 12),)).passed
    assert captures == [torch.float64, torch.float32]


def test_a_batch_that_is_fixed_at_two_or_more_is_captured_once(exports: list[int]) -> None:
    model = Toy(lambda net, x: net.a(x).reshape(2, 144), a=nn.Conv2d(3, 4, 3)).eval()
    x = image(2, 3, 8, 8)
    folded = fold(model.double(), (x,))
    assert not folded.report.batch_is_open and len(exports) == 1
    assert torch.equal(folded(x), model(x))
