"""Forms of convolutions of any geometry: each applies exactly where its rule says, and its proof holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from edgevit.folding.inference_form import Folded, fold_unchecked
from edgevit.tuning.application import apply_forms, named
from edgevit.tuning.forms import list_forms

FORMS = [
    form.name
    for form in list_forms()
    if form.name.startswith(("depthwise_", "strides_", "strided_", "padding_outside", "groups_", "pointwise_"))
]
PIECES = {
    "depthwise_rows": (1, 0),
    "depthwise_bands_2": (2, 0),
    "depthwise_bands_3": (3, 0),
    "depthwise_columns": (0, 1),
    "depthwise_blocks_3": (3, 3),
    "depthwise_blocks_4": (4, 4),
    "depthwise_blocks_5": (5, 5),
}


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, ...]]:
    """Draw a convolution with the shape of an input that is at least as large as its kernel."""
    per_group, groups = draw(st.sampled_from([(1, 3), (2, 1), (3, 2), (2, 1)]))
    size = draw(st.one_of(pairs(1, 7), st.just((1, 1))))
    stride, dilation = draw(st.one_of(pairs(1, 4), st.just((1, 1)))), draw(st.one_of(pairs(1, 3), st.just((1, 1))))
    padding = draw(st.one_of(pairs(0, 3), st.just((0, 0))))
    outputs = groups * draw(st.integers(1, 2))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    sides = [draw(st.integers(max(1, span - 2 * pad), span + 7)) for span, pad in zip(reach, padding, strict=True)]
    torch.manual_seed(draw(st.integers(0, 99)))
    bias = draw(st.booleans())
    layer = nn.Conv2d(per_group * groups, outputs, size, stride, padding, dilation, groups, bias=bias)
    return layer.eval(), (draw(st.integers(1, 2)), per_group * groups, *sides)


def expected_forms(layer: nn.Conv2d) -> set[str]:
    """Return the forms that apply, by the rules of their names."""
    size, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    is_plain = layer.groups == 1
    is_strided = is_plain and stride != (1, 1) and dilation == (1, 1) and size[0] >= stride[0] and size[1] >= stride[1]
    has_one_tap = size == (1, 1) and layer.padding == (0, 0)
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels
    pieces = {name for name, (rows, columns) in PIECES.items() if size[0] > rows and size[1] > columns}
    rules = {
        **dict.fromkeys(("strides_moved", "strides_sliced"), is_strided),
        "strides_unshuffled": is_strided and stride[0] == stride[1],
        "strided_pointwise_sliced": has_one_tap and stride != (1, 1),
        "padding_outside": any(layer.padding),
        **dict.fromkeys(("groups_apart", "groups_dense"), not is_plain),
        **dict.fromkeys(
            ("pointwise_tokens", "pointwise_rows", "pointwise_matrix"), is_plain and has_one_tap and stride == (1, 1)
        ),
        "pointwise_groups": not is_plain and has_one_tap and stride == (1, 1) and layer.in_channels > layer.groups,
    }
    pieces |= {f"depthwise_taps_{taps}" for taps in (9, 25) if size[0] * size[1] > taps}
    return {name for name, applies in rules.items() if applies} | (pieces if is_depthwise else set())


def applied_forms(folded: Folded, shape: tuple[int, ...]) -> set[str]:
    """Return the forms that apply, each of which is proven in float64 on noise."""
    inputs = (torch.zeros(shape),)
    return {name for name in FORMS if apply_forms(folded, named(name), inputs)[1]}


@given(convolutions())
@settings(deadline=None, max_examples=60)
@example((nn.Conv2d(3, 3, 7, 1, 3, groups=3), (1, 3, 8, 9)))
@example((nn.Conv2d(2, 4, 4, 4), (1, 2, 11, 9)))
@example((nn.Conv2d(2, 4, 1), (2, 2, 1, 1)))
def test_forms_of_a_convolution_are_exact_and_apply_where_they_say(case: tuple[nn.Conv2d, tuple[int, ...]]) -> None:
    layer, shape = case
    folded = fold_unchecked(layer.eval(), (torch.zeros(shape),))
    assert applied_forms(folded, shape) == expected_forms(layer)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_space_to_depth_of_a_patch_costs_no_multiplications(stride: int) -> None:
    layer = nn.Conv2d(3, 5, stride, stride).eval()
    inputs = (torch.zeros(1, 3, 4 * stride, 3 * stride),)
    formed, _ = apply_forms(fold_unchecked(layer, inputs), named("strides_moved"), inputs)
    [weight] = [parameter for parameter in formed.parameters() if parameter.dim() == 4]
    assert weight.shape == (5, 3 * stride**2, 1, 1)
