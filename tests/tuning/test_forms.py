"""Forms: each computes the same function, where it applies and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from edgevit.errors import TuningError, UnknownNameError
from edgevit.folding import fold
from edgevit.folding.graph import Net, aten
from edgevit.folding.inference_form import Folded
from edgevit.records.tuning import AppliedForm
from edgevit.tuning.application import apply_forms, named
from edgevit.tuning.form import Form
from edgevit.tuning.forms import list_forms, load_form
from support.form_modules import Case, Computed
from support.form_near_misses import NEAR_MISSES
from support.form_networks import EXAMPLES


def listed(table: dict[str, list[Case]]) -> list[Any]:
    """Return the name of a form, the network and the shape of each case."""
    return [
        pytest.param(name, *case, id=f"{name}-{number}")
        for name, cases in table.items()
        for number, case in enumerate(cases)
    ]


CASES = listed(EXAMPLES)


def of(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return build().eval(), (torch.randn(shape),)


@pytest.mark.parametrize("form", list_forms(), ids=lambda form: form.name)
def test_each_form_has_examples_and_near_misses(form: Form) -> None:
    assert EXAMPLES.get(form.name), f"add networks on which {form.name} applies"
    assert NEAR_MISSES.get(form.name), f"add networks on which {form.name} must not apply"


@pytest.mark.parametrize(("name", "build", "shape"), listed(NEAR_MISSES))
def test_form_leaves_near_misses_alone(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, inputs = of(build, shape)
    folded = fold(model, inputs)
    assert apply_forms(folded, named(name), inputs) == (folded, ())


@cache
def formed_network(
    name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> tuple[nn.Module, Folded, Folded, tuple[AppliedForm, ...]]:
    """Return the model of a case, its fold, that with a form, and the form as it was applied."""
    model, inputs = of(build, shape)
    folded = fold(model, inputs)
    return model, folded, *apply_forms(folded, named(name), inputs)


@pytest.mark.parametrize(("name", "build", "shape"), CASES)
def test_form_computes_the_same_function(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, folded, formed, applied = formed_network(name, build, shape)
    assert {one.form for one in applied} == {name}
    assert formed.net.code != folded.net.code
    inputs = torch.randn(shape)
    with torch.no_grad():
        expected, computed = model(inputs), formed(inputs)
    assert torch.allclose(computed, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "build", "shape"), CASES)
def test_form_keeps_an_open_batch_open(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, folded, formed, _ = formed_network(name, build, shape)
    assert folded.report.batch_is_open
    assert formed.shapes == folded.shapes
    more = torch.randn(3, *shape[1:])
    with torch.no_grad():
        expected, computed = model(more), formed(more)
    assert torch.allclose(computed, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


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


def test_error_that_fades_on_its_way_is_seen_at_its_site(monkeypatch: pytest.MonkeyPatch) -> None:
    right = load_form("silu_spelled")
    wrong = Form(
        "silu_spelled", "", right.nodes, lambda net, node: net.call(aten.tanh.default, net.input(node), before=node)
    )
    monkeypatch.setattr("edgevit.tuning.application.load_form", lambda name: wrong)
    model, inputs = of(lambda: Computed(lambda network, x: x + 1e-13 * nn.functional.silu(x)), (1, 5))
    with pytest.raises(TuningError, match="another function comes of silu_spelled at"):
        apply_forms(fold(model, inputs), named("silu_spelled"), inputs)


def test_error_at_a_later_site_of_the_same_signature_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = load_form("silu_spelled")

    def right_once(net: Net, node: Node) -> Node:
        is_first = not any(other.target is aten.sigmoid.default for other in net.nodes())
        return right.write(net, node) if is_first else net.call(aten.tanh.default, net.input(node), before=node)

    wrong = Form("silu_spelled", "", right.nodes, right_once)
    monkeypatch.setattr("edgevit.tuning.application.load_form", lambda name: wrong)
    model, inputs = of(lambda: nn.Sequential(nn.SiLU(), nn.Tanh(), nn.SiLU()), (1, 5))
    with pytest.raises(TuningError, match="another function comes of silu_spelled\n"):
        apply_forms(fold(model, inputs), named("silu_spelled"), inputs)


def test_form_reads_nothing_that_its_site_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def past_its_site(net: Net, node: Node) -> Node:
        before = net.input(net.input(node))
        return net.call(aten.silu.default, net.call(aten.tanh.default, before, before=node), before=node)

    wide = Form("silu_spelled", "", load_form("silu_spelled").nodes, past_its_site)
    monkeypatch.setattr("edgevit.tuning.application.load_form", lambda name: wide)
    model, inputs = of(lambda: nn.Sequential(nn.Tanh(), nn.SiLU()), (1, 5))
    with pytest.raises(AssertionError, match="which its site does not"):
        apply_forms(fold(model, inputs), named("silu_spelled"), inputs)


def test_form_that_nobody_knows_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match="depthwise_rows"):
        named("depthwise_row")


def test_docs_list_every_form() -> None:
    page = (Path(__file__).parents[2] / "docs/tune.md").read_text(encoding="utf-8")
    rows = {form.name: f"| `{form.name}` | {form.summary} |\n" for form in list_forms()}
    assert not {name for name, row in rows.items() if row not in page}
