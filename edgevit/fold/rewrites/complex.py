"""Complex numbers as real ones: everything between Fourier transforms, computed on packed maps (see fourier.py).

A whole region of complex tensors is read at once, operator by operator, each giving the packed real map of what it
gave. If one operator has no rule here, nothing changes: a network half in real and half in complex numbers gains
nothing. Held are complex tensors (N, channels.., H, F) with one or more axes of channels; reshapes among those are
free, a product with constant complex weights over them is one grouped 1x1 convolution, and an elementwise function
that meets both parts alike runs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.fold.graph import CONVOLUTION, Net, aten, is_call
from edgevit.fold.rewrites.fourier import read_transform, transform

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


def complex_region(net: Net, node: Node) -> bool:
    """The complex tensors that a transform gives or takes, and all that meet them, in real numbers if they all can be."""
    if read_transform(net, node) is None:
        return False
    region = _Region(net, node)
    if not region.read():
        region.drop_unread()
        return False
    for old, new in region.exits.items():
        net.replace(old, new)
    region.drop_unread()
    return True


def _is_complex(value: Any) -> bool:
    return isinstance(value, Node) and isinstance(value.meta.get("val"), Tensor) and value.meta["val"].is_complex()


class _Region:
    """Complex tensors that meet each other, their packed maps, and the real tensors that are read from them."""

    def __init__(self, net: Net, start: Node) -> None:
        self.net, self.members = net, _connected(net, start)
        self.packed: dict[Node, Node] = {}
        self.exits: dict[Node, Node] = {}
        self.made: list[Node] = []

    def read(self) -> bool:
        """Find the real form of everything; False where an operator has none."""
        for node in [item for item in self.net.nodes() if item in self.members]:
            rule = _RULES.get(node.target)  # type: ignore[arg-type]
            new = rule(self, node) if rule and self._fits(node) else None
            if new is None:
                return False
            (self.packed if _is_complex(node) else self.exits)[node] = new
        return True

    def _fits(self, node: Node) -> bool:
        held = (item for item in (node, *node.all_input_nodes) if _is_complex(item) and item in self.members)
        return all(len(self.net.shape(item)) >= 4 and -1 not in self.net.shape(item)[1:] for item in held)

    def drop_unread(self) -> None:
        """What was made and nobody reads."""
        for node in reversed(self.made):
            if not node._erased:
                self.net.drop(node)

    def call(self, target: Callable[..., Any], *arguments: Any, before: Node) -> Node:
        node = self.net.call(target, *arguments, before=before)
        self.made.append(node)
        return node

    def reshape(self, node: Node, shape: tuple[int, ...], before: Node) -> Node:
        """(N, ...) -> (N, *shape), nothing where it has that shape."""
        if self.net.shape(node)[1:] == shape:
            return node
        return self.call(aten.reshape.default, node, [-1, *shape], before=before)

    def parts(self, value: Any, before: Node) -> tuple[Any, Any] | None:
        """Real and imaginary part of a member or a complex constant, in its own shape."""
        constant = self.net.constant(value)
        if constant is not None:
            real = constant.real if constant.is_complex() else constant
            imaginary = constant.imag if constant.is_complex() else torch.zeros_like(constant)
            dtype = value.meta["val"].dtype.to_real()
            add = self.net.add_constant
            return tuple(add(part.double(), before=before, dtype=dtype) for part in (real, imaginary))  # type: ignore[return-value]
        if value not in self.packed:
            return None
        *channels, height, width = self.net.shape(value)[1:]
        whole = self.reshape(self.packed[value], (math.prod(channels), 2 * height, width), before)
        halves = (self.call(aten.slice.Tensor, whole, 2, i * height, (i + 1) * height, before=before) for i in (0, 1))
        real, imaginary = (self.reshape(half, (*channels, height, width), before) for half in halves)
        return real, imaginary

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
        return self.net.add_constant(tensor, before=like, dtype=like.meta["val"].dtype.to_real())


def _connected(net: Net, start: Node) -> set[Node]:
    """All complex tensors that calls join with `start`'s, and the calls that make real ones of them."""
    found, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        near = [*node.users] if _is_complex(node) else []
        near += [item for item in node.all_input_nodes if _is_complex(item)]
        near += [read[0]] if (read := _same_of_both_parts(node)) else []
        near += [item for part in node.users for item in _rejoined(part)] if _is_complex(node) else []
        new = [item for item in near if item not in found and item.op != "output" and net.constant(item) is None]
        found.update(new)
        waiting += new
    return found


def _rejoined(part: Node) -> list[Node]:
    """The complex tensors that elementwise functions of one part of a complex tensor end up in."""
    near, found = [part], []
    while near:
        node = near.pop()
        found += [user for user in node.users if _same_of_both_parts(user)]
        near += [user for user in node.users if is_call(user, *_ELEMENTWISE)]
    return found


# ---- rules: a member in real numbers, None where this one cannot be ----------------------------------------------


def _transform(region: _Region, node: Node) -> Node | None:
    net, what = region.net, read_transform(region.net, node)
    if what is None or (what.inverse and net.input(node) not in region.packed):
        return None
    source = region.packed[net.input(node)] if what.inverse else net.input(node)
    out = transform(net, source, what, node)
    region.made.append(out)
    return out


def _part(index: int) -> Callable[[_Region, Node], Node | None]:
    def read(region: _Region, node: Node) -> Node | None:
        parts = region.parts(region.net.input(node), node)
        return parts[index] if parts else None

    return read


def _view_as_real(region: _Region, node: Node) -> Node | None:
    parts = region.parts(region.net.input(node), node)
    return region.call(aten.stack.default, list(parts), -1, before=node) if parts else None


