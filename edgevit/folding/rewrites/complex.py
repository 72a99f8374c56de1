"""Rewrites complex numbers as real ones: the operators between Fourier transforms, on packed maps (complex_packing.py).

A whole region of complex tensors is rewritten at once. A rule for each operator gives the packed real map of its
result. If one operator has no rule, nothing changes: a network half in real and half in complex numbers gains nothing.
Reshapes among channels are free. A product with constant complex weights over channels is one grouped 1x1 convolution.
An elementwise function of both parts alike runs once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten
from edgevit.folding.rewrites.complex_packing import Region, is_complex, same_of_both_parts
from edgevit.folding.rewrites.fourier import read_transform, transform


def complex_region(net: Net, node: Node) -> bool:
    """Compute a transform's complex tensors, and all connected ones, in real numbers, if every one has a rule."""
    if read_transform(net, node) is None:
        return False
    region = Region(net, node)
    if not all(member.target in _RULES for member in region.members):
        return False
    is_real = _compute_in_real(region)
    if is_real:
        for old, new in region.exits.items():
            net.replace(old, new)
    region.drop_unread()
    return is_real


def _compute_in_real(region: Region) -> bool:
    """Add the real form of every member; return False where one has none."""
    for node in [member for member in region.net.nodes() if member in region.members]:
        new = _RULES[node.target](region, node) if region.fits(node) else None
        if new is None:
            return False
        (region.packed if is_complex(node) else region.exits)[node] = new
    return True


# ---- rules: the real form of a member, or None where it has none ----------------------------------------------


def _transform(region: Region, node: Node) -> Node | None:
    net, kind = region.net, read_transform(region.net, node)
    if kind is None or (kind.inverse and net.input(node) not in region.packed):
        return None
    source = region.packed[net.input(node)] if kind.inverse else net.input(node)
    out = transform(net, source, kind, node)
    region.added.append(out)
    return out


def _part(index: int) -> Callable[[Region, Node], Node | None]:
    def read(region: Region, node: Node) -> Node | None:
        parts = region.parts(region.net.input(node), node)
        return parts[index] if parts else None

    return read


def _view_as_real(region: Region, node: Node) -> Node | None:
    parts = region.parts(region.net.input(node), node)
    return region.call(aten.stack.default, list(parts), -1, before=node) if parts else None


def _view_as_complex(region: Region, node: Node) -> Node | None:
    source = region.net.input(node)
    real, imaginary = (region.call(aten.select.int, source, -1, i, before=node) for i in (0, 1))
    return region.pack(real, imaginary, node)


def _complex(region: Region, node: Node) -> Node | None:
    """Join two real tensors, or apply one function to both parts of one complex tensor."""
    real, imaginary = node.args[:2]
    if (same := same_of_both_parts(node)) is None:
        return region.pack(real, imaginary, node) if isinstance(real, Node) and isinstance(imaginary, Node) else None
    source, chain = same
    packed = region.packed[source]
    for step in chain:
        packed = region.call(step.target, packed, *step.args[1:], before=node, **step.kwargs)  # type: ignore[arg-type]
    return packed


def _reshape(region: Region, node: Node) -> Node | None:
    """Keep the packed map: a reshape among the channels is free."""
    before, after = (region.net.shape(value) for value in (region.net.input(node), node))
    return region.packed.get(region.net.input(node)) if before[-2:] == after[-2:] and before[0] == after[0] else None


def _sum(region: Region, node: Node) -> Node | None:
    """Add two members of one shape, or a member and a constant."""
    if region.net.arguments(node)["alpha"] != 1:
        return None
    operands = [_addend(region, operand, node) for operand in node.args[:2]]
    return None if None in operands else region.call(node.target, *operands, before=node)  # type: ignore[arg-type]


def _addend(region: Region, value: Any, node: Node) -> Node | None:
    shape, constant = region.net.shape(node), region.net.constant(value)
    if constant is None:
        return region.packed.get(value) if isinstance(value, Node) and region.net.shape(value) == shape else None
    sizes = (1,) * (len(shape) - constant.dim()) + tuple(constant.shape)
    if len(sizes) > len(shape) or sizes[0] != 1:
        return None
    pixels = sizes[-2:]
    constant = constant.reshape(sizes[1:]).expand(*shape[1:-2], *pixels)
    parts = torch.view_as_real(constant.to(torch.complex128).resolve_conj()).movedim(-1, -3)
    return region.constant(parts.reshape(-1, *pixels), node)


def _product(region: Region, node: Node) -> Node | None:
    """Multiply: (a + bi)(c + di) = (ac - bd) + (ad + bc)i; a real factor multiplies both parts."""
    first, second = node.args[:2]
    first, second = (first, second) if first in region.packed else (second, first)
    a_b = region.parts(first, node) if isinstance(first, Node) else None
    if a_b is None or isinstance(second, complex):
        return None
    mul = aten.mul.Tensor
    if not is_complex(second):
        real, imaginary = (region.call(mul, part, second, before=node) for part in a_b)
        return region.pack(real, imaginary, node)
    c_d = region.parts(second, node) if isinstance(second, Node) else None
    if c_d is None:
        return None
    ac, bd, ad, bc = (region.call(mul, a_b[i], c_d[j], before=node) for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)))
    real = region.call(aten.sub.Tensor, ac, bd, before=node)
    return region.pack(real, region.call(aten.add.Tensor, ad, bc, before=node), node)


def _einsum(region: Region, node: Node) -> Node | None:
    """Add a convolution with [Wr -Wi; Wi Wr] for constant complex weights over channels, equal at every pixel."""
    operands = node.args[1]
    if not isinstance(operands, (list, tuple)) or len(operands) != 2:
        return None
    source, weight = operands[0], region.net.constant(operands[1])
    blocks = None if weight is None else _blocks(str(node.args[0]), weight)
    if blocks is None or not isinstance(source, Node) or source not in region.packed:
        return None
    groups = blocks.shape[0]
    real, imaginary = blocks.real.double(), (blocks.imag if blocks.is_complex() else torch.zeros_like(blocks)).double()
    rows = torch.stack((torch.stack((real, -imaginary), -1), torch.stack((imaginary, real), -1)), 2)  # (g, o, 2, i, 2)
    kernel = region.constant(rows.reshape(-1, 2 * blocks.shape[2], 1, 1), node)
    geometry = ([1, 1], [0, 0], [1, 1], groups)
    return region.call(CONVOLUTION, region.packed[source], kernel, None, *geometry, before=node)


def _blocks(equation: str, weight: Tensor) -> Tensor | None:
    """Return weights (groups, out, in) for the equation n g.. i h f, weights of g.. i o -> n g.. o h f; else None."""
    operands, _, output = equation.replace(" ", "").partition("->")
    source, _, weights = operands.partition(",")
    if "." in equation or len(source) < 4 or len(source) != len(output) or len(set(output)) != len(output):
        return None
    groups, i, o = source[1:-3], source[-3], output[-3]
    same = source[:-3] == output[:-3] and source[-2:] == output[-2:] and i != o
    if not same or sorted(weights) != sorted(groups + i + o):
        return None
    return (
        torch.einsum(f"{weights}->{groups}{o}{i}", weight).flatten(0, -3)
        if groups
        else torch.einsum(f"{weights}->{o}{i}", weight)[None]
    )


_RULES: dict[Any, Callable[[Region, Node], Node | None]] = {
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
