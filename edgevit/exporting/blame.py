"""Names the operator that a converter refuses or gets wrong, by converting each operator of the network alone."""

from __future__ import annotations

import operator
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from edgevit.concurrency.scratch import scratch_folder
from edgevit.errors import ArtifactError, ExportError
from edgevit.folding import Folded, FoldReport, origin
from edgevit.verification import GATES, Samples
from edgevit.verification.compare import compare
from edgevit.verification.engine import compute
from edgevit_runtime.record import RecipeModule

_TIMEOUT_S = 60.0  # of the search: a network has hundreds of operators


@dataclass(frozen=True)
class Alone:
    """One operator of a network, with the numbers that it reads in it, as a network of its own."""

    label: str
    module: Folded
    inputs: dict[str, Tensor]


@dataclass(frozen=True)
class RefusedOperator:
    """An operator that a converter refuses alone: `aten.topk of module head`, and the converter's reason there.

    reason: empty where the converter raised it at the same line of its code as for the whole network.
    """

    label: str
    reason: str


def refused_operator(
    model: Folded, recipe: RecipeModule, inputs: Mapping[str, Tensor], precision: str, whole: ExportError
) -> RefusedOperator | None:
    """Return the first operator that the converter refuses alone where it refused the whole network; None without one.

    Some operators are refused only because they stand alone. So one that is refused at another line of the converter
    counts only where no operator is refused at the same line.
    """
    other: RefusedOperator | None = None
    for alone in _within_time(operators_alone(model, inputs)):
        with scratch_folder("blame") as folder:
            try:
                _convert(alone, recipe, Path(folder), precision)
            except ExportError as error:
                if _raised_at(error) == _raised_at(whole):
                    return RefusedOperator(alone.label, "")
                other = other or RefusedOperator(alone.label, error.why)
    return other


def root_cause(error: BaseException) -> BaseException:
    """Return the error that tells most: a converter's own exception says that something failed, and its cause what."""
    while error.__cause__ is not None and type(error).__module__ != "builtins":
        error = error.__cause__
    return error


def _raised_at(error: ExportError) -> tuple[str, int]:
    """Return the file and the line where a converter's error was raised."""
    cause = root_cause(error)
    frames = traceback.extract_tb(cause.__traceback__)
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)


def wrong_operator(
    model: Folded, recipe: RecipeModule, sample: Mapping[str, Tensor], precision: str, *, engine_failed: bool
) -> str:
    """Return the first operator that the finished payload gets wrong alone, on the numbers it has in the network.

    engine_failed: the engine could not run the whole, so an operator that it cannot run alone is meant too.
    """
    target = recipe.RECIPE.target
    for alone in _within_time(operators_alone(model, sample)):
        arrays = tuple(tensor.numpy() for tensor in alone.inputs.values())
        samples = Samples((arrays,), "", arrays[0].shape[0] if arrays[0].ndim else 1)
        with torch.inference_mode():
            expected = torch.utils._pytree.tree_leaves(alone.module(*alone.inputs.values()))
        if not all(leaf.is_floating_point() for leaf in expected):
            continue
        with scratch_folder("blame") as folder:
            try:
                payload = _convert(alone, recipe, Path(folder), precision)
                computed = compute(target, payload, samples, threads=1)
            except ExportError:
                # Alone it cannot be judged.
                continue
            except ArtifactError:
                if engine_failed:
                    return alone.label
                continue
            reference = [tuple(leaf.float().numpy() for leaf in expected)]
            if computed.results and not compare("", "", reference, computed.results, GATES[precision]).passed:
                return alone.label
    return ""


def _convert(alone: Alone, recipe: RecipeModule, folder: Path, precision: str) -> Path:
    from edgevit.exporting.convert import convert_alone

    payload = folder / f"alone{recipe.RECIPE.suffix}"
    convert_alone(alone.module, recipe, payload, inputs=alone.inputs, precision=precision)
    return payload


def _within_time(operators: Iterator[Alone]) -> Iterator[Alone]:
    end = time.monotonic() + _TIMEOUT_S
    for alone in operators:
        yield alone
        if time.monotonic() > end:
            return


def operators_alone(model: Folded, inputs: Mapping[str, Tensor]) -> Iterator[Alone]:
    """Yield every operator of a network that reads floating tensors, once for each form of its arguments."""
    values = _Recorder(model.net)
    with torch.inference_mode():
        values.run(*inputs.values())
    visited = set[str]()
    for node in model.net.graph.nodes:
        read = [source for source in node.all_input_nodes if source.op != "get_attr"]
        tensors = [values.env_of[source] for source in read]
        if node.op != "call_function" or node.target is operator.getitem or not tensors:
            continue
        parts = result if isinstance(result := values.env_of[node], (tuple, list)) else (result,)
        if not all(isinstance(value, Tensor) for value in (*tensors, *parts)):
            continue
        key = f"{node.target} {[(tensor.shape, tensor.dtype) for tensor in tensors]} {_written(node)}"
        if key not in visited:
            visited.add(key)
            yield _alone(model.net, node, dict(zip(read, tensors, strict=True)), result)


def _written(node: Node) -> str:
    """Return a call's arguments with the shapes of constants in their place."""
    return str(torch.fx.map_arg((node.args, dict(node.kwargs)), lambda source: source.op == "get_attr"))


class _Recorder(Interpreter):
    """Runs a network and keeps every value."""

    def __init__(self, net: GraphModule) -> None:
        super().__init__(net, garbage_collect_values=False)
        self.env_of: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node and keep its value."""
        self.env_of[n] = super().run_node(n)
        return self.env_of[n]


def _alone(net: GraphModule, node: Node, tensors: dict[Node, Tensor], result: Any) -> Alone:
    graph = Graph()
    copies = {source: graph.placeholder(f"input{i}") for i, source in enumerate(tensors)}
    for source in node.all_input_nodes:
        if source not in copies:
            copies[source] = graph.get_attr(str(source.target))
        # Its sizes, which the spelling of a call asks for.
        copies[source].meta = dict(source.meta)
    call = graph.node_copy(node, lambda source: copies[source])
    if isinstance(result, Tensor):
        graph.output((call,))
    else:
        # Of several results those that the network reads: a converter may refuse the type of another.
        parts = dict.fromkeys(reader.args[1] for reader in node.users if reader.target is operator.getitem)
        graph.output(tuple(graph.call_function(operator.getitem, (call, part)) for part in parts or range(len(result))))
    module = GraphModule(net, graph)
    name = str(node.target).removesuffix(".default")
    # Laid out as inputs of a network are.
    inputs = {f"input{i}": tensor.contiguous() for i, tensor in enumerate(tensors.values())}
    shapes = tuple(tuple(tensor.shape) for tensor in tensors.values())
    return Alone(f"{name} of module {origin(node)}", Folded(module, shapes, FoldReport({}, (), False)), inputs)
