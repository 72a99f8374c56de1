"""The algebra of linear kernels, held against torch's own convolution in float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.folding.kernel import Kernel, Norm, norm_affine, plus
from support.narrowing import present

RELATIVE = 1e-12
GROUPS = (1, 2, 3, 4, 6, 12)  # some pairs nest, 4 and 6 do not
BOOLS = st.booleans()


def draw_values(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(kernel: Kernel, x: Tensor) -> Tensor:
    geometry = (kernel.stride, kernel.padding, kernel.dilation, kernel.groups)
    return F.conv2d(x, kernel.weight, kernel.bias, *geometry)


def assert_same(expected: Tensor, computed: Tensor) -> None:
    assert expected.shape == computed.shape
    assert computed.dtype == torch.float64
    assert float((expected - computed).abs().max()) <= RELATIVE * float(expected.abs().max())


def an_image(kernel: Kernel, seed: int = 7) -> Tensor:
    """Build a map that is larger than the kernel on both axes, and not square."""
    reach = [d * (s - 1) for d, s in zip(kernel.dilation, kernel.size, strict=True)]
    return draw_values(seed, 2, kernel.channels_in, 5 + reach[0], 8 + reach[1])


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def two(values: Iterable[int]) -> tuple[int, int]:
    """Return the two values, one for each axis of a map."""
    first, second = values
    return first, second


@st.composite
def kernels(draw: st.DrawFn, *, pointwise: bool = False, channels_in: int | None = None) -> Kernel:
    """Draw any kernel: grouped with uneven channels, asymmetric, even, strided, padded, dilated, biased or not."""
    seed = draw(st.integers(0, 2**20))
    groups = draw(st.sampled_from([g for g in GROUPS if channels_in is None or channels_in % g == 0]))
    inputs = channels_in or groups * draw(st.integers(1, 3))
    outputs = groups * draw(st.integers(1, 3))
    size = (1, 1) if pointwise else draw(pairs(1, 5))
    bias = draw_values(seed + 1, outputs) if draw(BOOLS) else None
    weight = draw_values(seed, outputs, inputs // groups, *size)
    if pointwise:
        return Kernel(weight, bias, groups=groups)
    return Kernel(weight, bias, draw(pairs(1, 3)), draw(pairs(0, 4)), draw(pairs(1, 3)), groups)


def test_a_kernel_is_kept_in_float64_and_apart_from_the_models_gradient() -> None:
    weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float16))
    kernel = Kernel.of(weight, torch.ones(4))
    assert kernel.weight.shape == (4, 3, 1, 1)
    assert kernel.weight.dtype == present(kernel.bias).dtype == torch.float64
    assert not kernel.weight.requires_grad


@given(kernels())
@settings(deadline=None, max_examples=50)
def test_properties_say_what_the_tensors_are(kernel: Kernel) -> None:
    x = an_image(kernel)
    assert kernel.channels_in == x.shape[1]
    assert run(kernel, x).shape[1] == kernel.channels_out
    assert kernel.padded == any(kernel.padding)
    assert kernel.macs_per_pixel * kernel.groups == kernel.channels_in * kernel.channels_out * math.prod(kernel.size)
    still = kernel.size == (1, 1) and kernel.stride == (1, 1) and not kernel.padded
    assert kernel.pointwise == still


# ---- add ---------------------------------------------------------------------------------------------------------


@st.composite
def summands(draw: st.DrawFn) -> tuple[Kernel, Kernel]:
    """Draw two kernels on one grid: the padding of each has the same distance from its centre."""
    seed = draw(st.integers(0, 2**20))
    channels = [12 * draw(st.integers(1, 2)) for _ in range(2)]
    stride, dilation, base = draw(pairs(1, 3)), draw(pairs(1, 3)), draw(pairs(0, 2))
    even = draw(st.tuples(BOOLS, BOOLS))
    kernels = []
    for i in range(2):
        size = tuple(draw(st.sampled_from((2, 4, 6) if is_even else (1, 3, 5, 7))) for is_even in even)
        groups = draw(st.sampled_from(GROUPS))
        padding = two(b + d * ((s - 1) // 2) for b, d, s in zip(base, dilation, size, strict=True))
        # A kernel that is 1 wide has no dilation along that axis, whatever it says.
        dilations = two(draw(st.integers(1, 3)) if s == 1 else d for s, d in zip(size, dilation, strict=True))
        bias = draw_values(seed + i + 2, channels[1]) if draw(BOOLS) else None
        weight = draw_values(seed + i, channels[1], channels[0] // groups, *size)
        kernels.append(Kernel(weight, bias, stride, padding, dilations, groups))
    return kernels[0], kernels[1]


@given(summands())
@settings(deadline=None, max_examples=100)
def test_add_is_the_sum_of_both(both: tuple[Kernel, Kernel]) -> None:
    a, b = both
    merged = a.add(b)
    big = max(both, key=lambda kernel: kernel.size[0] * kernel.dilation[0])
    reach = [max(k.dilation[i] * (k.size[i] - 1) for k in both) for i in range(2)]
    x = draw_values(3, 2, big.channels_in, 5 + reach[0], 8 + reach[1])
    assert_same(run(a, x) + run(b, x), run(merged, x))
    assert merged.groups == math.gcd(a.groups, b.groups)
    assert (merged.bias is None) == (a.bias is None and b.bias is None)
    assert_same(run(merged, x), run(b.add(a), x))


@given(kernels(), st.integers(0, 2))
@settings(deadline=None, max_examples=50)
def test_add_of_the_identity_is_the_shortcut(kernel: Kernel, grown: int) -> None:
    channels = kernel.channels_in
    size = (2 * grown + 1, 3)
    padding = (grown * kernel.dilation[0], kernel.dilation[1])
    weight = draw_values(5, channels, channels // kernel.groups, *size)
    centred = Kernel(weight, None, (1, 1), padding, kernel.dilation, kernel.groups)
    x = an_image(centred)
    assert_same(run(centred, x) + x, run(centred.add(Kernel.identity(channels)), x))
    assert_same(run(centred, x) + x, run(Kernel.identity(channels, device=x.device).add(centred), x))
    assert Kernel.identity(channels).add(Kernel.identity(channels)).groups == channels


def test_add_of_the_asymmetric_branches_of_acnet() -> None:
    square = Kernel(draw_values(0, 4, 2, 3, 3), draw_values(1, 4), (2, 2), (1, 1), groups=2)
    row = Kernel(draw_values(2, 4, 2, 1, 3), None, (2, 2), (0, 1), groups=2)
    column = Kernel(draw_values(3, 4, 4, 3, 1), draw_values(4, 4), (2, 2), (1, 0))
    x = draw_values(5, 2, 4, 9, 8)
    assert_same(run(row, x) + run(column, x), run(row.add(column), x))
    assert_same(run(square, x) + run(row, x) + run(column, x), run(square.add(row).add(column), x))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (Kernel(torch.ones(2, 2, 3, 3), padding=(1, 1)), Kernel(torch.ones(2, 2, 3, 3)), "one grid"),
        (Kernel(torch.ones(2, 2, 3, 3)), Kernel(torch.ones(2, 2, 1, 1)), "one grid"),
        (Kernel(torch.ones(2, 2, 3, 3), stride=(2, 2)), Kernel(torch.ones(2, 2, 3, 3)), "one grid"),
        (Kernel(torch.ones(2, 2, 3, 3), dilation=(2, 2)), Kernel(torch.ones(2, 2, 3, 3)), "one grid"),
        (Kernel(torch.ones(2, 2, 2, 2)), Kernel(torch.ones(2, 2, 3, 3)), "no centre"),
        (Kernel(torch.ones(2, 2, 1, 1)), Kernel(torch.ones(2, 2, 1, 2), padding=(0, 1)), "no centre"),
        (Kernel(torch.ones(2, 4, 1, 1)), Kernel(torch.ones(4, 4, 1, 1)), "channels"),
        (Kernel(torch.ones(4, 1, 1, 1)), Kernel(torch.ones(4, 4, 1, 1)), "channels"),
    ],
)
def test_add_refuses_what_no_single_kernel_is(a: Kernel, b: Kernel, message: str) -> None:
    for augend, addend in ((a, b), (b, a)):
        with pytest.raises(ValueError, match=message):
            augend.add(addend)


@given(kernels(), pairs(0, 2))
@settings(deadline=None, max_examples=50)
def test_pad_computes_the_same_in_a_larger_kernel(kernel: Kernel, grow: tuple[int, int]) -> None:
    size = (kernel.size[0] + 2 * grow[0], kernel.size[1] + 2 * grow[1])
    larger = kernel.pad(size)
    assert larger.size == size
    x = an_image(kernel)
    assert_same(run(kernel, x), run(larger, x))


@pytest.mark.parametrize("size", [(4, 3), (3, 4), (1, 3), (5, 1)])
def test_pad_refuses_another_parity_and_a_smaller_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no centre"):
        Kernel(torch.ones(1, 1, 3, 3)).pad(size)


# ---- norms, scales, shifts ---------------------------------------------------------------------------------------


def a_norm(channels: int, seed: int, *, affine: bool = True, eps: float = 1e-3) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=eps, affine=affine, dtype=torch.float64).eval()
    present(norm.running_mean).copy_(draw_values(seed, channels))
    present(norm.running_var).copy_(draw_values(seed + 1, channels).abs() + 0.1)
    if affine:
        norm.weight.data.copy_(draw_values(seed + 2, channels))
        norm.bias.data.copy_(draw_values(seed + 3, channels))
    return norm


def as_norm(module: nn.BatchNorm2d) -> Norm:
    return Norm(module.running_mean, module.running_var, module.weight, module.bias, module.eps)


@given(kernels(), BOOLS)
@settings(deadline=None, max_examples=50)
def test_then_is_the_batch_norm_after(kernel: Kernel, affine: bool) -> None:
    norm, x = a_norm(kernel.channels_out, 11, affine=affine), an_image(kernel)
    assert_same(norm(run(kernel, x)).detach(), run(kernel.then(as_norm(norm)), x))


def test_a_norm_with_a_scale_and_no_shift_is_read() -> None:
    norm = a_norm(3, 2)
    norm.register_parameter("bias", None)
    x = draw_values(1, 2, 3, 4, 4)
    scale, shift = norm_affine(as_norm(norm))
    assert shift is not None
    assert not scale.requires_grad
    assert_same(norm(x).detach(), x * scale[:, None, None] + shift[:, None, None])


def test_a_norm_without_statistics_has_no_inference_form() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        norm_affine(as_norm(nn.BatchNorm2d(3, track_running_stats=False)))


@given(kernels(), BOOLS, BOOLS)
@settings(deadline=None, max_examples=50)
def test_then_affine_scales_and_shifts_the_output(kernel: Kernel, with_shift: bool, scalar: bool) -> None:
    size = () if scalar else (kernel.channels_out,)
    scale, shift = draw_values(1, *size), draw_values(2, *size) if with_shift else None
    x = an_image(kernel)
    expected = run(kernel, x) * scale.reshape(-1, 1, 1) + (0 if shift is None else shift.reshape(-1, 1, 1))
    changed = kernel.then_affine(scale, shift)
    assert_same(expected, run(changed, x))
    assert (changed.bias is None) == (kernel.bias is None and shift is None)


@given(kernels(), BOOLS, BOOLS)
@settings(deadline=None, max_examples=50)
def test_after_affine_takes_a_scale_and_a_shift_of_the_input(kernel: Kernel, with_shift: bool, scalar: bool) -> None:
    size = () if scalar else (kernel.channels_in,)
    scale, shift = draw_values(1, *size), draw_values(2, *size) if with_shift else None
    if kernel.padded and with_shift:
        with pytest.raises(ValueError, match="padding"):
            kernel.after_affine(scale, shift)
        return
    x = an_image(kernel)
    given_map = x * scale.reshape(-1, 1, 1) + (0 if shift is None else shift.reshape(-1, 1, 1))
    changed = kernel.after_affine(scale, shift)
    assert_same(run(kernel, given_map), run(changed, x))
    assert (changed.bias is None) == (kernel.bias is None and shift is None)


@given(kernels())
@settings(deadline=None, max_examples=50)
def test_response_is_the_answer_to_a_constant_map(kernel: Kernel) -> None:
    constant = draw_values(4, kernel.channels_in)
    x = constant[None, :, None, None].expand_as(an_image(kernel))
    bare = Kernel(kernel.weight, None, kernel.stride, (0, 0), kernel.dilation, kernel.groups)
    answer = present(kernel.response(constant))
    assert_same(run(bare, x), answer[None, :, None, None].expand_as(run(bare, x)).contiguous())
    assert kernel.response(None) is None


def test_no_bias_plus_no_bias_is_no_bias() -> None:
    one = torch.ones(2)
    assert plus(None, None) is None
    assert plus(one, None) is one
    assert plus(None, one) is one
    assert present(plus(one, one)).tolist() == [2, 2]


# ---- groups and composition --------------------------------------------------------------------------------------


@given(kernels())
@settings(deadline=None, max_examples=50)
def test_regroup_keeps_the_function(kernel: Kernel) -> None:
    x = an_image(kernel)
    for groups in (g for g in range(1, kernel.groups + 1) if kernel.groups % g == 0):
        merged = kernel.regroup(groups)
        assert merged.groups == groups
        assert merged.weight.shape[1] * groups == kernel.channels_in
        assert_same(run(kernel, x), run(merged, x))
    assert kernel.dense().groups == 1


def test_regroup_refuses_groups_that_do_not_nest() -> None:
    kernel = Kernel(torch.ones(12, 3, 1, 1), groups=4)
    for groups in (3, 6, 8):
        with pytest.raises(ValueError, match="nest"):
            kernel.regroup(groups)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Kernel, Kernel]:
    """Draw two kernels in sequence, either of which is the pointwise one."""
    later = draw(BOOLS)
    first = draw(kernels(pointwise=not later))
    second = draw(kernels(pointwise=later, channels_in=first.channels_out))
    return (first if second.pointwise or not second.padded else dataclasses.replace(first, bias=None)), second


@given(sequences())
@settings(deadline=None, max_examples=100)
def test_compose_is_one_after_the_other(both: tuple[Kernel, Kernel]) -> None:
    first, second = both
    reach = [d * (s - 1) for d, s in zip(second.dilation, second.size, strict=True)]
    size = (side + more for side, more in zip(an_image(first).shape[2:], reach, strict=True))
    x = draw_values(7, 2, first.channels_in, *size)
    assert second.composes(first)
    merged = second.compose(first)
    assert_same(run(second, run(first, x)), run(merged, x))
    assert (merged.bias is None) == (first.bias is None and second.bias is None)
    assert merged.groups == math.gcd(first.groups, second.groups)
    assert merged.macs_per_pixel == second.composed_macs(first)


@given(kernels(), st.data())
@settings(deadline=None, max_examples=50)
def test_two_wide_kernels_do_not_compose(first: Kernel, data: st.DataObject) -> None:
    second = data.draw(kernels(channels_in=first.channels_out))
    if not first.pointwise and not second.pointwise:
        assert not second.composes(first)
        with pytest.raises(ValueError, match="pointwise"):
            second.compose(first)


def test_a_bias_before_zero_padding_does_not_compose() -> None:
    """The border's zeros come after the bias: they are not what the first kernel gives for zeros."""
    wide = Kernel(draw_values(0, 4, 4, 3, 3), padding=(1, 1))
    point = Kernel(draw_values(1, 4, 4, 1, 1), draw_values(2, 4))
    with pytest.raises(ValueError, match="padding"):
        wide.compose(point)
    assert dataclasses.replace(wide, padding=(0, 0)).compose(point).bias is not None


