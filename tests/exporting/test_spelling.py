"""Spellings of operators that converters get wrong: exact, needed, and right in every target that asks for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.errors import ExportError, ParityError
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.spelling import SPELLINGS, spelled
from edgevit.folding import fold
from edgevit.recipes import list_recipes, load_recipe
from edgevit.records.artifact import ExportRequest
from edgevit_runtime.record import TensorSpec
from support.nets import Toy, assert_same, image, operators, ready
from support.subjects import as_subject
from support.targets import expected_status, marks


def of_six_axes(x: Tensor) -> Tensor:
    """Return points moved by a share of their boxes, as deformable attention computes them."""
    moves, boxes = x[:, :, :16].reshape(-1, 4, 2, 4, 20, 2), x[:, :, 16, :4]
    centres, sides = (boxes[:, :, None, None, None, part] for part in (slice(0, 2), slice(2, None)))
    points: Tensor = centres + moves * sides * 0.5
    return points[:, :, :, 1].transpose(1, 2).flatten(2)


IMAGE = TensorSpec("image", (-1, 3, 19, 22))
# Of a feature map (B, 4, 17, 20), at least one for each spelling.
WRONG: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, Callable[[], nn.Module]]]] = {
    "attention_of_four_axes": (
        lambda net, x: F.scaled_dot_product_attention(*(x.reshape(-1, 2, 2, 17, 20),) * 3),
        {},
    ),
    "average_divisor": (lambda net, x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5), {}),
    "bilinear": (lambda net, x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), {}),
    "ceil_average": (lambda net, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), {}),
    "ceil_max": (lambda net, x: F.max_pool2d(x, 3, 2, 0, ceil_mode=True), {}),
    "celu": (lambda net, x: F.celu(x, 0.7), {}),
    "circular_pad": (lambda net, x: F.pad(x, (1, 2, 2, 1), mode="circular"), {}),
    "deep_transpose": (
        lambda net, x: x[:, :, :16].reshape(-1, 4, 2, 8, 4, 5).transpose(-2, 3).reshape(-1, 4, 16, 20),
        {},
    ),
    "log_sigmoid": (lambda net, x: F.logsigmoid(x), {}),
    "matrix_transpose": (lambda net, x: x.flatten(2).mT, {}),
    "nearest": (lambda net, x: F.interpolate(x, scale_factor=1.7, mode="nearest"), {}),
    "remainder": (lambda net, x: (x % 0.3).mean((2, 3)), {}),
    "rms_norm": (lambda net, x: net.norm(x.permute(0, 2, 3, 1)), {"norm": lambda: nn.RMSNorm(4)}),
    "six_axes": (lambda net, x: of_six_axes(x), {}),
    "softplus": (lambda net, x: F.softplus(x, beta=2, threshold=1), {}),
    "strided_slice": (lambda net, x: x[:, :, ::2, 1::3], {}),
    "tanh_gelu": (lambda net, x: F.gelu(x, approximate="tanh"), {}),
}


# Those of networks in int8 have tests of their own: test_operators_in_int8.py.
IN_INT8 = {"average_in_int8", "padded_in_int8"}
PLAIN = [name for name in SPELLINGS if name not in IN_INT8]


def network(*names: str) -> nn.Module:
    parts = {key: part() for name in names for key, part in WRONG[name][1].items()}

    def compute(net: Any, x: Tensor) -> dict[str, Tensor]:
        features = net.c(x)
        return {name: WRONG[name][0](net, features) for name in names}

    return Toy(compute, c=nn.Conv2d(3, 4, 3), **parts)


def test_every_spelling_is_asked_for_and_has_a_network_here() -> None:
    asked = {name for recipe in list_recipes() for name in recipe.spellings}
    assert asked == set(SPELLINGS) == set(WRONG) | IN_INT8


@pytest.mark.parametrize("name", PLAIN)
def test_spelled_networks_compute_the_same(name: str) -> None:
    model = ready(network(name))
    folded = fold(model, (image(2, 3, 19, 22),))
    result = spelled(folded, [name])
    assert result is not folded and result.report is folded.report
    assert operators(result) != operators(folded)
    assert_same(folded, result, [image(3, 3, 19, 22)], 1e-12)
    assert spelled(folded, [other for other in SPELLINGS if other != name]) is folded
    assert spelled(result, [name]) is result, "it is spelled once"


SIZES, FACTORS = st.integers(1, 4), st.sampled_from([0.5, 0.75, 1.3, 1.7, 2.0, 2.5, 3.0])


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, st.integers(0, 2), st.integers(0, 2), st.booleans(), st.booleans(), st.integers(1, 2))
def test_pools_of_any_geometry(
    size: int, stride: int, above: int, beside: int, ceil: bool, counts: bool, dilation: int
) -> None:
    padding = (min(above, size // 2), min(beside, size // 2))
    average = {"ceil_mode": ceil, "count_include_pad": counts}

    def compute(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        y = net.c(x)
        return (
            F.avg_pool2d(y, size, stride, padding, **average),
            F.avg_pool2d(y, size, stride, padding, divisor_override=3, **average),
            F.max_pool2d(y, size, stride, padding, dilation, ceil),
        )

    folded = fold(ready(Toy(compute, c=nn.Conv2d(2, 3, 2))), (image(1, 2, 9, 12),))
    result = spelled(folded, ["average_divisor", "ceil_average", "ceil_max"])
    assert_same(folded, result, [image(2, 2, 9, 12)], 1e-12)


@settings(max_examples=20, deadline=None)
@given(FACTORS, FACTORS, st.sampled_from(["bilinear", "nearest", "nearest-exact"]), st.booleans())
def test_resizing_by_any_factor_or_to_a_size(rows: float, columns: float, mode: str, by_size: bool) -> None:
    to: Any = {"size": (int(9 * rows), int(11 * columns))} if by_size else {"scale_factor": (rows, columns)}
    corners: Any = {"align_corners": True} if mode == "bilinear" and by_size else {}
    model = ready(Toy(lambda net, x: F.interpolate(net.c(x), mode=mode, **to, **corners), c=nn.Conv2d(2, 3, 2)))
    folded = fold(model, (image(1, 2, 10, 12),))
    assert_same(folded, spelled(folded, ["bilinear", "nearest"]), [image(2, 2, 10, 12)], 1e-12)


STARTS, STEPS = st.integers(-9, 8), st.integers(1, 5)


@settings(max_examples=20, deadline=None)
@given(STARTS, STARTS, STEPS, st.sampled_from([1, 2, 3]))
def test_every_nth_row_of_any_part(start: int, end: int, step: int, axis: int) -> None:
    part = (*[slice(None)] * axis, slice(start, end, step))

    def compute(net: Any, x: Tensor) -> Tensor:
        y = net.c(x)
        return torch.cat((y[part].flatten(1), y[:, :, ::step].flatten(1)), 1)

    folded = fold(ready(Toy(compute, c=nn.Conv2d(2, 7, 2))), (image(1, 2, 9, 10),))
    assert_same(folded, spelled(folded, ["strided_slice"]), [image(2, 2, 9, 10)], 1e-12)


def pairs(*, slow: bool) -> list[Any]:
    return [
        pytest.param(recipe.target, name, marks=marks(recipe.target, slow=slow), id=f"{recipe.target}-{name}")
        for recipe in list_recipes()
        for name in recipe.spellings
        if name in PLAIN
    ]


@pytest.mark.parametrize(
    "target",
    [pytest.param(recipe.target, marks=marks(recipe.target)) for recipe in list_recipes() if recipe.spellings],
)
def test_what_a_converter_gets_wrong_is_right_in_its_spelling(target: str, tmp_path: Path) -> None:
    names = [name for name in load_recipe(target).RECIPE.spellings if name in PLAIN]
    artifact = export_subject(as_subject(network(*names), IMAGE), ExportRequest(target, tmp_path))
    assert artifact.parity is not None and artifact.parity.status == expected_status(target, "fp32")
    assert {spec.name for spec in artifact.outputs} == set(names)


# coremltools leaves a temporary folder to the collector where it refuses a model.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
@pytest.mark.parametrize(("target", "name"), pairs(slow=True))
def test_a_converter_still_needs_its_spelling(
    target: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(target)
    monkeypatch.setattr(recipe, "RECIPE", dataclasses.replace(recipe.RECIPE, spellings=()))
    with pytest.raises((ParityError, ExportError)) as caught:
        export_subject(as_subject(network(name), IMAGE), ExportRequest(target, tmp_path))
    assert "aten." in caught.value.where, "the operator is named"
