"""Norms in inference, scales and shifts of channels: as batch norm, as product and sum, or as 1x1 depthwise layers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import BATCH_NORM, Net, aten, is_call
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import called, enclosed, is_plain

Affine = tuple[tuple[Node, ...], Node, Tensor, Tensor | None]


def _affine(net: Net, node: Node) -> Affine | None:
    """Read a batch norm, or a product per channel and the sum behind it, as (nodes, maps, scale, shift)."""
    if not is_plain(net, node) or len(net.shape(node)) != 4:
        return None
    if is_call(node, BATCH_NORM):
        affine = net.affine(node, 1)
        return None if affine is None else ((node,), *affine)
    shifted = net.affine(node, 1) if is_call(node, aten.add.Tensor) else None
    if shifted is None or not is_call(product := shifted[0], aten.mul.Tensor):
        return None
    scaled, nodes = net.affine(product, 1), enclosed([product, node])
    return None if scaled is None or nodes is None else (nodes, scaled[0], scaled[1], shifted[2])


def _nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    affine = _affine(net, node)
    return None if affine is None else affine[0]


def _norm_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return _nodes(net, node) if is_call(node, BATCH_NORM) else None


def _sum_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return _nodes(net, node) if is_call(node, aten.add.Tensor) else None


def _read(net: Net, node: Node) -> Affine:
    affine = _affine(net, node)
    assert affine is not None
    return affine


def _write_product(net: Net, node: Node) -> Node:
    _, source, scale, shift = _read(net, node)
    result = called(net, aten.mul.Tensor, source, scale.reshape(-1, 1, 1), before=node)
    return result if shift is None else called(net, aten.add.Tensor, result, shift.reshape(-1, 1, 1), before=node)


def _write_norm(net: Net, node: Node) -> Node:
    _, source, scale, shift = _read(net, node)
    zeros = torch.zeros_like(scale)
    constants = [scale.contiguous(), zeros if shift is None else shift.contiguous(), zeros, torch.ones_like(scale)]
    nodes = [net.add_constant(constant, before=node) for constant in constants]
    return net.call(BATCH_NORM, source, *nodes, False, 0.0, 0.0, False, before=node)


def _write_depthwise(net: Net, node: Node) -> Node:
    _, source, scale, shift = _read(net, node)
    kernel = Kernel(scale.reshape(-1, 1, 1, 1).contiguous(), shift, groups=len(scale))
    return net.convolve(source, kernel, before=node)


FORMS = (
    Form("batch_norm_spelled", "batch norms as a product and a sum", _norm_nodes, _write_product),
    Form("affine_batch_norm", "a product and a sum per channel as a batch norm", _sum_nodes, _write_norm),
    Form("affine_depthwise", "scale and shift of channels as a 1x1 depthwise layer", _nodes, _write_depthwise),
)
