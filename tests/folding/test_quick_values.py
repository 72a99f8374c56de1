"""Every rule of quick values tells the shape and dtype that torch computes, or asks torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgevit.folding.graph import aten
from edgevit.folding.quick_values import _RULES, quick_value


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


MAP = ones(2, 4, 5, 6)
NORM = [ones(4)] * 4
# Arguments of one call or more for each rule.
CALLS: dict[Any, list[tuple[Any, ...]]] = {
    **{rule: [(MAP,), (ones(3, dtype=torch.float64),)] for rule in _RULES},
    aten.roll.default: [(MAP, [1, 2], [2, 3])],
    **{
        operator: [(MAP, ones(4, 1, 1)), (MAP, MAP), (ones(2, 1), ones(2, 3)), (MAP, ones(2, 4, 5, 6).half())]
        for operator in (aten.maximum.default, aten.minimum.default)
    },
    **{
        operator: [
            (MAP, 2),
            (MAP, ones(6)),
            (ones(4, 1, 1), MAP),
            (ones(1, 6), ones(5, 1)),
            (MAP.transpose(1, 2), MAP.transpose(1, 2)),
            (MAP.transpose(1, 2), ones(3, 2, 5, 4, 6)),
            (MAP[:, ::2], MAP[:, ::2]),
            (MAP, ones(6, dtype=torch.float64)),
            (MAP, MAP),
            (MAP.to(torch.complex64), ones(4, 1, 1, dtype=torch.complex64)),
        ]
        for operator in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
    },
    aten.batch_norm.default: [(MAP, *NORM, False, 0.1, 1e-5, True), (MAP, *NORM, True, 0.1, 1e-5, True)],
    aten.layer_norm.default: [(MAP, [6]), (MAP.transpose(1, 3), [4], ones(4), ones(4))],
    aten.group_norm.default: [
        (MAP, 2),
        (MAP, 2, ones(4), ones(4)),
        (MAP.contiguous(memory_format=torch.channels_last), 2, ones(4), ones(4)),
    ],
    aten.linear.default: [(MAP, ones(7, 6)), (ones(6), ones(7, 6), ones(7)), (ones(2, 6), ones(6))],
    aten.conv2d.default: [
        (MAP, ones(8, 4, 3, 3)),
        (MAP, ones(8, 2, 3, 2), ones(8), [2, 1], [1, 0], [1, 2], 2),
        (ones(1, 4, 9, 7), ones(4, 1, 3, 3), None, [2, 2], [1, 1], [2, 2], 4),
        (ones(4, 5, 6), ones(8, 4, 3, 3)),
    ],
    aten.scaled_dot_product_attention.default: [
        (ones(2, 3, 5, 4), ones(2, 3, 7, 4), ones(2, 3, 7, 6)),
        (ones(2, 3, 5, 4), ones(1, 3, 7, 4), ones(1, 3, 7, 4)),
    ],
    aten.adaptive_avg_pool2d.default: [(MAP, [1, 1]), (ones(3, 4, 5), [2, 2])],
    aten.max_pool2d.default: [
        (MAP, [2, 2]),
        (MAP, [3], [2], [1]),
        (MAP, [2, 3], [1, 2], [0, 1], [2, 1]),
        (MAP, [2, 2], [2, 2], [0, 0], [1, 1], True),
        (ones(4, 5, 6), [2, 2]),
    ],
    aten.avg_pool2d.default: [
        (MAP, [2, 2]),
        (MAP, [3, 2], [2, 1], [1, 0]),
        (MAP, [3], [1], [1], False, False),
        (MAP, [2, 2], [2, 2], [0, 0], True),
        (MAP, [2, 2], [2, 2], [0, 0], False, True, 3),
    ],
    aten.amax.default: [(MAP, [1]), (MAP, [-1, 2], True), (MAP, [])],
    aten.mean.dim: [(MAP, [2, 3]), (MAP, [-1], True), (MAP, None), (MAP, [])],
    aten.cat.default: [([MAP, MAP], 1), ([MAP, ones(2, 4, 5, 1)], -1), ([MAP, MAP.double()], 0), ([ones(2), ones(3)],)],
}


@pytest.mark.parametrize("rule", _RULES, ids=str)
def test_a_rule_tells_what_torch_computes(rule: Any) -> None:
    told = 0
    for args in CALLS[rule]:
        expected = rule(*args)
        # By themselves: inside a network torch sees them without data.
        quick = quick_value(rule, torch.utils._pytree.tree_map(hollow, args), {})
        if quick is not None:
            assert (quick.shape, quick.dtype, quick.is_meta) == (expected.shape, expected.dtype, True)
            assert quick.stride() == expected.stride()
            told += 1
    assert told


def test_a_pool_that_torch_refuses_is_left_to_it() -> None:
    empty = torch.empty(2, 4, 5, 6, device="meta")
    for rule in (aten.max_pool2d.default, aten.avg_pool2d.default):
        assert quick_value(rule, (empty, [2, 2], [1, 1], [2, 2]), {}) is None, "more padding than half a window"
        assert quick_value(rule, (empty, [7, 7]), {}) is None, "a window larger than the map"
    assert quick_value(aten.relu.default, (empty.to(torch.complex64),), {}) is None


def test_a_tensor_like_another_is_told_unless_it_differs() -> None:
    moved = torch.empty(2, 4, 5, 6, device="meta").transpose(1, 2)
    quick = quick_value(aten.zeros_like.default, (moved,), {"dtype": None, "device": None})
    assert quick is not None and (quick.shape, quick.stride()) == (moved.shape, moved.stride())
    assert quick_value(aten.zeros_like.default, (moved,), {"dtype": torch.float64}) is None


def hollow(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def test_named_arguments_that_change_the_result_are_left_to_torch() -> None:
    empty = torch.empty(2, 4, 5, 6, device="meta")
    assert quick_value(aten.mean.dim, (empty, [2]), {"dtype": torch.float64}) is None
    heads = torch.empty(2, 2, 5, 6, device="meta")
    assert quick_value(aten.scaled_dot_product_attention.default, (empty, heads, heads), {"enable_gqa": True}) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=4), st.lists(st.integers(1, 3), max_size=4))
def test_shapes_that_broadcast_are_told_as_torch_has_them(first: list[int], second: list[int]) -> None:
    a, b = torch.ones(first), torch.ones(second)
    quick = quick_value(aten.add.Tensor, (a.to("meta"), b.to("meta")), {})
    if quick is not None:
        assert quick.shape == (a + b).shape


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 2), min_size=2, max_size=3), min_size=1, max_size=3), st.integers(-3, 2))
def test_concatenations_are_told_as_torch_has_them(shapes: list[list[int]], axis: int) -> None:
    tensors = [torch.ones(shape) for shape in shapes]
    try:
        expected = torch.cat(tensors, axis)
    except (RuntimeError, IndexError):
        return
    quick = quick_value(aten.cat.default, ([tensor.to("meta") for tensor in tensors], axis), {})
    assert quick is not None and quick.shape == expected.shape
