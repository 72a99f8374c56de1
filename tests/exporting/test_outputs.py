"""Outputs as converters take them: tensors alone in the model's order, under the names that the model gives them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import ExportError
from edgevit.exporting.outputs import plain_outputs
from edgevit.exporting.pipeline import export_subject
from edgevit.records.artifact import ExportRequest
from support.nets import Toy
from support.subjects import as_subject
from support.targets import targets


@dataclasses.dataclass
class Detections:
    """What a detector found."""

    boxes: Tensor
    masks: Tensor | None
    count: int = 3


X = torch.ones(1, 3, 4, 4)
FORMS: dict[str, tuple[Any, list[str]]] = {
    "tensor": (lambda net, x: x, ["output"]),
    "tuple": (lambda net, x: (x, x + 1), ["output_0", "output_1"]),
    "nested": (lambda net, x: (x, [x + 1, None], 3), ["output_0", "output_1"]),
    "dictionary": (lambda net, x: {"logits": x, "aux": None, "flag": True}, ["logits"]),
    "dictionaries": (lambda net, x: {"a": {"b": x, 7: x + 1}, "c-d": [x + 2]}, ["a_b", "a_7", "c_d_0"]),
    "record": (lambda net, x: Detections(x, None), ["boxes"]),
    "an input's name": (lambda net, x: {"image": x, "a b": x + 1, "a_b": x + 2}, ["image_2", "a_b", "a_b_2"]),
    "digits": (lambda net, x: {0: x, 1: x + 1}, ["output_0", "output_1"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_tensors_keep_their_order_and_get_names(form: str) -> None:
    compute, names = FORMS[form]
    # A record is known to torch from its first run.
    model, found = plain_outputs(Toy(compute).eval(), {"image": X})
    assert list(found) == names
    result = model(X)
    tensors = result if isinstance(result, (tuple, list)) else [result]
    assert [int(tensor[0, 0, 0, 0]) for tensor in tensors] == [1, 2, 3][: len(names)]


def test_plain_outputs_leave_the_model_as_it_is() -> None:
    model = Toy(lambda net, x: (x, x + 1)).eval()
    assert plain_outputs(model, {"image": X})[0] is model


def test_a_model_without_tensors_among_its_outputs_is_refused() -> None:
    with pytest.raises(ExportError, match="no tensor among its outputs"):
        plain_outputs(Toy(lambda net, x: {"count": 3}).eval(), {"image": X})


@pytest.mark.parametrize("target", targets(phones_slow=True))
def test_every_target_keeps_the_names(target: str, tmp_path: Path) -> None:
    def compute(net: Any, x: Tensor) -> Any:
        y = net.c(x)
        return {"boxes": y, "scores": {"all": y.relu().mean((2, 3)), "none": None}, "count": 3}

    artifact = export_subject(as_subject(Toy(compute, c=nn.Conv2d(3, 4, 1))), ExportRequest(target, tmp_path))
    assert [spec.name for spec in artifact.outputs] == ["boxes", "scores_all"]
    assert artifact.parity is not None and artifact.parity.failing_stage == ""
