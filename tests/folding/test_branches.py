"""Two rewrites: sums of many branches into one convolution, and norms past averages. Where they hold and where not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding.kernel import Kernel, added, added_macs
from support.nets import Toy, calls, fold_and_compare, image, operators

X = image(2, 12, 9, 8)


def conv(size: int = 1, groups: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(12, 12, size, padding=size // 2, groups=groups, **options)


def norm() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(12)


def scale() -> nn.Parameter:
    return nn.Parameter(torch.rand(12, 1, 1) + 0.5)


def check(model: nn.Module, *inputs: Tensor, **expected: int) -> None:
    folded = fold_and_compare(model, *inputs)
    remaining = operators(folded)
    assert {name: remaining[name] for name in expected} == expected, folded.net.graph


# ---- sums --------------------------------------------------------------------------------------------------------


def test_branches_meet_in_whatever_order_they_are_added() -> None:
    """Four convolutions whose groups nest, a norm alone and the map itself, in every order of a balanced sum."""

    def compute(net: Any, x: Tensor, order: tuple[int, ...]) -> Any:
        a, b, c, d, e = ([*(branch(x) for branch in net.all), x][i] for i in order)
        return ((a + b) + (c + d)) + e

    for order in list(itertools.permutations(range(5)))[::7]:
        all_branches = nn.ModuleList([conv(3, 2), conv(3, 4), conv(1, 6, bias=False), norm()])
        folded = fold_and_compare(Toy(lambda net, x, order=order: compute(net, x, order), all=all_branches), X)
        assert operators(folded) == {"conv2d": 1}
        assert calls(folded)[0].args[6] == 2


CASES: dict[str, tuple[nn.Module, dict[str, int]]] = {
    "norm and map first": (Toy(lambda net, x: (net.n(x) + x) + net.c(x), n=norm(), c=conv(3)),
                           {"conv2d": 1, "add": 0, "batch_norm": 0}),
    "a norm of a scaled norm": (Toy(lambda net, x: net.n(net.m(x) * net.s) + net.c(x), n=norm(), m=norm(), s=scale(),
                                    c=conv(3)), {"conv2d": 1, "add": 0, "mul": 0, "batch_norm": 0}),
    "groups that do not nest, but all together pay": (
        Toy(lambda net, x: net.a(x) + net.b(x) + net.c(x), a=conv(1, 2), b=conv(1, 3), c=conv(1, 6)),
        {"conv2d": 1, "add": 0}),
    "groups that do not nest": (Toy(lambda net, x: net.a(x) + net.b(x), a=conv(1, 4), b=conv(1, 6)),
                                {"conv2d": 2, "add": 1}),
    "wide and narrow": (Toy(lambda net, x: net.a(x) + net.b(x) + x, a=conv(3, 12), b=conv(1)), {"conv2d": 2, "add": 1}),
    "a map of its own between": (Toy(lambda net, x: (net.a(x) + x.sigmoid()) + (net.b(x) + x.relu()), a=conv(3),
                                     b=conv(1)), {"conv2d": 1, "add": 2}),
    "two maps": (Toy(lambda net, x: (net.a(x) + net.b(x.relu())) + (net.c(x) + net.d(x.tanh())), a=conv(3),
                     b=conv(3), c=conv(1), d=conv(1)), {"conv2d": 3, "add": 2}),
    "a sum others read": (Toy(lambda net, x: ((y := net.a(x) + x.relu()) + net.b(x)) * y, a=conv(3), b=conv(1)),
                          {"conv2d": 2, "add": 2}),
    "a branch others read": (Toy(lambda net, x: ((y := net.a(x)) + net.b(x) + net.c(x)) * y, a=conv(3), b=conv(1),
                                 c=conv(1, 2)), {"conv2d": 2, "add": 1}),
    "a convolution twice": (Toy(lambda net, x: (y := net.a(x)) + y + net.b(x), a=conv(3), b=conv(1)),
                            {"conv2d": 2, "add": 2}),
    "a convolution twice in one sum": (Toy(lambda net, x: ((y := net.a(x)) + y) + net.b(x) + x, a=conv(1, 12),
                                           b=conv(3)), {"conv2d": 2, "add": 2}),
    "scaled sum between": (Toy(lambda net, x: torch.add(net.a(x), net.b(x), alpha=2) + net.c(x), a=conv(3), b=conv(3),
                               c=conv(3)), {"conv2d": 1, "add": 0}),
    "weights used twice": (Toy(lambda net, x: net.a(x) + net.b(x) + net.a(x.relu()), a=conv(3), b=conv(1)),
                           {"conv2d": 3, "add": 2}),
    "a constant in the sum": (Toy(lambda net, x: net.a(x) + net.p + net.b(x), a=conv(3), b=conv(1),
                                  p=nn.Parameter(torch.randn(1, 12, 9, 8))), {"conv2d": 2, "add": 2}),
    "a norm of its own batch": (Toy(lambda net, x: net.c(x) + net.n(x), c=conv(3),
                                    n=nn.BatchNorm2d(12, track_running_stats=False)), {"conv2d": 1, "add": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_terms_of_one_map_merge_and_others_stay(name: str) -> None:
    model, expected = CASES[name]
    check(model, X, **expected)


def test_a_sum_too_wide_to_merge_is_refused_before_it_is_computed() -> None:
    """The merged kernel of these would take 13 GB."""
    with torch.device("meta"):
        wide = Kernel.of(torch.empty(8192, 8192, 1, 1))
        deep = Kernel.of(torch.empty(8192, 1, 5, 5), padding=(2, 2), groups=8192)
    assert added_macs([wide, deep]) == 8192 * 8192 * 25 > wide.macs_per_pixel + deep.macs_per_pixel


@given(st.lists(st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 2, 3, 4, 6, 12])), min_size=1, max_size=4))
def test_the_cost_of_a_sum_is_known_without_computing_it(branches: list[tuple[int, int]]) -> None:
    kernels = [Kernel.of(torch.randn(12, 12 // g, size, size), padding=(size // 2,) * 2, groups=g)
               for size, g in branches]  # fmt: skip
    assert added_macs(kernels) == added(kernels).macs_per_pixel


@given(st.data())
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_random_sums_of_branches(data: st.DataObject) -> None:
    """Any kernels, groups, strides, dilations and norms; the cost never grows, and equal grids become one."""
    stride, dilation = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    number = data.draw(st.integers(2, 5))
    branches = nn.ModuleList()
    for _ in range(number):
        size, groups = data.draw(st.sampled_from([1, 3, 5])), data.draw(st.sampled_from([1, 2, 4, 12]))
        layer = nn.Conv2d(12, 12, size, stride, dilation * (size // 2), dilation, groups, data.draw(st.booleans()))
        branches.append(nn.Sequential(layer, norm()) if data.draw(st.booleans()) else layer)
    if stride == 1 and data.draw(st.booleans()):
        branches.append(norm())
    order = data.draw(st.permutations(range(len(branches))))
    model = Toy(lambda net, x: sum((net.all[i](x) for i in order[1:]), net.all[order[0]](x)), all=branches)
    folded = fold_and_compare(model, X)
    before, after = count(model, X), count(folded, X)
    assert operators(folded)["batch_norm"] == 0 and after.macs <= before.macs
    sizes = {(layer.kernel_size, layer.groups) for layer in model.modules() if isinstance(layer, nn.Conv2d)}
    assert len(sizes) > 1 or operators(folded) == {"conv2d": 1}


# ---- norms past averages -----------------------------------------------------------------------------------------


def normed(compute: Any, **parts: Any) -> nn.Module:
    return Toy(compute, n=norm(), c=conv(), **parts)


PASSED: dict[str, nn.Module] = {
    "windows": normed(lambda net, x: net.c(F.avg_pool2d(net.n(x), 2))),
    "windows that overlap": normed(lambda net, x: net.c(F.avg_pool2d(net.n(x), 3, 2))),
    "windows past the border": normed(lambda net, x: net.c(F.avg_pool2d(net.n(x), 2, ceil_mode=True))),
    "padding that is not counted": normed(
        lambda net, x: net.c(F.avg_pool2d(net.n(x), 3, 2, 1, count_include_pad=False))),
    "adaptive": normed(lambda net, x: net.c(F.adaptive_avg_pool2d(net.n(x), (3, 2)))),
    "all pixels": normed(lambda net, x: net.c(net.n(x).mean((2, 3), keepdim=True))),
    "all pixels, flat, fully connected": normed(lambda net, x: net.f(net.n(x).mean((2, 3))), f=nn.Linear(12, 3)),
    "flattened, fully connected": normed(lambda net, x: net.f(F.adaptive_avg_pool2d(net.n(x), 1).flatten(1)),
                                         f=nn.Linear(12, 3)),
    "a second reader takes it": normed(lambda net, x: net.c(F.avg_pool2d(y := net.n(x), 2)).mean() + net.d(y),
                                       d=conv()),
    "two in a row": normed(lambda net, x: net.c(F.avg_pool2d(F.avg_pool2d(net.n(x), 2), 2))),
    "behind a ReLU": normed(lambda net, x: net.c(F.avg_pool2d(net.n(x.relu()), 2))),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED)
def test_norms_pass_averages_into_the_layer_behind(name: str) -> None:
    check(PASSED[name], X, batch_norm=0)


def test_scales_and_shifts_pass_averages() -> None:
    model = Toy(lambda net, x: net.c(F.avg_pool2d(x.relu() * net.s + net.t, 2)), c=conv(), s=scale(), t=scale())
    check(model, X, mul=0, add=0)


STAYS: dict[str, nn.Module] = {
    "padding that is counted": normed(lambda net, x: net.c(F.avg_pool2d(net.n(x), 3, 2, 1))),
    "a divisor of its own": normed(lambda net, x: net.c(F.avg_pool2d(net.n(x), 2, divisor_override=3))),
    "maxima": normed(lambda net, x: net.c(F.max_pool2d(net.n(x), 2))),
    "over channels": normed(lambda net, x: net.n(x).mean((1, 2, 3))),
    "in another dtype": normed(lambda net, x: net.n(x).mean((2, 3), True, dtype=torch.float32)),
    "over images": normed(lambda net, x: net.n(x).mean(0)),
    "another reader is not linear": normed(lambda net, x: net.c(F.avg_pool2d(y := net.n(x), 2)).mean() + y.relu()),
    "another reader pads": normed(lambda net, x: net.c(F.avg_pool2d(y := net.n(x), 2)).mean() + net.d(y), d=conv(3)),
    "two averages": normed(lambda net, x: net.c(F.avg_pool2d(y := net.n(x), 2)).mean() + F.avg_pool2d(y, 3).relu()),
    "it is an output": normed(lambda net, x: (net.c(F.avg_pool2d(y := net.n(x), 2)), y)),
    "more than one pixel flattened": normed(lambda net, x: net.f(net.n(x).flatten(1)), f=nn.Linear(12 * 72, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_norms_stay_ahead_of_what_is_no_average(name: str) -> None:
    check(STAYS[name], X, batch_norm=1)


OF_THREE_AXES: dict[str, nn.Module] = {
    "windows over channels": Toy(
        lambda net, x: net.c(F.avg_pool2d(net.n(x), (3, 1), 1, (1, 0), count_include_pad=False)),
        n=nn.BatchNorm1d(4), c=nn.Conv1d(4, 3, 1)),
    "adaptive windows over channels": Toy(lambda net, x: net.c(F.adaptive_avg_pool2d(net.n(x), (4, 2))),
                                          n=nn.BatchNorm1d(8), c=nn.Conv1d(4, 3, 1)),
    "the mean of channels": Toy(lambda net, x: net.f(net.n(x).mean(-2)), n=nn.BatchNorm1d(4), f=nn.Linear(4, 3)),
    "the mean of channels, kept": Toy(lambda net, x: net.c(net.n(x).mean(-2, True)), n=nn.BatchNorm1d(4),
                                      c=nn.Conv1d(1, 3, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_THREE_AXES)
def test_norms_stay_ahead_of_averages_of_three_axes_that_mix_channels(name: str) -> None:
    """An average of maps takes such a tensor for one image without a batch."""
    check(OF_THREE_AXES[name], image(2, 8 if "adaptive" in name else 4, 4), batch_norm=1)


def test_norms_stay_ahead_of_a_mean_of_channels_whose_result_has_as_many_rows() -> None:
    model = Toy(lambda net, x: net.c(net.n(x).mean(1)), n=norm(), c=nn.Conv1d(12, 3, 1))
    check(model, image(2, 12, 12, 8), batch_norm=1)


def test_a_norm_stays_one_where_a_layer_that_is_called_twice_reads_it() -> None:
    check(normed(lambda net, x: net.c(F.avg_pool2d(y := net.n(x), 2)).mean() + net.c(y)), X, batch_norm=1)


def test_a_scale_stays_ahead_of_a_mean_that_drops_its_axes() -> None:
    check(Toy(lambda net, x: net.f((x.relu() * net.s).mean((2, 3))), s=scale(), f=nn.Linear(12, 3)), X, mul=1)


def test_a_norm_past_an_average_is_still_listed_where_nothing_takes_it() -> None:
    folded = fold_and_compare(normed(lambda net, x: F.avg_pool2d(net.n(x), 2).relu()), X)
    assert [unfolded.module for unfolded in folded.report.unfolded] == ["n"]