def _view_as_complex(region: _Region, node: Node) -> Node | None:
    source = region.net.input(node)
    real, imaginary = (region.call(aten.select.int, source, -1, i, before=node) for i in (0, 1))
    return region.pack(real, imaginary, node)


def _complex(region: _Region, node: Node) -> Node | None:
    """Two real tensors, or one function of both parts of one complex tensor."""
    real, imaginary = node.args[:2]
    if (read := _same_of_both_parts(node)) is None:
        return region.pack(real, imaginary, node) if isinstance(real, Node) and isinstance(imaginary, Node) else None
    source, chain = read
    packed = region.packed[source]
    for step in chain:
        packed = region.call(step.target, packed, *step.args[1:], before=node)  # type: ignore[arg-type]
        packed.kwargs = step.kwargs
    return packed


def _same_of_both_parts(node: Node) -> tuple[Node, list[Node]] | None:
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


def _reshape(region: _Region, node: Node) -> Node | None:
    """Free where it stays among the channels."""
    before, after = (region.net.shape(item) for item in (region.net.input(node), node))
    return region.packed.get(region.net.input(node)) if before[-2:] == after[-2:] and before[0] == after[0] else None


def _sum(region: _Region, node: Node) -> Node | None:
    """Of two members of one shape, or of a member and a constant."""
    if region.net.arguments(node)["alpha"] != 1:
        return None
    operands = [_addend(region, item, node) for item in node.args[:2]]
    return None if None in operands else region.call(node.target, *operands, before=node)  # type: ignore[arg-type]


def _addend(region: _Region, value: Any, node: Node) -> Node | None:
    shape, constant = region.net.shape(node), region.net.constant(value)
    if constant is None:
        return region.packed.get(value) if isinstance(value, Node) and region.net.shape(value) == shape else None
    if constant.dim() >= len(shape) and constant.shape[0] != 1:
        return None
    pixels = tuple(constant.shape[-2:]) if constant.dim() > 1 else (1, *constant.shape[-1:])
    pixels = (1,) * (2 - len(pixels)) + pixels
    constant = constant.reshape(constant.shape[-len(shape) + 1 :]).expand(*shape[1:-2], *pixels)
    parts = torch.view_as_real(constant.to(torch.complex128).resolve_conj()).movedim(-1, -3)
    return region.constant(parts.reshape(-1, *pixels), node)


def _product(region: _Region, node: Node) -> Node | None:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i; a real factor meets both parts."""
    first, second = node.args[:2]
    first, second = (first, second) if first in region.packed else (second, first)
    a_b = region.parts(first, node) if isinstance(first, Node) else None
    if a_b is None:
        return None
    mul = aten.mul.Tensor
    if not _is_complex(second):
        return region.pack(*(region.call(mul, part, second, before=node) for part in a_b), node)
    c_d = region.parts(second, node)
    if c_d is None:
        return None
    ac, bd, ad, bc = (region.call(mul, a_b[i], c_d[j], before=node) for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)))
    real = region.call(aten.sub.Tensor, ac, bd, before=node)
    return region.pack(real, region.call(aten.add.Tensor, ad, bc, before=node), node)


def _einsum(region: _Region, node: Node) -> Node | None:
    """Constant complex weights over the channels, the same at every pixel: one convolution with [Wr -Wi; Wi Wr]."""
    operands = node.args[1]
    if not isinstance(operands, (list, tuple)) or len(operands) != 2:
        return None
    source, weight = operands[0], region.net.constant(operands[1])
    blocks = None if weight is None else _blocks(str(node.args[0]), weight)
    if blocks is None or source not in region.packed:
        return None
    groups = blocks.shape[0]
    real, imaginary = blocks.real.double(), (blocks.imag if blocks.is_complex() else torch.zeros_like(blocks)).double()
    rows = torch.stack((torch.stack((real, -imaginary), -1), torch.stack((imaginary, real), -1)), 2)  # (g, o, 2, i, 2)
    kernel = region.constant(rows.reshape(-1, 2 * blocks.shape[2], 1, 1), node)
    geometry = ([1, 1], [0, 0], [1, 1], groups)
    return region.call(CONVOLUTION, region.packed[source], kernel, None, *geometry, before=node)


def _blocks(equation: str, weight: Tensor) -> Tensor | None:
    """Weights (groups, out, in) where the equation reads n g.. i h f, weights of g.. i o -> n g.. o h f; else None."""
    left, _, output = equation.replace(" ", "").partition("->")
    source, _, weights = left.partition(",")
    if "." in equation or len(source) < 4 or len(source) != len(output) or len(set(output)) != len(output):
        return None
    groups, i, o = source[1:-3], source[-3], output[-3]
    same = source[:-3] == output[:-3] and source[-2:] == output[-2:] and i != o
    if not same or sorted(weights) != sorted(groups + i + o):
        return None
    return torch.einsum(f"{weights}->{groups}{o}{i}", weight).flatten(0, -3) if groups else torch.einsum(
        f"{weights}->{o}{i}", weight)[None]


_RULES: dict[Any, Callable[[_Region, Node], Node | None]] = {
    aten.fft_rfft2.default: _transform,
    aten.fft_rfftn.default: _transform,
    aten.fft_irfft2.default: _transform,
    aten.fft_irfftn.default: _transform,
    aten.real.default: _part(0),
    aten.imag.default: _part(1),
    aten.view_as_real.default: _view_as_real,
    aten.view_as_complex.default: _view_as_complex,
    aten.complex.default: _complex,
    aten.unflatten.int: _reshape,
    aten.flatten.using_ints: _reshape,
    aten.reshape.default: _reshape,
    aten.add.Tensor: _sum,
    aten.sub.Tensor: _sum,
    aten.mul.Tensor: _product,
    aten.einsum.default: _einsum,
}
