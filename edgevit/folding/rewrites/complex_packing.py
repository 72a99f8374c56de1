"""Regions of connected complex tensors in a graph, and the packed real maps that represent them.

A complex tensor (N, channels.., H, F), with one or more axes of channels, is "packed" as (N, 2C, H, F). Its channels 2c
and 2c + 1 are the real and the imaginary part of channel c of all C (see fourier.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.values import VALUE

# Functions of one number at a time, which real and imaginary parts may pass together.
_ELEMENTWISE = (
    aten.silu.default,
    aten.relu.default,
    aten.gelu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.softshrink.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.clamp.default,
    aten.neg.default,
)


def is_complex(value: Any) -> bool:
    """Return whether a node's value is one complex tensor."""
    return isinstance(value, Node) and isinstance(value.meta.get(VALUE), Tensor) and value.meta[VALUE].is_complex()


class Region:
    """Connected complex tensors, their packed maps, and the real tensors that leave the region."""

    def __init__(self, net: Net, start: Node) -> None:
        self.net, self.members = net, _connected(net, start)
        self.packed: dict[Node, Node] = {}
        self.exits: dict[Node, Node] = {}
        self.added: list[Node] = []

    def drop_unread(self) -> None:
        """Drop the added nodes that have no reader."""
        for node in reversed(self.added):
            if not node._erased:
                self.net.drop(node)

    def fits(self, node: Node) -> bool:
        """Return whether the complex members that a call reads and computes have channels and fixed pixel sizes."""
        values = (node, *node.all_input_nodes)
        shapes = [self.net.shape(value) for value in values if value in self.members and is_complex(value)]
        return all(len(shape) >= 4 and -1 not in shape[1:] for shape in shapes)

    def call(self, target: Callable[..., Any], *arguments: Any, before: Node, **named: Any) -> Node:
        """Add a call ahead of `before`, and record it."""
        node = self.net.call(target, *arguments, before=before, **named)
        self.added.append(node)
        return node

    def reshape(self, node: Node, shape: tuple[int, ...], before: Node) -> Node:
        """Reshape (N, ...) to (N, *shape), unless it has that shape."""
        if self.net.shape(node)[1:] == shape:
            return node
        return self.call(aten.reshape.default, node, [-1, *shape], before=before)

    def parts(self, value: Node, before: Node) -> tuple[Node, Node] | None:
        """Return the real and the imaginary part of a member or a complex constant, in its own shape."""
        constant = self.net.constant(value)
        if constant is not None:
            real = constant.real if constant.is_complex() else constant
            imaginary = constant.imag if constant.is_complex() else torch.zeros_like(constant)
            dtype = value.meta[VALUE].dtype.to_real()
            add = self.net.add_constant
            return add(real.double(), before=before, dtype=dtype), add(imaginary.double(), before=before, dtype=dtype)
        if value not in self.packed:
            return None
        *channels, height, width = self.net.shape(value)[1:]
        whole = self.reshape(self.packed[value], (math.prod(channels), 2 * height, width), before)
        halves = (self.call(aten.slice.Tensor, whole, 2, i * height, (i + 1) * height, before=before) for i in (0, 1))
        first, second = (self.reshape(half, (*channels, height, width), before) for half in halves)
        return first, second

    def pack(self, real: Node, imaginary: Node, before: Node) -> Node | None:
        """Join two parts (N, channels.., H, F) into one packed map; None where their shapes differ."""
        shape = self.net.shape(before)
        if not self.net.shape(real) == self.net.shape(imaginary) == shape:
            return None
        channels, (height, width) = math.prod(shape[1:-2]), shape[-2:]
        halves = [self.reshape(part, (channels, height, width), before) for part in (real, imaginary)]
        joined = self.call(aten.cat.default, halves, 2, before=before)
        return self.reshape(joined, (2 * channels, height, width), before)

    def constant(self, tensor: Tensor, like: Node) -> Node:
        """Add a real constant ahead of `like`, in the precision of that complex node."""
        return self.net.add_constant(tensor, before=like, dtype=like.meta[VALUE].dtype.to_real())


def _connected(net: Net, start: Node) -> set[Node]:
    """Return the complex tensors connected with those of `start`, and the nodes between them and real tensors."""
    members, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        neighbours = [*node.users] if is_complex(node) else []
        neighbours += [source for source in node.all_input_nodes if is_complex(source)]
        neighbours += [same[0]] if (same := same_of_both_parts(node)) else []
        neighbours += [joined for part in node.users for joined in _rejoined(part)] if is_complex(node) else []
        new = [neighbour for neighbour in neighbours if neighbour not in members and net.constant(neighbour) is None]
        members.update(new)
        waiting += new
    return members


def _rejoined(part: Node) -> list[Node]:
    """Return the complex tensors that are joined from elementwise functions of one part of a complex tensor."""
    waiting, joined = [part], []
    while waiting:
        node = waiting.pop()
        joined += [user for user in node.users if same_of_both_parts(user)]
        waiting += [user for user in node.users if is_call(user, *_ELEMENTWISE)]
    return joined


def same_of_both_parts(node: Node) -> tuple[Node, list[Node]] | None:
    """Return z and the elementwise calls of f, in order, for complex(f(z.real), f(z.imag)); None for any other node."""
    if not is_call(node, aten.complex.default):
        return None
    (real, imaginary), chain = node.args[:2], list[Node]()
    while is_call(real, *_ELEMENTWISE) and is_call(imaginary, real.target):  # type: ignore[arg-type]
        if (real.args[1:], real.kwargs) != (imaginary.args[1:], imaginary.kwargs) or len(real.all_input_nodes) != 1:
            return None
        chain.insert(0, real)
        real, imaginary = real.args[0], imaginary.args[0]
    parted = is_call(real, aten.real.default) and is_call(imaginary, aten.imag.default)
    if not parted or real.args[0] is not imaginary.args[0]:  # type: ignore[union-attr]
        return None
    return real.args[0], chain  # type: ignore[union-attr, return-value]
