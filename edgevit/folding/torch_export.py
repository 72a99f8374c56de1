"""Capture by torch.export, of models that no recording shows and of those for one batch size alone."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import free_symbols, free_unbacked_symbols

from edgevit.errors import ModelError
from edgevit.folding.agreement import register_records
from edgevit.folding.in_place import drop_dropouts, write_nothing
from edgevit.folding.model_code import FAILURES, ModelCode, first_line
from edgevit.folding.plain_modules import require_dense
from edgevit.folding.values import BATCHES, ORIGIN, OTHER, VALUE
from edgevit.folding.watched_builtins import types_watched

_LINE = re.compile(r'File "(.+)", line (\d+)')
# Functions and modules of torch on the way from a model that makes a text to a size in it.
_TEXTS = ("__repr__", "__str__", "__format__", "_graph_repr", "__torch_function__", "handle_torch_function")
_TEXTS_OF_TENSORS = ("torch._tensor_str", "torch._tensor")


def exported(model: nn.Module, inputs: tuple[Tensor, ...], *, open_batch: bool) -> tuple[GraphModule, bool]:
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
        # A tensor by coordinates may become dense in the graph. Others have no strides that a value could have.
        if isinstance(value, Tensor) and value.layout != torch.sparse_coo:
            require_dense(str(node.target), value)
        paths = [str(path).partition("@")[0] for path, _ in stack.values()]
        lines = _LINE.findall(node.meta.get("stack_trace") or "")
        line = ":".join((Path(lines[-1][0]).name, lines[-1][1])) if lines else ""
        node.meta |= {ORIGIN: (paths[-1] if paths else "") or line}
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
        numbers: dict[Any, int] = dict.fromkeys(expression.free_symbols, batch)
        for number, symbol in enumerate(sorted(free_unbacked_symbols(value), key=str)):
            # A size that values decide is no multiple of the batch.
            numbers[symbol] = 10_007 + batch + number
        return int(expression.subs(numbers))
    return value


def _open_or_fixed(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[GraphModule, bool]:
    """Export with an open batch; export again with a fixed one only where the first attempt does not settle that."""
    rows = inputs[0].shape[:1]
    repeated = tuple(_at_least_two(tensor) if tensor.shape[:1] == rows else tensor for tensor in inputs)
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
        with torch.inference_mode(), ModelCode():
            return register_records(model(*inputs))
    except FAILURES:
        # The model itself fails, and its capture says so.
        return False


def _at_least_two(tensor: Tensor) -> Tensor:
    """Return the tensor with two rows where it has one: torch.export treats a batch of 1 as a constant."""
    return tensor.repeat(2, *[1] * (tensor.dim() - 1)) if tensor.dim() and tensor.shape[0] == 1 else tensor


def _export(model: nn.Module, inputs: tuple[Tensor, ...], *, open_batch: bool) -> GraphModule:
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    # By tensor and not by position, which torch reads differently in forward(self, *inputs).
    for tensor in inputs:
        follows_batch = tensor.dim() and inputs[0].dim() and tensor.shape[0] == inputs[0].shape[0]
        shapes[tensor] = {0: torch.export.Dim.AUTO} if follows_batch and open_batch else {}
    try:
        # Without this, a no_grad() inside the model becomes a graph in the graph.
        with torch.no_grad(), ModelCode(), types_watched(), _texts_of_sizes() as texts:
            program = torch.export.export(model, inputs, dynamic_shapes=shapes)
            if open_batch and (program._guards_code or texts):
                raise ValueError("the graph holds for some batch sizes alone")
            drop_dropouts(program.graph)
            program.graph_module.recompile()
            module = program.module(check_guards=False)
            if not _is_flat(module.graph) or not write_nothing(module.graph):
                module = _functional(program).module(check_guards=False)
    except FAILURES as error:
        name = type(model).__name__
        fix = "make its forward traceable (torch.export), or check the input size"
        raise ModelError(f"{name} cannot be captured", why=first_line(error), fix=fix) from error
    return module


@contextmanager
def _texts_of_sizes() -> Iterator[list[str]]:
    """Collect the texts that the model itself makes of open sizes: they show a symbol, not the number."""
    texts: list[str] = []
    original = SymNode.str

    def noted(node: SymNode) -> str:
        text = original(node)
        if not _is_of_torch(sys._getframe(1)):
            texts.append(text)
        return text

    SymNode.str = noted  # type: ignore[method-assign,assignment]
    try:
        yield texts
    finally:
        SymNode.str = original  # type: ignore[method-assign]


def _is_of_torch(frame: Any) -> bool:
    """Return whether torch asks for a text for itself, and not on its way from a model to a size."""
    while frame is not None and (frame.f_code.co_name in _TEXTS or _module(frame) in _TEXTS_OF_TENSORS):
        frame = frame.f_back
    return frame is None or _module(frame).partition(".")[0] == "torch"


def _module(frame: Any) -> str:
    return str(frame.f_globals.get("__name__"))


def _is_flat(graph: Graph) -> bool:
    """Return whether every call stands for itself: none holds a graph, as under autocast(), or a part of a vmap()."""
    return not any(
        isinstance(node.target, torch._ops.HigherOrderOperator)
        or getattr(node.target, "__module__", "").startswith("torch._functorch")
        for node in graph.nodes
        if node.op == "call_function"
    )


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Remove writes by torch's own decomposition; it is the second choice, because it respells other operators too."""
    with warnings.catch_warnings():
        # torch 2.13 copies its own tree specs and warns about it.
        warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
        functional: ExportedProgram = program.run_decompositions({})
    return functional
