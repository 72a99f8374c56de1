"""Attention in windows that lie in the batch, as Swin and its kin have it: sizes are multiples of an open batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.folding.capture import capture
from edgevit.folding.layout import shape_at_probe
from edgevit.folding.values import BATCHES
from support.nets import Toy, fold_and_compare, image, operators, ready

HEADS, CHANNELS, SIDE = 2, 6, 4
Cut = Callable[[Any, Tensor], tuple[Tensor, ...]]


def whole_then(cut: Callable[[Any], Any]) -> Cut:
    """Return a division of the projected tokens that first separates the heads: (N, T, heads, 3 * channels)."""
    return lambda net, tokens: tuple(cut(net.qkv(tokens).view(*tokens.shape[:2], HEADS, -1)))


def packed(order: Callable[[Any], Any]) -> Cut:
    """Return a division of (N, T, 3, heads, channels)."""
    return lambda net, tokens: tuple(order(net.qkv(tokens).reshape(-1, tokens.shape[1], 3, HEADS, CHANNELS)))


def first_then(cut: Callable[[Any], Any]) -> Cut:
    """Return a division of (N, T, 3 * heads * channels) before the heads are separated."""
    return lambda net, tokens: tuple(
        part.reshape(-1, tokens.shape[1], HEADS, CHANNELS) for part in cut(net.qkv(tokens))
    )


CUTS: dict[str, Cut] = {
    "chunk by head": whole_then(lambda y: y.chunk(3, -1)),
    "split by head": whole_then(lambda y: y.split(CHANNELS, -1)),
    "unbind": packed(lambda y: y.unbind(2)),
    "permute": packed(lambda y: y.permute(2, 0, 1, 3, 4)),
    "chunk": first_then(lambda y: y.chunk(3, -1)),
    "split": first_then(lambda y: y.split(HEADS * CHANNELS, -1)),
}
PARTITIONS: dict[str, Callable[[Any], Tensor]] = {
    "view": lambda x: (
        x.view(x.shape[0], x.shape[1], x.shape[2] // SIDE, SIDE, x.shape[3] // SIDE, SIDE)
        .permute(0, 2, 4, 3, 5, 1)
        .reshape(x.shape[0] * (x.shape[2] // SIDE) * (x.shape[3] // SIDE), SIDE * SIDE, x.shape[1])
    ),
    "-1": lambda x: (
        x.permute(0, 2, 3, 1)
        .unflatten(2, (-1, SIDE))
        .unflatten(1, (-1, SIDE))
        .transpose(2, 3)
        .reshape(-1, SIDE * SIDE, x.shape[1])
    ),
    "a grid": lambda x: (
        x.unflatten(3, (SIDE, -1)).unflatten(2, (SIDE, -1)).permute(0, 3, 5, 2, 4, 1).reshape(-1, SIDE * SIDE, 3)
    ),
}


def windowed(partition: str, cut: str, pooled: bool) -> nn.Module:
    def compute(net: Any, x: Tensor) -> Tensor:
        tokens = PARTITIONS[partition](x)
        query, key, value = CUTS[cut](net, tokens)
        query = query.amax(1, keepdim=True) if pooled else query
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(tokens.shape[0], -1, HEADS * CHANNELS)

    return Toy(compute, qkv=nn.Linear(3, 3 * HEADS * CHANNELS))


@pytest.mark.parametrize("pooled", [False, True], ids=["all queries", "pooled queries"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_windows_in_the_batch_fold_exactly(partition: str, cut: str, pooled: bool) -> None:
    folded = fold_and_compare(windowed(partition, cut, pooled), image(2, 3, 8, 12))
    assert operators(folded)["scaled_dot_product_attention"] == 1


def test_keys_and_values_of_windows_are_projected_late() -> None:
    """Where that is cheaper, in windows as anywhere else, and with the queries' rows as a layer of their own."""
    folded = fold_and_compare(windowed("view", "chunk", pooled=False), image(2, 3, 8, 12))
    assert any("never projected" in label for label in folded.report.rewrites)


def test_sizes_of_windows_are_told_from_the_batch() -> None:
    """In a captured graph: -1 is the batch, -6 are six windows for each image; at the probe they are numbers."""
    net = capture(ready(windowed("view", "chunk", pooled=False)), (image(2, 3, 8, 12),))
    [linear] = [node for node in net.nodes() if net.is_linear(node)]
    assert net.shape(linear) == (-6, SIDE * SIDE, 3 * HEADS * CHANNELS)
    assert shape_at_probe(linear) == (6 * BATCHES[0], SIDE * SIDE, 3 * HEADS * CHANNELS)
    [images] = net.graph.find_nodes(op="placeholder")
    assert net.shape(images)[0] == -1


def test_other_open_sizes_never_look_equal() -> None:
    """A batch with one row more is neither the batch nor a multiple of it."""
    model = Toy(lambda net, x: net.fc(torch.cat((x, x[:1]))), fc=nn.Linear(4, 4))
    net = capture(ready(model), (image(3, 4),))
    shapes = [net.shape(node)[0] for node in net.nodes() if node.op in ("placeholder", "call_function")]
    assert shapes[0] == -1 and shapes[-1] < -(2**40)
    fold_and_compare(model, image(3, 4))
