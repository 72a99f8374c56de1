"""Products with constant matrices, such as Fourier transforms: one as two, two as one, and as other operators.

A matrix M from (H, W) to (O, F) is P-fold separable if M[(h, w), (o, f)] = sum over p of A[o, (h, p)] B[w, (p, f)].
Then x M = A (x B), with (h, p, f) between. A Kronecker product has P = 1, and a Fourier transform in real numbers 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import called, enclosed, is_plain, projected, reshaped, swapped

_MATMUL = aten.matmul.default
# Numbers of a matrix that is searched for a structure, and of one that two products become.
_LARGEST_SEARCHED, _LARGEST_MERGED = 1 << 17, 1 << 20
_MOST_TERMS = 2
_EXACT = 1e-12


def _product(net: Net, node: Any, constant_at: int) -> tuple[Node, Tensor] | None:
    """Return the tensor and the matrix of a product with a constant, whose operand `constant_at` is the constant."""
    if not is_call(node, _MATMUL) or not is_plain(net, node):
        return None
    source, matrix = node.args[1 - constant_at], net.constant(node.args[constant_at])
    if not isinstance(source, Node) or matrix is None or matrix.dim() != 2:
        return None
    if not is_plain(net, source) or net.constant(source) is not None:
        return None
    return source, matrix


def _read(net: Net, node: Node, constant_at: int) -> tuple[Node, Tensor]:
    product = _product(net, node, constant_at)
    assert product is not None
    return product


# ---- one as two ---------------------------------------------------------------------------------------------------


def _divisors(number: int) -> Iterator[int]:
    return (size for size in range(2, number) if number % size == 0)


def _separated(matrix: Tensor) -> tuple[Tensor, Tensor, int, int] | None:
    """Return (A, B, H, F) of the cheapest separation of a matrix, with A (O, H P) and B (W, P F); None without any."""
    inputs, outputs = matrix.shape
    if matrix.is_meta or matrix.numel() > _LARGEST_SEARCHED:
        return None
    best, least = None, matrix.numel()
    for height in _divisors(inputs):
        for width_out in _divisors(outputs):
            width, height_out = inputs // height, outputs // width_out
            cost = height * width * width_out + height_out * height * width_out
            if cost >= least:
                continue
            table = matrix.reshape(height, width, height_out, width_out).permute(0, 2, 1, 3)
            factors = _few_terms(table.reshape(height * height_out, -1))
            if factors is None or cost * (terms := factors[0].shape[1]) >= least:
                continue
            left = factors[0].reshape(height, height_out, terms).permute(1, 0, 2).reshape(height_out, -1)
            right = factors[1].reshape(terms, width, width_out).permute(1, 0, 2).reshape(width, -1)
            best, least = (left, right, height, width_out), cost * terms
    return best


def _few_terms(table: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return a matrix as (n, P) times (P, m) with few terms P, by elimination with the largest pivots, or None."""
    residual, scale = table.double().clone(), float(table.abs().max())
    columns, rows = [], []
    for _ in range(_MOST_TERMS):
        pivot = int(residual.abs().argmax())
        row, column = divmod(pivot, residual.shape[1])
        value = residual[row, column]
        if not scale or abs(float(value)) <= _EXACT * scale:
            break
        columns.append(residual[:, column] / value)
        rows.append(residual[row].clone())
        residual = residual - torch.outer(columns[-1], rows[-1])
    exact = scale > 0 and float(residual.abs().max()) <= _EXACT * scale
    return (torch.stack(columns, 1), torch.stack(rows)) if exact else None


def _separable_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    product = _product(net, node, 1)
    if product is None or len(net.shape(node)) != 3 or min(net.shape(node)[1:]) < 0:
        return None
    return (node,) if _separated(product[1]) is not None else None


def _write_separable(net: Net, node: Node) -> Node:
    source, matrix = _read(net, node, 1)
    separated = _separated(matrix)
    assert separated is not None
    left, right, height, width_out = separated
    between, channels = left.shape[1], net.shape(node)[1]
    maps = reshaped(net, source, channels, height, right.shape[0], before=node)
    half = called(net, _MATMUL, maps, right, before=node)
    half = reshaped(net, half, channels, between, width_out, before=node)
    return reshaped(net, called(net, _MATMUL, left, half, before=node), *net.shape(node)[1:], before=node)


# ---- two as one ---------------------------------------------------------------------------------------------------


