"""Complex tensors of a graph that meet each other, and the real maps that stand for them.

A complex tensor (N, channels.., H, F), with one or more axes of channels, is held "packed" as (N, 2C, H, F) in which
channels 2c and 2c + 1 are the real and the imaginary part of channel c of all C (see fourier.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call

# Functions that see one number at a time, so that real and imaginary parts may go through them together.
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
    """Whether a node gives one complex tensor."""
    return isinstance(value, Node) and isinstance(value.meta.get("val"), Tensor) and value.meta["val"].is_complex()


class Region:
    """Complex tensors that meet each other, their packed maps, and the real tensors that are read from them."""

    def __init__(self, net: Net, start: Node) -> None:
        self.net, self.members = net, _connected(net, start)
        self.packed: dict[Node, Node] = {}
        self.exits: dict[Node, Node] = {}
        self.made: list[Node] = []

    def drop_unread(self) -> None:
        """What was made and nobody reads."""
        for node in reversed(self.made):
            if not node._erased:
                self.net.drop(node)

    def fits(self, node: Node) -> bool:
        """Whether the members that a call takes and gives have channels and sizes of pixels."""
        held = (item for item in (node, *node.all_input_nodes) if item in self.members and is_complex(item))
        return all(len(self.net.shape(item)) >= 4 and -1 not in self.net.shape(item)[1:] for item in held)

    def call(self, target: Callable[..., Any], *arguments: Any, before: Node, **named: Any) -> Node:
        """A new call ahead of `before`, known as made here."""
        node = self.net.call(target, *arguments, before=before, **named)
        self.made.append(node)
        return node

    def reshape(self, node: Node, shape: tuple[int, ...], before: Node) -> Node:
        """(N, ...) -> (N, *shape), nothing where it has that shape."""
        if self.net.shape(node)[1:] == shape:
            return node
        return self.call(aten.reshape.default, node, [-1, *shape], before=before)

    def parts(self, value: Node, before: Node) -> tuple[Node, Node] | None:
        """Real and imaginary part of a member or a complex constant, in its own shape."""
        constant = self.net.constant(value)
        if constant is not None:
            real = constant.real if constant.is_complex() else constant
            imaginary = constant.imag if constant.is_complex() else torch.zeros_like(constant)
            dtype = value.meta["val"].dtype.to_real()
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
        """One packed map from two parts (N, channels.., H, F)."""
        shape = self.net.shape(before)
        if not self.net.shape(real) == self.net.shape(imaginary) == shape:
            return None
        channels, (height, width) = math.prod(shape[1:-2]), shape[-2:]
        halves = [self.reshape(part, (channels, height, width), before) for part in (real, imaginary)]
        joined = self.call(aten.cat.default, halves, 2, before=before)
        return self.reshape(joined, (2 * channels, height, width), before)

    def constant(self, tensor: Tensor, like: Node) -> Node:
        """A new real constant in the precision of the complex node it stands before."""
        return self.net.add_constant(tensor, before=like, dtype=like.meta["val"].dtype.to_real())


def _connected(net: Net, start: Node) -> set[Node]:
    """All complex tensors that calls join with `start`'s, and what makes real ones of them or gives them away."""
    found, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        near = [*node.users] if is_complex(node) else []
        near += [item for item in node.all_input_nodes if is_complex(item)]
        near += [read[0]] if (read := same_of_both_parts(node)) else []
        near += [item for part in node.users for item in _rejoined(part)] if is_complex(node) else []
        new = [item for item in near if item not in found and net.constant(item) is None]
        found.update(new)
        waiting += new
    return found


def _rejoined(part: Node) -> list[Node]:
    """The complex tensors that elementwise functions of one part of a complex tensor end up in."""
    near, found = [part], []
    while near:
        node = near.pop()
        found += [user for user in node.users if same_of_both_parts(user)]
        near += [user for user in node.users if is_call(user, *_ELEMENTWISE)]
    return found


def same_of_both_parts(node: Node) -> tuple[Node, list[Node]] | None:
    """complex(f(z.real), f(z.imag)): z and the elementwise calls that make f, in order; None for anything else."""
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
