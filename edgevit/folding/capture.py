"""Capture of any module as a Net, then one spelling for operators that ATen spells in several ways.

A recording (recording.py) shows most models. torch.export, which is slower, takes the others, and those for one batch
size alone. The rewrites may rely on three properties that neither guarantees. No operator writes to a tensor that
another one reads. No operator depends on a tensor's memory layout. No operator insists on the dtype or device of the
capture.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from edgevit.errors import ModelError
from edgevit.folding.graph import BATCH_NORM, CONVOLUTION, Net, arguments, aten, is_call, pair
from edgevit.folding.in_place import drop_dropouts, write_nothing
from edgevit.folding.recording import record
from edgevit.folding.sizes import BatchDecidesError
from edgevit.folding.values import OTHER, VALUE, infer, shape


def capture(model: nn.Module, inputs: tuple[Tensor, ...]) -> Net:
    """Export a model in eval mode to ATen operators. The batch stays open where the model allows it.

    Raises ModelError with torch's reason where the model cannot be captured.
    """
    name = type(model).__name__
    if not inputs:
        raise ModelError(f"{name} cannot be captured", why="it was given no inputs")
    if other := [type(value).__name__ for value in inputs if not isinstance(value, Tensor)]:
        fix = "wrap the model in a module that takes tensors"
        raise ModelError(f"{name} cannot be captured", why=f"an input is a {other[0]}, not a tensor", fix=fix)
    dtype = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    # torch.export takes one tensor that is given twice for one input.
    distinct = tuple(tensor.view_as(tensor) for tensor in inputs)
    try:
        module, is_open = _recorded(model, distinct) or _exported(model, distinct, open_batch=True)
    except BatchDecidesError:
        module, is_open = _exported(model, distinct, open_batch=False)
    follows_dtype = _follows_dtype(module.graph, dtype)
    _refuse_memory(name, module.graph)
    _respell(module.graph)
    return Net(GraphModule(module, module.graph), dtype, batch_is_open=is_open, follows_dtype=follows_dtype)


def _recorded(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[GraphModule, bool] | None:
    """Return a recording of a model that takes any batch; None where torch.export has to capture it.

    Raises BatchDecidesError.
    """
    module = record(model, inputs)
    if module is None:
        return None
    drop_dropouts(module.graph)
    return (module, True) if write_nothing(module.graph) else None


def _exported(model: nn.Module, inputs: tuple[Tensor, ...], *, open_batch: bool) -> tuple[GraphModule, bool]:
    # Few models need torch.export, which takes a second to import.
    from edgevit.folding.torch_export import exported

    return exported(model, inputs, open_batch=open_batch)


def _refuse_memory(name: str, graph: Graph) -> None:
    """Raise ModelError where a call depends on what another one left behind, which no operator of a graph says."""
    for node in graph.nodes:
        if node.kwargs.get("generator") is not None:
            raise ModelError(
                f"{name} cannot be folded",
                why=f"{node.name} draws from a random generator, which goes on from call to call",
                fix="draw the numbers once, and keep them as a buffer",
            )
        if not is_call(node, BATCH_NORM, aten.instance_norm.default) or not node.args[5]:
            continue
        # In training it updates its running statistics, which its schema does not say.
        statistics = [each for each in node.args[3:5] if isinstance(each, Node)]
        if any(len(each.users) > 1 or each.op != "get_attr" for each in statistics):
            raise ModelError(
                f"{name} cannot be folded",
                why=f"{node.name} updates running statistics that something else reads",
                fix="normalise with training=False, or without running statistics",
            )


def _follows_dtype(graph: Graph, dtype: torch.dtype) -> bool:
    """Return whether the graph holds in another floating dtype too: it names none, and computes in `dtype` alone."""
    for node in graph.nodes:
        arguments = torch.utils._pytree.tree_leaves((node.args, node.kwargs))
        tensors = (leaf for leaf in torch.utils._pytree.tree_leaves(node.meta.get(VALUE)) if isinstance(leaf, Tensor))
        kinds = {tensor.dtype.to_real() if tensor.is_complex() else tensor.dtype for tensor in tensors}
        named = {kind for kind in arguments if isinstance(kind, torch.dtype)}
        if any(kind.is_floating_point or kind.is_complex for kind in named | kinds - {dtype}):
            return False
    return True


# ---- one spelling -------------------------------------------------------------------------------------------------


def _respell(graph: Graph) -> None:
    for node in list(graph.nodes):
        if is_call(node, aten.view.default, aten._unsafe_view.default):
            # A view may refuse a memory layout that a rewrite or a weight's format leads to.
            node.target = aten.reshape.default
        elif is_call(node, aten.conv2d.padding):
            _spell_padding(graph, node)
        elif is_call(node, aten._native_batch_norm_legit_no_training.default):
            _spell_norm(graph, node)
        elif is_call(node, aten.add.Tensor, aten.sub.Tensor):
            _spell_alpha(graph, node)
        elif is_call(node, aten.rsub.Scalar):
            _spell_number_less(graph, node)
        elif is_call(node, aten.reshape_as.default, aten.view_as.default):
            _spell_reshape(node)
        elif is_call(node, aten.instance_norm.default):
            _spell_instance_norm(node)
        elif is_call(node, aten._assert_tensor_metadata.default):
            # The assertion would refuse the folded network in another dtype or on another device.
            graph.erase_node(node)


def _spell_alpha(graph: Graph, node: Node) -> None:
    """Write a + alpha b as a sum with a product, which the layer before b can take. Some converters drop alpha."""
    first, second, alpha = arguments(node).values()
    if alpha == 1:
        return
    if isinstance(second, Node):
        with graph.inserting_before(node):
            product = graph.call_function(aten.mul.Tensor, (second, alpha))
        product.meta = dict(node.meta)
        infer(product)
        second = product
    else:
        second *= alpha
    node.args, node.kwargs = (first, second), {}


def _spell_number_less(graph: Graph, node: Node) -> None:
    """Write c - alpha x as c + -alpha x, which the layer before x can take. One converter gets the former wrong."""
    source, number, alpha = arguments(node).values()
    with graph.inserting_before(node):
        product = graph.call_function(aten.mul.Tensor, (source, -alpha))
    product.meta = dict(node.meta)
    node.target, node.args, node.kwargs = aten.add.Tensor, (product, number), {}


def _spell_reshape(node: Node) -> None:
    """Write the shape of another tensor as numbers, so that the other tensor has one reader less."""
    sizes = [size if size >= 0 else -1 for size in shape(node)]
    if sizes.count(-1) <= 1:
        node.target, node.args, node.kwargs = aten.reshape.default, (node.args[0], sizes), {}


def _spell_padding(graph: Graph, node: Node) -> None:
    """Write 'same' and 'valid' as numbers; a padding that is uneven, as for an even kernel, comes ahead of it."""
    named = arguments(node)
    size, dilation = named["weight"].meta[VALUE].shape[2:], pair(named["dilation"])
    total = [d * (s - 1) if named["padding"] == "same" else 0 for d, s in zip(dilation, size, strict=True)]
    source, padding = named["input"], [both // 2 for both in total]
    if any(both % 2 for both in total):
        pads = [side for both in reversed(total) for side in (both // 2, both - both // 2)]
        with graph.inserting_before(node):
            padded = graph.call_function(aten.constant_pad_nd.default, (source, pads, 0.0))
        padded.meta = dict(node.meta)
        infer(padded)
        source, padding = padded, [0, 0]
    node.target, node.kwargs = CONVOLUTION, {}
    geometry = (list(pair(named["stride"])), padding, list(dilation))
    node.args = (source, named["weight"], named["bias"], *geometry, named["groups"])


def _spell_norm(graph: Graph, node: Node) -> None:
    """Write a BatchNorm in inference as `batch_norm`, with one output instead of three."""
    if not all(is_call(user, operator.getitem) and user.args[1] == 0 for user in node.users):
        return
    source, weight, bias, mean, var, momentum, eps = node.args
    with graph.inserting_before(node):
        norm = graph.call_function(BATCH_NORM, (source, weight, bias, mean, var, False, momentum, eps, False))
    norm.meta = {**node.meta, VALUE: node.meta[VALUE][0], OTHER: node.meta[OTHER][0]}
    for user in list(node.users):
        user.replace_all_uses_with(norm)
        graph.erase_node(user)
    graph.erase_node(node)


def _spell_instance_norm(node: Node) -> None:
    """Write an InstanceNorm with running statistics, which in inference is a BatchNorm, as `batch_norm`."""
    source, weight, bias, mean, var, uses_input, momentum, eps, _ = arguments(node).values()
    if not uses_input:
        node.target, node.args, node.kwargs = (
            BATCH_NORM,
            (source, weight, bias, mean, var, False, momentum, eps, False),
            {},
        )
