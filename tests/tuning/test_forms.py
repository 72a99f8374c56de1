"""Forms: each computes the same function, where it applies and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from edgevit.errors import TuningError, UnknownNameError
from edgevit.folding import fold
from edgevit.folding.graph import Net
from edgevit.tuning.application import apply_forms, named
from edgevit.tuning.form import Form
from edgevit.tuning.forms import list_forms, load_form
from support.form_networks import EXAMPLES

CASES = [
    pytest.param(name, *case, id=f"{name}-{number}")
    for name, cases in EXAMPLES.items()
    for number, case in enumerate(cases)
]


def of(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return build().eval(), (torch.randn(shape),)


@pytest.mark.parametrize("form", list_forms(), ids=lambda form: form.name)
def test_each_form_has_an_example(form: Form) -> None:
    assert EXAMPLES.get(form.name), f"add networks on which {form.name} applies"


@pytest.mark.parametrize(("name", "build", "shape"), CASES)
def test_form_computes_the_same_function(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, inputs = of(build, shape)
    folded = fold(model, inputs)
    formed, applied = apply_forms(folded, named(name), inputs)
    assert {one.form for one in applied} == {name}
    assert formed.net.code != folded.net.code
    with torch.no_grad():
        expected, computed = model(*inputs), formed(*inputs)
    assert torch.allclose(computed, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "build", "shape"), CASES)
def test_form_keeps_an_open_batch_open(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, inputs = of(build, shape)
    folded = fold(model, inputs)
    formed, _ = apply_forms(folded, named(name), inputs)
    assert formed.shapes == folded.shapes
    if folded.report.batch_is_open:
        more = torch.randn(3, *shape[1:])
        assert torch.allclose(formed(more), model(more), rtol=1e-4, atol=1e-5)


def test_form_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = load_form("depthwise_rows")

    def without_first_row(net: Net, node: Node) -> Node:
        written = right.write(net, node)
        last = written.args[1]
        assert isinstance(last, Node)
        return last

    wrong = Form("depthwise_rows", "", right.nodes, without_first_row)
    monkeypatch.setattr("edgevit.tuning.application.load_form", lambda name: wrong)
    model, inputs = of(*EXAMPLES["depthwise_rows"][0])
    with pytest.raises(TuningError, match="another function comes of depthwise_rows"):
        apply_forms(fold(model, inputs), named("depthwise_rows"), inputs)


def test_form_that_nobody_knows_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match="depthwise_rows"):
        named("depthwise_row")
