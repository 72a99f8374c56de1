"""What folds in transformers: scales of attention, moves, linear layers after averages. Where it holds and not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import Folded
from edgevit.folding.capture import capture
from edgevit.folding.graph import aten, is_call
from edgevit.folding.layout import descendants, labels
from support.narrowing import node_at
from support.nets import Toy, calls, fold_and_compare, image, operators, ready

TOKENS = image(2, 8, 12)
ATTENTION = aten.scaled_dot_product_attention.default


def check(model: nn.Module, *inputs: Tensor, fixed: bool = False, **expected: int) -> Folded:
    folded = fold_and_compare(model, *inputs, fixed=fixed)
    remaining = operators(folded)
    assert {name: remaining[name] for name in expected} == expected, folded.net.graph
    assert count(folded, *inputs).macs <= count(model, *inputs).macs
    return folded


# ---- scales of attention -----------------------------------------------------------------------------------------


def heads(x: Tensor, number: int = 3) -> Tensor:
    return torch.unflatten(x, 2, (number, -1)).transpose(1, 2)


def attend(net: Any, x: Tensor, **options: Any) -> Tensor:
    return F.scaled_dot_product_attention(heads(net.q(x)), heads(net.k(x)), heads(net.v(x)), **options)


def packed(net: Any, x: Tensor) -> Tensor:
    query, key, value = net.qkv(x).reshape(x.shape[0], -1, 3, 3, 4).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value)


def pooled(net: Any, x: Tensor) -> Tensor:
    query, key, value = net.qkv(x).chunk(3, 2)
    query = query.reshape(x.shape[0], 4, -1, 12).amax(1)
    return F.scaled_dot_product_attention(heads(query), heads(key), heads(value))


def of_maps(net: Any, x: Tensor) -> Tensor:
    query, key, value = (part(x).flatten(2).unflatten(1, (3, 4)).transpose(2, 3) for part in (net.q, net.k, net.v))
    return F.scaled_dot_product_attention(query, key, value)


def apart() -> dict[str, nn.Module]:
    return {name: nn.Linear(12, 12) for name in "qkv"}


SCALED: dict[str, tuple[nn.Module, Tensor]] = {
    "three layers": (Toy(attend, **apart()), TOKENS),
    "a scale of its own": (Toy(lambda net, x: attend(net, x, scale=0.3), **apart()), TOKENS),
    "causal": (Toy(lambda net, x: attend(net, x, is_causal=True), **apart()), TOKENS),
    "masked": (Toy(lambda net, x: attend(net, x, attn_mask=net.m), m=image(8, 8), **apart()), TOKENS),
    "packed": (Toy(packed, qkv=nn.Linear(12, 36)), TOKENS),
    "queries pooled": (Toy(pooled, qkv=nn.Linear(12, 36)), TOKENS),
    "convolutions": (Toy(of_maps, **{name: nn.Conv2d(12, 12, 1) for name in "qkv"}), image(2, 12, 3, 4)),
}


@pytest.mark.parametrize("name", SCALED)
def test_the_scale_of_attention_goes_into_the_queries_layer(name: str) -> None:
    model, x = SCALED[name]
    folded = fold_and_compare(model, x)
    (attention,) = (node for node in calls(folded) if is_call(node, ATTENTION))
    assert attention.kwargs["scale"] == 1.0
    assert ("is_causal" in attention.kwargs) == (name == "causal")
    assert ("attn_mask" in attention.kwargs) == (name == "masked")


UNSCALED: dict[str, nn.Module] = {
    "queries that others read": Toy(
        lambda net, x: attend(net, x).transpose(1, 2).flatten(2) + net.q(x).relu() * 0 + torch.relu(net.q(x)), **apart()
    ),
    "one tensor as query and key": Toy(
        lambda net, x: F.scaled_dot_product_attention(y := heads(net.q(x)), y, heads(net.v(x))), **apart()
    ),
    "keys from the queries' rows": Toy(
        lambda net, x: F.scaled_dot_product_attention(
            heads((y := net.q(x))[:, :, :6]), heads(y[:, :, 3:9]), heads(net.v(x)[:, :, 6:])
        ),
        **apart(),
    ),
    "a nonlinearity between": Toy(
        lambda net, x: F.scaled_dot_product_attention(heads(net.q(x).relu()), heads(net.k(x)), heads(net.v(x))),
        **apart(),
    ),
    "queries that are an input": Toy(
        lambda net, x: F.scaled_dot_product_attention(heads(x), heads(net.k(x)), heads(net.v(x))), **apart()
    ),
    "a negative scale and a maximum": Toy(
        lambda net, x: F.scaled_dot_product_attention(
            heads(net.q(x).reshape(x.shape[0], 4, -1, 12).amax(1)), heads(net.k(x)), heads(net.v(x)), scale=-0.5
        ),
        **apart(),
    ),
    "weights used twice": Toy(
        lambda net, x: F.scaled_dot_product_attention(heads(net.q(x)), heads(net.q(x.relu())), heads(net.v(x))),
        **apart(),
    ),
    "shared with the keys after the split": Toy(
        lambda net, x: F.scaled_dot_product_attention(
            heads((y := net.q(x))[:, ::2]), heads(y[:, 1::2]), heads(net.v(x)[:, ::2])
        ),
        **apart(),
    ),
}


@pytest.mark.parametrize("name", UNSCALED)
def test_the_scale_stays_where_the_rows_reach_more_than_the_queries(name: str) -> None:
    folded = fold_and_compare(UNSCALED[name], TOKENS)
    (attention,) = (node for node in calls(folded) if is_call(node, ATTENTION))
    assert attention.kwargs.get("scale", None) in (None, -0.5)


# ---- keys and values of few queries ------------------------------------------------------------------------------


def split_heads(x: Tensor, units: int = 1, number: int = 3) -> Tensor:
    """Reshape (N, L, C) to (N, units * heads, L / units, C / heads)."""
    return x.reshape(x.shape[0], -1, units * number, x.shape[2] // number).transpose(1, 2)


def attended_heads(
    query: Tensor, key: Tensor, value: Tensor, units: int = 1, number: int = 3, mask: Tensor | None = None
) -> Tensor:
    """Return the attention of each head, (N, units * heads, L / units, C / heads)."""
    query, key, value = (split_heads(part, units, number) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def few(net: Any, x: Tensor, query: Tensor, key: Tensor, value: Tensor, units: int = 1) -> Any:
    attended = attended_heads(query, key, value, units).transpose(1, 2)
    return net.out(attended.reshape(x.shape[0], -1, query.shape[2]))


def few_packed(net: Any, x: Tensor, units: int) -> Any:
    query, key, value = net.qkv(x).chunk(3, 2)
    return few(net, x, query.reshape(x.shape[0], 4, -1, query.shape[2]).amax(1), key, value, units)


def layers(inputs: int, outputs: int, **options: Any) -> dict[str, nn.Module]:
    projections: dict[str, nn.Module] = {name: nn.Linear(inputs, outputs, **options) for name in "qkv"}
    return projections | {"out": nn.Linear(outputs, 5)}


MANY = image(2, 48, 12)
LATE: dict[str, tuple[nn.Module, int]] = {  # the network, and the calls of linear that are left
    "pooled, packed": (Toy(lambda net, x: few_packed(net, x, 1), qkv=nn.Linear(12, 72), out=nn.Linear(24, 5)), 2),
    "pooled, packed, in units": (
        Toy(lambda net, x: few_packed(net, x, 3), qkv=nn.Linear(12, 72), out=nn.Linear(24, 5)), 2),
    "one query": (Toy(lambda net, x: few(net, x, net.q(x[:, :1]), net.k(x), net.v(x)), **layers(12, 12)), 2),
    "no biases": (
        Toy(lambda net, x: few(net, x, net.q(x[:, :2]), net.k(x), net.v(x)), **layers(12, 12, bias=False)), 2),
    "keys and values of two maps": (
        Toy(lambda net, x: few(net, x, net.q(x[:, :2]), net.k(x.relu()), net.v(x.sin())), **layers(12, 12)), 2),
    "keys and values packed, queries learned": (
        Toy(lambda net, x: few(net, x, net.p.expand(x.shape[0], -1, -1).sin(), *net.kv(x).split(12, 2)),
            kv=nn.Linear(12, 24), p=nn.Parameter(torch.randn(1, 2, 12)), out=nn.Linear(12, 5)), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
def test_few_queries_let_keys_and_values_unprojected(name: str) -> None:
    model, linear = LATE[name]
    folded = check(model, MANY, linear=linear, matmul=2, scaled_dot_product_attention=1, add=0)
    assert count(folded, MANY).macs < count(model, MANY).macs
    (attention,) = (node for node in calls(folded) if is_call(node, ATTENTION))
    assert node_at(attention, 1).meta["val"].shape[-1] == 12  # the tokens themselves


EARLY: dict[str, nn.Module] = {
    "as many queries as keys": Toy(lambda net, x: few(net, x, net.q(x), net.k(x), net.v(x)), **layers(12, 12)),
    "keys that others read": Toy(
        lambda net, x: few(net, x, net.q(x[:, :1]), y := net.k(x), net.v(x)).sum() + y, **layers(12, 12)),
    "a nonlinearity before keys": Toy(
        lambda net, x: few(net, x, net.q(x[:, :1]), net.k(x).relu(), net.v(x)), **layers(12, 12)),
    "keys in another order of tokens": Toy(
        lambda net, x: few(net, x, net.q(x[:, :1]), net.k(x).flip(1), net.v(x)), **layers(12, 12)),
    "keys in an order of their own": Toy(
        lambda net, x: few(net, x, net.q(x[:, :1]), torch.index_select(net.k(x), 1, net.order), net.v(x)),
        order=torch.arange(48).flip(0),
        **layers(12, 12),
    ),
    "keys of other tokens": Toy(
        lambda net, x: few(net, x, net.q(x[:, :1]), net.k(x)[:, ::2], net.v(x)[:, 1::2]), **layers(12, 12)),
    "wide tokens": Toy(lambda net, x: few(net, x, net.q(x[:, :24]), net.k(x), net.v(x)), **layers(12, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", EARLY)
def test_keys_and_values_are_projected_where_that_is_cheaper_or_others_read_them(name: str) -> None:
    check(EARLY[name], MANY, matmul=0, scaled_dot_product_attention=1)


def test_few_queries_under_a_mask_stay_as_they_are() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        attended = attended_heads(net.q(x[:, :1]), net.k(x), net.v(x), mask=net.m).transpose(1, 2)
        return net.out(attended.reshape(x.shape[0], -1, 12))

    check(Toy(compute, m=image(1, 48), **layers(12, 12)), MANY, matmul=0)


@given(st.data())
@settings(deadline=None, max_examples=15)
def test_random_attention_with_few_queries(data: st.DataObject) -> None:
    """All sizes give the same function, at no more multiply-accumulates."""
    number, units = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    inputs, width, keys = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    outputs = number * width

    def compute(net: Any, x: Tensor) -> Any:
        query, key, value = net.qkv(x).split(outputs, 2)
        query = query.reshape(x.shape[0], 4, -1, outputs).amax(1)
        attended = attended_heads(query, key, value, units, number).transpose(1, 2)
        return net.out(attended.reshape(x.shape[0], -1, outputs))

    model = Toy(compute, qkv=nn.Linear(inputs, 3 * outputs, bias=data.draw(st.booleans())), out=nn.Linear(outputs, 4))
    check(model, image(2, 4 * units * keys, inputs))


# ---- maxima ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "axis"), [(2, 1), (3, 1), (4, 1), (4, -2), (3, 2)])
def test_maxima_of_few_slices_become_maxima_of_two(size: int, axis: int) -> None:
    shape = [2, 6, 6, 5]
    shape[axis] = size
    folded = check(Toy(lambda net, x: x.amax(axis)), image(*shape), amax=0, maximum=size - 1)
    assert torch.equal(folded(image(*shape)), image(*shape).amax(axis))


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: x.amax(1),
        lambda net, x: x[:, :4, :5].amax(3),
        lambda net, x: x[:, :4].amax((1, 2)),
        lambda net, x: x[:, :4].amax(1, keepdim=True),
        lambda net, x: x[:, :1].amax(1),
    ],
    ids=["of many", "of the last axis", "of two axes", "axis kept", "of one"],
)
def test_other_maxima_stay(compute: Callable[[Any, Tensor], Tensor]) -> None:
    check(Toy(compute), image(2, 6, 6, 4), amax=1)


def test_labels_follow_channels_through_moves() -> None:
    """Three of the twelve channels are selected, transposed, reshaped and pooled; they are still those three."""
    model = ready(
        Toy(lambda net, x: net.f(x)[:, :, 3:6].transpose(1, 2).reshape(2, 3, 4, 2).amax(3), f=nn.Linear(12, 12))
    )
    net = capture(model, (TOKENS,))
    (source,) = (node for node in net.nodes() if net.is_linear(node))
    labels_of, readers = descendants(net, source, 2)
    assert torch.equal(labels(source, 2)[0, 0], torch.arange(12))
    last = net.nodes()[-2]
    assert [reader.op for reader, _ in readers] == ["output"]
    assert labels_of[last].unique().tolist() == [3, 4, 5] and labels_of[last][0, 1].unique().tolist() == [4]


def test_a_maximum_over_channels_has_no_label() -> None:
    net = capture(ready(Toy(lambda net, x: net.f(x).amax(2).relu(), f=nn.Linear(12, 12))), (TOKENS,))
    (source,) = (node for node in net.nodes() if net.is_linear(node))
    labels_of, readers = descendants(net, source, 2)
    assert list(labels_of) == [source] and is_call(readers[0][0], aten.amax.default)


@pytest.mark.parametrize(("start", "followed"), [(0, True), (6, False)])
def test_a_maximum_of_two_has_labels_where_both_have_the_same(start: int, followed: bool) -> None:
    """Tokens 0 to 3 and 4 to 7 of the same channels agree on them; those of channels 0 to 5 and 6 to 11 do not."""

    def compute(net: Any, x: Tensor) -> Tensor:
        y = net.f(x)
        return torch.maximum(y[:, :4, :6], y[:, 4:, start : start + 6])

    net = capture(ready(Toy(compute, f=nn.Linear(12, 12))), (TOKENS,))
    (source,) = (node for node in net.nodes() if net.is_linear(node))
    (maximum,) = (node for node in net.nodes() if is_call(node, aten.maximum.default))
    assert (maximum in descendants(net, source, 2)[0]) == followed


# ---- moves -------------------------------------------------------------------------------------------------------


def windows(x: Tensor, side: int = 4) -> Tensor:
    """Reorder tokens of a map of side 8 by windows, through rank 6."""
    y = x.reshape(-1, 8 // side, side, 8 // side, side, x.shape[2]).permute(0, 1, 3, 2, 4, 5)
    return y.reshape(x.shape)


def unroll(x: Tensor) -> Tensor:
    side, shape = 8, x.shape
    while side > 2:
        side //= 2
        x = x.reshape(-1, side, 2, side, 2, shape[2]).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(shape)


GATHERED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "windows": lambda net, x: windows(x).relu(),
    "windows and their way back": lambda net, x: windows(windows(x, 2).relu(), 4),
    "squares in squares": lambda net, x: unroll(x).relu(),
    "channels shuffled thrice": lambda net, x: (
        x.reshape(-1, 64, 4, 3).transpose(2, 3).reshape(-1, 64, 2, 6).transpose(2, 3).reshape(-1, 64, 3, 4)
        .transpose(2, 3).reshape(x.shape).relu()),
}  # fmt: skip


@pytest.mark.parametrize("name", GATHERED)
def test_chains_of_moves_along_one_axis_become_one_gather(name: str) -> None:
    folded = fold_and_compare(Toy(GATHERED[name]), image(2, 64, 12))
    remaining = operators(folded)
    assert remaining["index_select"] == (2 if "way back" in name else 1)
    assert not {"reshape", "permute", "transpose"} & set(remaining)


STILL: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "one transposition": lambda net, x: x.reshape(-1, 64, 4, 3).transpose(2, 3).reshape(x.shape).relu(),
    "two axes mixed": lambda net, x: x.reshape(-1, 4, 2, 2, 4, 12).permute(0, 5, 2, 3, 1, 4).reshape(x.shape).relu(),
    "images mixed": lambda net, x: x.reshape(2, 2, 2, 2, 2, 2, 2, 12).permute(1, 2, 0, 3, 4, 5, 6, 7).reshape(x.shape),
    "another shape": lambda net, x: x.reshape(-1, 2, 4, 2, 4, 12).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 16, 12),
}


@pytest.mark.parametrize("name", STILL)
def test_moves_stay_where_one_gather_is_not_the_same_or_not_better(name: str) -> None:
    folded = fold_and_compare(Toy(STILL[name]), image(2, 64, 12), fixed=name == "images mixed")
    assert operators(folded)["index_select"] == 0


@given(st.data())
@settings(deadline=None, max_examples=15)
def test_random_chains_of_moves(data: st.DataObject) -> None:
    """Every drawn chain computes the same, and at most one gather remains of it."""
    steps = []
    for _ in range(data.draw(st.integers(1, 4))):
        sizes = data.draw(st.sampled_from([(4, 4, 4), (2, 8, 4), (16, 4), (2, 2, 16), (4, 16)]))
        steps.append((sizes, data.draw(st.permutations(range(1, len(sizes) + 1)))))

    def compute(net: Any, x: Tensor) -> Tensor:
        for sizes, order in steps:
            x = x.reshape(-1, *sizes, 3).permute(0, *order, len(sizes) + 1).reshape(x.shape[0], 64, 3)
        return x

    folded = fold_and_compare(Toy(compute), image(2, 64, 3))
    assert operators(folded)["index_select"] <= 1


# ---- linear layers after averages --------------------------------------------------------------------------------


MAPS = image(2, 12, 6, 5)
AFTER: dict[str, tuple[nn.Module, Tensor, int]] = {
    "tokens": (Toy(lambda net, x: net.f(x).mean(1), f=nn.Linear(12, 5)), TOKENS, 12 * 5),
    "tokens, kept": (Toy(lambda net, x: net.f(x).mean(1, keepdim=True), f=nn.Linear(12, 5)), TOKENS, 12 * 5),
    "pixels": (Toy(lambda net, x: net.c(x).mean((2, 3)), c=nn.Conv2d(12, 5, 1)), MAPS, 12 * 5),
    "pixels, kept": (Toy(lambda net, x: net.c(x).mean((2, 3), keepdim=True), c=nn.Conv2d(12, 5, 1, bias=False)), MAPS,
                     12 * 5),
    "pixels, adaptive": (Toy(lambda net, x: F.adaptive_avg_pool2d(net.c(x), 1), c=nn.Conv2d(12, 6, 1, groups=2)), MAPS,
                         12 * 3),
    "a shortcut": (Toy(lambda net, x: (x.relu() + net.f(F.gelu(x))).mean(1),
                       f=nn.Linear(12, 12)), TOKENS, 144),
    "two branches": (Toy(lambda net, x: (net.f(x.relu()) + net.g(x.tanh())).mean(1), f=nn.Linear(12, 4),
                         g=nn.Linear(12, 4)), TOKENS, 96),
    "the head behind takes it": (Toy(lambda net, x: net.h(net.f(x.relu()).mean(1)), f=nn.Linear(12, 12),
                                     h=nn.Linear(12, 3)), TOKENS, 36),
}  # fmt: skip


@pytest.mark.parametrize("name", AFTER)
def test_pointwise_layers_come_after_the_average_of_what_they_read(name: str) -> None:
    model, x, macs = AFTER[name]
    folded = fold_and_compare(model, x)
    assert count(folded, x[:1]).macs == macs


BEFORE: dict[str, tuple[nn.Module, Tensor]] = {
    "over channels": (Toy(lambda net, x: net.f(x).mean(2), f=nn.Linear(12, 5)), TOKENS),
    "3x3": (Toy(lambda net, x: net.c(x).mean((2, 3)), c=nn.Conv2d(12, 5, 3)), MAPS),
    "strided": (Toy(lambda net, x: net.c(x).mean((2, 3)), c=nn.Conv2d(12, 5, 1, 2)), MAPS),
    "one axis of a map": (Toy(lambda net, x: net.c(x).mean(2), c=nn.Conv2d(12, 5, 1)), MAPS),
    "another reads it": (Toy(lambda net, x: (y := net.f(x)).mean(1) + y[:, 0], f=nn.Linear(12, 5)), TOKENS),
    "weights used twice": (Toy(lambda net, x: net.f(net.f(x).relu()).mean(1), f=nn.Linear(12, 12)), TOKENS),
    "a product": (Toy(lambda net, x: (net.f(x) * x).mean(1), f=nn.Linear(12, 12)), TOKENS),
    "one pixel": (Toy(lambda net, x: net.c(x.mean((2, 3), True)).mean((2, 3)), c=nn.Conv2d(12, 5, 1)), MAPS),
    "an average in another dtype": (
        Toy(lambda net, x: net.f(x).mean(1, dtype=torch.float32), f=nn.Linear(12, 5)),
        TOKENS,
    ),
    "a sum with one image": (Toy(lambda net, x: (net.c(x) + x[0].relu()).mean((2, 3)), c=nn.Conv2d(12, 12, 1)), MAPS),
    "a broadcast sum": (Toy(lambda net, x: (net.f(x[:, :1]) + x).mean(1), f=nn.Linear(12, 12)), TOKENS),
}


@pytest.mark.parametrize("name", BEFORE)
def test_layers_stay_ahead_of_what_is_not_an_average_of_theirs(name: str) -> None:
    model, x = BEFORE[name]
    folded = check(model, x)
    assert "pointwise layers after their average" not in folded.report.rewrites
