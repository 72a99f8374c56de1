"""Capture of any module as a Net, then one spelling for operators that ATen spells in several ways.

A recording (recording.py) shows most models. torch.export, which is slower, takes the others, and those for one batch
size alone. The rewrites may rely on three properties that neither guarantees. No operator writes to a tensor that
another one reads. No operator depends on a tensor's memory layout. No operator insists on the dtype or device of the
capture.
"""

from __future__ import annotations

import contextlib
import operator
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_symbols

from edgevit.errors import ModelError
from edgevit.folding.agreement import register_records
from edgevit.folding.graph import (
    BATCH_NORM,
    CONVOLUTION,
    DROPOUTS,
    Net,
    arguments,
    aten,
    is_call,
    pair,
    writes,
)
from edgevit.folding.recording import BatchDecidesError, record
from edgevit.folding.values import BATCHES, ORIGIN, OTHER, VALUE, infer, shape


def capture(model: nn.Module, inputs: tuple[Tensor, ...]) -> Net:
    """Export a model in eval mode to ATen operators. The batch stays open where the model allows it.

    Raises ModelError with torch's reason where the model cannot be captured.
    """
    if not inputs:
        raise ModelError(f"{type(model).__name__} cannot be captured", why="it was given no inputs")
    dtype = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    # torch.export takes one tensor that is given twice for one input.
    distinct = tuple(tensor.view_as(tensor) for tensor in inputs)
    try:
        module, is_open = _recorded(model, distinct) or _exported(model, distinct)
    except BatchDecidesError:
        module, is_open = _exported(model, distinct, open_batch=False)
    follows_dtype = _follows_dtype(module.graph, dtype)
    _respell(module.graph)
    return Net(GraphModule(module, module.graph), dtype, batch_is_open=is_open, follows_dtype=follows_dtype)