@given(kernels())
@settings(deadline=None, max_examples=20)
def test_negated_is_the_negative(kernel: Kernel) -> None:
    x = an_image(kernel)
    assert_same(-run(kernel, x), run(kernel.negated(), x))


def test_compose_needs_matching_channels() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        Kernel(torch.ones(2, 3, 1, 1)).compose(Kernel(torch.ones(4, 3, 1, 1)))


# ---- mean --------------------------------------------------------------------------------------------------------


@st.composite
def depthwise(draw: st.DrawFn) -> tuple[Kernel, tuple[int, int]]:
    """Draw a depthwise kernel, perhaps with a channel multiplier, and the size of a map on which it has an output."""
    channels, times = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    size, padding, dilation = draw(pairs(1, 7)), draw(pairs(0, 5)), draw(pairs(1, 3))
    smallest = [max(1, d * (s - 1) + 1 - 2 * p) for s, p, d in zip(size, padding, dilation, strict=True)]
    shape = (draw(st.integers(smallest[0], smallest[0] + 6)), draw(st.integers(smallest[1], smallest[1] + 6)))
    bias = draw_values(9, channels * times) if draw(BOOLS) else None
    weight = draw_values(8, channels * times, 1, *size)
    return Kernel(weight, bias, (1, 1), padding, dilation, channels), shape


