"""Networks that write to their tensors in place: torch.export keeps the writes, and folding keeps their effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgevit.folding import fold
from support.fold_cases import X, conv, norm
from support.nets import Toy, assert_same, calls, fold_and_compare, operators, ready


def copy_written(net: Any, x: Tensor) -> Any:
    y = x.clone()
    y.relu_()
    return net.a(y) + net.b(x)


def scaled_then_written(net: Any, x: Tensor) -> Any:
    x = net.a(x)
    y = x * 2
    x.relu_()
    return net.b(y) + x


def written_through_a_view(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    x[:, 0].fill_(3.0)
    return net.b(x)


def written_after_a_view_was_taken(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    rows = x.flatten(2)
    x.relu_()
    return net.b(x) + rows.mean()


def written_after_an_alias_was_taken(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    same = F.dropout(x, 0.5, training=False)
    x.relu_()
    return net.b(same)


def written_and_read_by_its_old_name(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    before = x.exp()
    x.relu_()
    return net.b(x) + before


def input_written(net: Any, x: Tensor) -> Any:
    x.relu_()
    return net.b(net.n(net.a(x)))


def half_written(net: Any, x: Tensor) -> Any:
    first, second = net.n(net.a(x)).chunk(2, 1)
    second.relu_()
    return net.c(first) + net.c(second)


def lists_written(net: Any, x: Tensor) -> Any:
    maps = [net.n(net.a(x)), net.b(x)]
    torch._foreach_mul_(maps, 2.0)
    return maps[0] + maps[1]


def promoted(net: Any, x: Tensor) -> Any:
    y = net.n(net.a(x)).float()
    y += x
    return y


def under_no_grad(net: Any, x: Tensor) -> Any:
    with torch.no_grad():
        return net.n(net.a(x)).relu_()


def under_autocast(net: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        return net.n(net.a(x)).relu()


@pytest.mark.parametrize(
    "compute",
    [copy_written, scaled_then_written, written_through_a_view, written_after_a_view_was_taken,
     written_after_an_alias_was_taken, written_and_read_by_its_old_name, input_written, half_written, promoted,
     lists_written, under_no_grad, under_autocast],
)  # fmt: skip
def test_what_a_network_writes_in_place_is_kept(compute: Callable[..., Any]) -> None:
    folded = fold_and_compare(Toy(compute, a=conv(4, 4), b=conv(4, 4), c=conv(2, 2), n=norm(4)), X)
    assert operators(folded)["batch_norm"] == 0
    written = [node for node in calls(folded) if getattr(getattr(node.target, "_schema", None), "is_mutable", False)]
    assert [str(node.target) for node in written] in ([], ["aten.copy_.default"])  # at last, to the caller's input


def test_a_network_that_counts_its_calls_still_counts() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        net.calls += 1
        return net.n(net.a(x)) * net.calls

    model = ready(Toy(compute, a=conv(4, 4), n=norm(4), calls=torch.zeros((), dtype=torch.float64)))
    folded = fold(model, (X,))
    assert model.calls == 0
    for _ in range(3):
        assert_same(model, folded, (X,))
    assert operators(folded)["batch_norm"] == 0