def _chain(net: Net, node: Node) -> list[Node]:
    """Return products and reshapes of maps in sequence that end here, all with the same images and channels."""
    chain: list[Node] = []
    while is_call(node, _MATMUL, aten.reshape.default) and len(net.shape(node)) == 4:
        source = _step_source(net, node)
        if source is None or net.shape(source)[:2] != net.shape(node)[:2] or min(net.shape(node)[1:]) < 0:
            break
        chain.insert(0, node)
        if len(source.users) > 1:
            break
        node = source
    while chain and is_call(chain[0], aten.reshape.default):
        chain.pop(0)
    return chain


def _step_source(net: Net, node: Node) -> Node | None:
    if is_call(node, aten.reshape.default):
        source = net.input(node)
        return source if is_plain(net, source) and len(net.shape(source)) == 4 else None
    product = _product(net, node, 1) or _product(net, node, 0)
    return product[0] if product is not None and len(net.shape(product[0])) == 4 else None


def _merged_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    if not is_call(node, _MATMUL):
        return None
    chain = _chain(net, node)
    source = _step_source(net, chain[0]) if chain else None
    if source is None or sum(is_call(step, _MATMUL) for step in chain) < 2:
        return None
    sizes = math.prod(net.shape(source)[2:]) * math.prod(net.shape(node)[2:])
    return enclosed(chain) if 0 < sizes <= _LARGEST_MERGED else None


def _write_merged(net: Net, node: Node) -> Node:
    chain = _chain(net, node)
    source = _step_source(net, chain[0])
    assert source is not None
    _, channels, *sides = net.shape(source)
    numbers = math.prod(sides)
    unit = torch.eye(numbers, dtype=torch.float64, device=net.device).reshape(numbers, *sides)
    for step in chain:
        if is_call(step, aten.reshape.default):
            unit = unit.reshape(numbers, *net.shape(step)[2:])
        else:
            operands = [unit if (constant := net.constant(each)) is None else constant for each in step.args]
            unit = operands[0] @ operands[1]
    flat = reshaped(net, source, channels, numbers, before=node)
    product = called(net, _MATMUL, flat, unit.flatten(1), before=node)
    return reshaped(net, product, *net.shape(node)[1:], before=node)


# ---- as other operators -------------------------------------------------------------------------------------------


def _nodes(constant_at: int, net: Net, node: Node) -> tuple[Node, ...] | None:
    fits = _product(net, node, constant_at) is not None and min(net.shape(node)[1:], default=0) > 0
    return (node,) if fits and (constant_at or len(net.shape(node)) > 2) else None


def _write_linear(net: Net, node: Node) -> Node:
    source, matrix = _read(net, node, 1)
    return projected(net, source, matrix.T, None, before=node)


def _write_rows(net: Net, node: Node) -> Node:
    source, matrix = _read(net, node, 1)
    rows = net.call(aten.reshape.default, source, [-1, matrix.shape[0]], before=node)
    product = called(net, _MATMUL, rows, matrix, before=node)
    return net.call(aten.reshape.default, product, [-1, *net.shape(node)[1:]], before=node)


def _write_turned(net: Net, node: Node) -> Node:
    source, matrix = _read(net, node, 0)
    rank = len(net.shape(node))
    turned = swapped(net, source, rank - 2, rank - 1, before=node)
    return swapped(net, projected(net, turned, matrix, None, before=node), rank - 2, rank - 1, before=node)


def _write_pointwise(net: Net, node: Node) -> Node:
    source, matrix = _read(net, node, 0)
    *_, rows, columns = net.shape(source)
    maps = net.call(aten.reshape.default, source, [-1, rows, 1, columns], before=node)
    product = net.convolve(maps, Kernel.of(matrix), before=node)
    return net.call(aten.reshape.default, product, [-1, *net.shape(node)[1:]], before=node)


FORMS = (
    Form("product_separated", "products with a separable matrix as two", _separable_nodes, _write_separable),
    Form("products_merged", "products along rows and columns as one", _merged_nodes, _write_merged),
    Form("product_linear", "products with a constant as a fully connected layer", partial(_nodes, 1), _write_linear),
    Form("product_rows", "products with a constant as one product of all rows", partial(_nodes, 1), _write_rows),
    Form("product_pointwise", "products from the left as 1x1 convolutions", partial(_nodes, 0), _write_pointwise),
    Form("product_turned", "products from the left between transpositions", partial(_nodes, 0), _write_turned),
)