@given(depthwise())
@settings(deadline=None, max_examples=100)
def test_mean_weights_are_the_convolution_and_the_mean_after_it(case: tuple[Kernel, tuple[int, int]]) -> None:
    kernel, shape = case
    x = draw_values(6, 3, kernel.channels_in, *shape)
    summed = kernel.mean_weights(*shape)
    assert summed.size == shape
    assert not summed.padded
    computed = run(summed, x)
    assert computed.shape[2:] == (1, 1)
    bias = None if kernel.bias is None else kernel.bias.abs()
    terms = F.conv2d(x.abs(), kernel.weight.abs(), bias, (1, 1), kernel.padding, kernel.dilation, kernel.groups)
    difference = (run(kernel, x).mean((2, 3), keepdim=True) - computed).abs().max()
    assert float(difference) <= RELATIVE * float(terms.max())  # the mean itself may cancel to nothing


@pytest.mark.parametrize(
    "kernel", [Kernel(torch.ones(2, 2, 3, 3)), Kernel(torch.ones(2, 1, 3, 3), stride=(2, 1), groups=2)]
)
def test_mean_weights_refuse_what_is_not_depthwise_at_stride_1(kernel: Kernel) -> None:
    with pytest.raises(ValueError, match="depthwise"):
        kernel.mean_weights(7, 7)


@given(kernels(), summands())
@settings(deadline=None, max_examples=20)
def test_no_operation_changes_the_kernels_it_is_given(kernel: Kernel, both: tuple[Kernel, Kernel]) -> None:
    a, b = both
    weights = [operand.weight.clone() for operand in (kernel, a, b)]
    one = torch.full((), 3.0, dtype=torch.float64)
    a.add(b), kernel.dense(), kernel.then_affine(one, one), kernel.pad((kernel.size[0] + 2, kernel.size[1]))
    kernel.after_affine(one, None), kernel.then(as_norm(a_norm(kernel.channels_out, 1)))
    assert all(torch.equal(operand.weight, before) for operand, before in zip((kernel, a, b), weights, strict=True))
