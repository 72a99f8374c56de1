"""Any module as a Net: torch.export, then one spelling for whatever ATen can spell in several ways.

What this promises to the rewrites: no operator writes to a tensor that another one reads, none depends on how a tensor
lies in memory, and none insists on the dtype or device it was captured with. torch.export promises none of these.
"""

from __future__ import annotations

import operator
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from edgevit.errors import ModelError
from edgevit.folding.graph import (
    BATCH_NORM,
    CONVOLUTION,
    DROPOUTS,
    Net,
    arguments,
    aten,
    is_call,
    pair,
    size_of,
    writes,
)


def capture(model: nn.Module, inputs: tuple[Tensor, ...]) -> Net:
    """Export a model in eval mode to ATen operators. The batch stays open where the model allows it.

    Raises ModelError with torch's reason where the model cannot be captured.
    """
    if not inputs:
        raise ModelError(f"{type(model).__name__} cannot be captured", why="it was given no inputs")
    module, is_open = _open_or_fixed(model, inputs)
    _respell(module.graph)
    floating = (tensor.dtype for tensor in model.parameters() if tensor.is_floating_point())
    return Net(GraphModule(module, module.graph), next(floating, torch.float32), is_open)


def _open_or_fixed(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[GraphModule, bool]:
    try:
        module = _export(model, tuple(_at_least_two(item) for item in inputs), open_batch=True)
        first = next(iter(module.graph.find_nodes(op="placeholder"))).meta["val"]
        if first.dim() > 0 and size_of(first.shape[0]) == -1:
            return module, True
    except ModelError:  # it may still take just the batch it was given; if not, the next line says why
        pass
    return _export(model, inputs, open_batch=False), False


def _at_least_two(tensor: Tensor) -> Tensor:
    """torch.export takes a batch of 1 for a constant; two rows keep it open."""
    return tensor.repeat(2, *[1] * (tensor.dim() - 1)) if tensor.dim() and tensor.shape[0] == 1 else tensor


def _export(model: nn.Module, inputs: tuple[Tensor, ...], *, open_batch: bool) -> GraphModule:
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for item in inputs:  # by tensor and not by position, which torch reads otherwise in forward(self, *inputs)
        shapes[item] = {0: torch.export.Dim.AUTO} if item.dim() and open_batch else {}
    try:
        with torch.no_grad():  # else a no_grad() inside the model becomes a graph in the graph
            program = torch.export.export(model, inputs, dynamic_shapes=shapes)
            _drop_dropouts(program)
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
    """Whether no operator holds a graph of its own, as one under autocast() does."""
    return not any(isinstance(node.target, torch._ops.HigherOrderOperator) for node in graph.nodes)


def _drop_dropouts(program: ExportedProgram) -> None:
    """In inference they return their input itself, which their schema does not say (so torch's own way misses it)."""
    for node in program.graph.nodes:
        drops = is_call(node, *DROPOUTS) and not arguments(node)["train"]
        if drops and not any(user.op == "output" for user in node.users):  # outputs are known to a program by name
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    program.graph_module.recompile()


def _functional(program: ExportedProgram) -> ExportedProgram:
    """torch's own way to take writes out. It is exact, but spells more than that differently: our second choice."""
    with warnings.catch_warnings():
        # torch 2.13 copies its own tree specs and warns of itself while it does.
        warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
        functional: ExportedProgram = program.run_decompositions({})
    return functional


def _write_nothing(graph: Graph) -> bool:
    """Let `relu_` be `relu`, and so on; False where the tensor it writes to is known by another name afterwards."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    for node in filter(writes, place):
        written, twin = node.args[0], _twin(node)
        if twin is None or not isinstance(written, Node) or _has_other_names(written, node, place):
            return False
        node.target = twin
        # The loop's own variables are bound: the callback runs at once, but a linter cannot know.
        written.replace_all_uses_with(node, lambda user, node=node: place[user] > place[node])  # type: ignore[misc]
    return True


def _has_other_names(written: Node, node: Node, place: dict[Node, int]) -> bool:
    """Whether the storage a node writes to belongs to the model or its caller, or is read under other names later."""
    earlier = [other for other in place if place[other] < place[node] and _storages(other) & _storages(written)]
    later = (user for name in earlier if name is not written for user in name.users if place[user] > place[node])
    return any(name.op != "call_function" for name in earlier) or any(later)


def _storages(node: Node) -> set[int]:
    """What its tensors lie in. A view lies in what it is a view of, and so do the fake tensors of a capture."""
    leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return {leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor)}


def _twin(node: Node) -> Any:
    """The operator that gives what `node` writes, in a tensor of its own; None if there is no such one."""
    name, overload = node.target._schema.name, node.target._schema.overload_name or "default"  # type: ignore[union-attr]
    packet = getattr(aten, name.removeprefix("aten::").removesuffix("_"), None) if name.startswith("aten::") else None
    twin: Any = getattr(packet, overload, None)
    if twin is None or twin._schema.is_mutable:
        return None
    arguments = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda item: item.meta["val"])
    with node.meta["val"].fake_mode:
        result = twin(*arguments[0], **arguments[1])
    before = node.meta["val"]  # float16 stays float16 when float32 is added in place, but not otherwise
    return twin if (result.dtype, result.shape) == (before.dtype, before.shape) else None


# ---- one spelling -------------------------------------------------------------------------------------------------


def _respell(graph: Graph) -> None:
    for node in list(graph.nodes):
        if is_call(node, aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # a view may refuse a layout that a rewrite or a weight's layout gives
        elif is_call(node, aten.conv2d.padding):
            _spell_padding(node)
        elif is_call(node, aten._native_batch_norm_legit_no_training.default):
            _spell_norm(graph, node)
        elif is_call(node, aten._assert_tensor_metadata.default):
            graph.erase_node(node)  # would refuse the folded network in another dtype or on another device


def _spell_padding(node: Node) -> None:
    """'same' and 'valid' as numbers, where both sides of an axis get as much."""
    named = arguments(node)
    size, dilation = named["weight"].meta["val"].shape[2:], pair(named["dilation"])
    total = [d * (s - 1) if named["padding"] == "same" else 0 for d, s in zip(dilation, size, strict=True)]
    if not any(both % 2 for both in total):
        geometry = (list(pair(named["stride"])), [both // 2 for both in total], list(dilation))
        node.target, node.kwargs = CONVOLUTION, {}
        node.args = (named["input"], named["weight"], named["bias"], *geometry, named["groups"])


def _spell_norm(graph: Graph, node: Node) -> None:
    """A BatchNorm in inference as `batch_norm`, with one output instead of three."""
    if not all(is_call(user, operator.getitem) and user.args[1] == 0 for user in node.users):
        return
    source, weight, bias, mean, var, momentum, eps = node.args
    with graph.inserting_before(node):
        norm = graph.call_function(BATCH_NORM, (source, weight, bias, mean, var, False, momentum, eps, False))
    norm.meta = {**node.meta, "val": node.meta["val"][0]}
    for user in list(node.users):
        user.replace_all_uses_with(norm)
        graph.erase_node(user)
    graph.erase_node(node)