def _recorded(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[GraphModule, bool] | None:
    """Return a recording of a model that takes any batch; None where torch.export has to capture it.

    Raises BatchDecidesError.
    """
    module = record(model, inputs)
    if module is None:
        return None
    _drop_dropouts(module.graph)
    return (module, True) if _write_nothing(module.graph) else None


def _exported(model: nn.Module, inputs: tuple[Tensor, ...], *, open_batch: bool = True) -> tuple[GraphModule, bool]:
    """Return what torch.export captures, and whether its batch is open. Raises ModelError where it captures nothing."""
    export = _open_or_fixed if open_batch else _fixed
    try:
        module, is_open = export(model, inputs)
    except ModelError:
        if not _registers_records(model, inputs):
            raise
        module, is_open = export(model, inputs)
    _set_values(module.graph)
    return module, is_open


def _set_values(graph: Graph) -> None:
    """Replace symbols in a graph's values by numbers, at both batch sizes, and note the modules of nodes."""
    for node in graph.nodes:
        value, stack = node.meta.get(VALUE), node.meta.get("nn_module_stack") or {}
        paths = [str(path).partition("@")[0] for path, _ in stack.values()]
        node.meta |= {ORIGIN: paths[-1] if paths else ""}
        for key, batch in zip((VALUE, OTHER), BATCHES, strict=True):
            node.meta[key] = torch.utils._pytree.tree_map(partial(_at_batch, batch=batch), value)


def _at_batch(value: Any, batch: int) -> Any:
    """Return a value of a graph at one batch size: a tensor without data, a number, or what it is."""
    if isinstance(value, Tensor):
        sizes = [_at_batch(size, batch) for size in value.shape]
        strides = [_at_batch(stride, batch) for stride in value.stride()]
        return torch.empty_strided(sizes, strides, dtype=value.dtype, device="meta")
    if isinstance(value, torch.SymInt):
        # One that became fixed during the capture has no symbols left.
        expression = value.node.expr
        return int(expression.subs(dict.fromkeys(expression.free_symbols, batch)))
    return value


def _open_or_fixed(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[GraphModule, bool]:
    """Export with an open batch; export again with a fixed one only where the first attempt does not settle that."""
    repeated = tuple(_at_least_two(tensor) for tensor in inputs)
    try:
        module = _export(model, repeated, open_batch=True)
    except ModelError:
        # The model may still take exactly the given batch; if not, the next export raises the reason.
        return _fixed(model, inputs)
    examples = [node.meta[VALUE] for node in module.graph.find_nodes(op="placeholder")]
    are_open = [bool(free_symbols(example.shape[0])) for example in examples if example.dim()]
    if examples[0].dim() and are_open[0]:
        return module, True
    is_given_batch = all(tensor is example for tensor, example in zip(inputs, repeated, strict=True))
    if is_given_batch and not any(are_open):
        return module, False
    return _fixed(model, inputs)


def _fixed(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[GraphModule, bool]:
    return _export(model, inputs, open_batch=False), False


def _registers_records(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Tell torch the dataclasses among a model's outputs, and return whether there are new ones."""
    try:
        with torch.inference_mode():
            return register_records(model(*inputs))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError):
        # The model itself fails, and its capture says so.
        return False


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


def _at_least_two(tensor: Tensor) -> Tensor:
    """Return the tensor with two rows where it has one: torch.export treats a batch of 1 as a constant."""
    return tensor.repeat(2, *[1] * (tensor.dim() - 1)) if tensor.dim() and tensor.shape[0] == 1 else tensor


def _export(model: nn.Module, inputs: tuple[Tensor, ...], *, open_batch: bool) -> GraphModule:
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    # By tensor and not by position, which torch reads differently in forward(self, *inputs).
    for tensor in inputs:
        shapes[tensor] = {0: torch.export.Dim.AUTO} if tensor.dim() and open_batch else {}
    try:
        # Without this, a no_grad() inside the model becomes a graph in the graph.
        with torch.no_grad():
            program = torch.export.export(model, inputs, dynamic_shapes=shapes)
            if open_batch and program._guards_code:
                raise ValueError("the graph holds for some batch sizes alone")
            _drop_dropouts(program.graph)
            program.graph_module.recompile()
            module = program.module(check_guards=False)
            if not _is_flat(module.graph) or not _write_nothing(module.graph):
                module = _functional(program).module(check_guards=False)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        name = type(model).__name__
        fix = "make its forward traceable (torch.export), or check the input size"
        raise ModelError(f"{name} cannot be captured", why=_first_line(error), fix=fix) from error
    return module


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


# ---- operators that write to their input --------------------------------------------------------------------------


def _is_flat(graph: Graph) -> bool:
    """Return whether no operator holds a graph of its own, as one under autocast() does."""
    return not any(isinstance(node.target, torch._ops.HigherOrderOperator) for node in graph.nodes)


def _drop_dropouts(graph: Graph) -> None:
    """Remove dropouts: in inference they return their input itself.

    Their schema does not declare that alias, so functionalization in torch misses it.
    """
    for node in graph.nodes:
        is_inert = is_call(node, *DROPOUTS) and not arguments(node)["train"]
        # An exported program refers to its outputs by name, so these stay.
        if is_inert and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Remove writes by torch's own decomposition; it is the second choice, because it respells other operators too."""
    with warnings.catch_warnings():
        # torch 2.13 copies its own tree specs and warns about it.
        warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
        functional: ExportedProgram = program.run_decompositions({})
    return functional


def _write_nothing(graph: Graph) -> bool:
    """Replace `relu_` by `relu`, and so on. Return False where the written tensor has an alias that is read later."""
    positions = {node: i for i, node in enumerate(graph.nodes)}
    writers = list(filter(writes, positions))
    owners = _owners(positions) if writers else {}
    for node in writers:
        written, twin = node.args[0], _functional_twin(node)
        if twin is None or not isinstance(written, Node) or _has_aliases(written, node, positions, owners):
            return False
        node.target = twin
        # The loop's own variables are bound: the callback runs at once, but a linter cannot know that.
        written.replace_all_uses_with(node, lambda user, node=node: positions[user] > positions[node])  # type: ignore[misc]
    return True


def _owners(nodes: Iterable[Node]) -> dict[int, list[Node]]:
    """Return the nodes whose tensors lie in each storage."""
    owners: dict[int, list[Node]] = {}
    for node in nodes:
        for storage in _storages(node):
            owners.setdefault(storage, []).append(node)
    return owners


def _has_aliases(written: Node, node: Node, positions: dict[Node, int], owners: dict[int, list[Node]]) -> bool:
    """Return whether the written storage belongs to the model or its caller, or is read through an alias later."""
    position = positions[node]
    sharing = dict.fromkeys(other for storage in _storages(written) for other in owners.get(storage, ()))
    aliases = [other for other in sharing if positions[other] < position]
    later = (user for alias in aliases if alias is not written for user in alias.users if positions[user] > position)
    return any(alias.op != "call_function" for alias in aliases) or any(later)


def _storages(node: Node) -> set[int]:
    """Return the storages of a node's tensors. A view shares its base's storage, even if both are fake tensors."""
    leaves = torch.utils._pytree.tree_leaves(node.meta.get(VALUE))
    return {leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor)}


def _functional_twin(node: Node) -> Any:
    """Return the operator that computes what `node` writes into a new tensor, or None."""
    name, overload = node.target._schema.name, node.target._schema.overload_name or "default"  # type: ignore[union-attr]
    packet = getattr(aten, name.removeprefix("aten::").removesuffix("_"), None) if name.startswith("aten::") else None
    twin: Any = getattr(packet, overload, None)
    if twin is None or twin._schema.is_mutable:
        return None
    args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda argument: argument.meta[VALUE])
    before = node.meta[VALUE]
    with contextlib.nullcontext() if before.is_meta else before.fake_mode:
        result = twin(*args, **kwargs)
    # float16 stays float16 when float32 is added in place, but not otherwise.
    return twin if (result.dtype, result.shape) == (before.dtype, before.shape) else None


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
