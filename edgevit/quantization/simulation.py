"""Simulation: what an int8 engine without overflow computes, as a network in float.

Every int8 number is written as a quantization and its reverse, in torch's own operators for them. Sums in float32 hold
products of int8 numbers almost exactly, so an engine that sums in 32-bit integers differs by rounding alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401, which registers the operators
from torch.fx import GraphModule, Node

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, origin
from edgevit.folding.graph import TRANSPOSED, arguments, aten, copied_graph, is_call
from edgevit.folding.values import ORIGIN, infer, set_constant
from edgevit.quantization.bias_correction import bias_correction
from edgevit.quantization.calibration import Calibration
from edgevit.quantization.palettes import Palette, palette_of
from edgevit.quantization.placement import Placement, input_axis, place, source_of
from edgevit.quantization.ranges import Grid, WeightSteps, grid_of_range, grid_of_values, weight_steps
from edgevit.records.quantization import Method
from edgevit_runtime.dialect import Dialect, Kind

quantized_decomposed = torch.ops.quantized_decomposed
QUANTIZE = quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = quantized_decomposed.dequantize_per_tensor.default
DEQUANTIZE_CHANNELS = quantized_decomposed.dequantize_per_channel.default
_DTYPES = {"uint8": torch.uint8, "int8": torch.int8}


class Simulator:
    """Makes networks that compute what a dialect's kernels compute. Weights are rounded once for all of them.

    corrects_biases: the biases of int8 layers make up for the mean error of their weights.
    """

    def __init__(
        self,
        folded: Folded,
        calibration: Calibration,
        dialect: Dialect,
        *,
        method: Method = "minmax",
        corrects_biases: bool = False,
    ) -> None:
        self.folded, self.calibration, self.dialect = folded, calibration, dialect
        self.method, self.corrects_biases = method, corrects_biases
        self.steps: dict[tuple[str, int, bool], WeightSteps | Palette] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """The nodes with weights that may run in int8, in order."""
        operators = place(self.folded.net.graph, self.dialect).operators
        return tuple(node.name for node, kind in operators.items() if kind != "add")

    def network(self, excluded: Collection[str] = ()) -> Folded:
        """Return the network as the kernels compute it; nodes named in `excluded` stay in float.

        Raises QuantizationError for a network that is not in float32.
        """
        return _Simulation(self, excluded).network()


class _Simulation:
    """A copy of a network's graph that gets its int8 numbers."""

    def __init__(self, simulator: Simulator, excluded: Collection[str]) -> None:
        self._of, self._dialect = simulator, simulator.dialect
        folded = simulator.folded
        self._net = GraphModule(folded.net, copied_graph(folded.net))
        self._placement: Placement = place(self._net.graph, self._dialect, excluded)
        self._weights: dict[tuple[str, int, bool], Node] = {}

    def network(self) -> Folded:
        """Return the network with quantizations."""
        placement = self._placement
        for node, kind in placement.operators.items():
            if kind != "add":
                self._quantize_weight(node, kind)
        readers = {tensor: tuple(tensor.users) for tensor in placement.results} | placement.edges
        # Behind a quantization, the source of a tensor that is only moved cannot be told any more.
        grids = {tensor: self._grid(tensor) for tensor in readers}
        others = {node: self._on_other_grids(node, grids[node]) for node in placement.joined}
        for tensor, grid in grids.items():
            self._quantize(tensor, grid, readers[tensor])
        for node, positions in others.items():
            operands = cast(Sequence[Node], node.args[0])
            for operand in {operands[position] for position in positions}:
                self._quantize(operand, grids[node], (node,))
        self._net.graph.eliminate_dead_code()
        self._net.graph.lint()
        # A network takes over what its graph refers to, and nothing else.
        return Folded(GraphModule(self._net, self._net.graph), self._of.folded.shapes, self._of.folded.report)

    def _on_other_grids(self, node: Node, grid: Grid) -> list[int]:
        """Return which operands of a concatenation have numbers that are not on its grid yet."""
        operands = enumerate(cast(Sequence[Node], node.args[0]))
        return [n for n, each in operands if source_of(each) not in self._placement.results or self._grid(each) != grid]

    def _grid(self, tensor: Node) -> Grid:
        source = source_of(tensor)
        if self._dialect.softmax and is_call(source, aten.softmax.int):
            return Grid(*self._dialect.softmax, *self._dialect.bounds)
        source = self._placement.sources.get(source, source) if source in self._placement.results else tensor
        observed = self._of.calibration.observed(source.name)
        if self._of.method == "mse":
            return grid_of_values(*observed.range, observed.values, self._dialect, stride=observed.stride)
        return grid_of_range(*observed.range, self._dialect)

    def _quantize(self, tensor: Node, grid: Grid, readers: Collection[Node]) -> None:
        dtype = _DTYPES[self._dialect.activations]
        numbers = (grid.scale, grid.zero_point, grid.lowest, grid.highest, dtype)
        with self._net.graph.inserting_after(tensor):
            steps = self._call(QUANTIZE, tensor, *numbers, like=tensor)
        with self._net.graph.inserting_after(steps):
            values = self._call(DEQUANTIZE, steps, *numbers, like=tensor)
        for reader in readers:
            reader.replace_input_with(tensor, values)

    def _quantize_weight(self, node: Node, kind: Kind) -> None:
        source = arguments(node)["weight"]
        axis, dialect = _weight_axis(node), self._dialect
        if axis is None:
            axis, dialect = 0, dataclasses.replace(dialect, per_channel=False)
        key, weight = (str(source.target), axis, dialect.per_channel), self._weight(source, node)
        if key not in self._of.steps:
            self._of.steps[key] = (
                palette_of(weight, dialect.palette)
                if dialect.palette
                else weight_steps(weight, axis, dialect, self._of.method)
            )
        steps = self._of.steps[key]
        if key not in self._weights:
            self._weights[key] = self._dequantized(source, node, steps)
        if self._of.corrects_biases:
            mean = self._of.calibration.observed(node.all_input_nodes[0].name, input_axis(node, kind)).mean
            self._correct_bias(node, bias_correction(node, weight, steps, mean))
        node.replace_input_with(source, self._weights[key])

    def _correct_bias(self, node: Node, correction: Tensor | None) -> None:
        """Give a layer a bias of its own."""
        if correction is None:
            return
        named = arguments(node)
        bias = correction if named["bias"] is None else constant(self._net, named["bias"]).double() + correction
        with self._net.graph.inserting_before(node):
            corrected = self._constant(f"{node.name}_bias", bias.float())
        node.args, node.kwargs = (*node.args[:2], corrected, *node.args[3:]), dict(node.kwargs)

    def _weight(self, source: Node, node: Node) -> Tensor:
        weight = constant(self._net, source)
        if weight.dtype == torch.float32:
            return weight
        raise QuantizationError(
            "int8 starts from a network in float32",
            where=origin(node),
            why=f"these weights are {str(weight.dtype).removeprefix('torch.')}",
            fix="model.float()",
        )

    def _dequantized(self, source: Node, node: Node, weight: WeightSteps | Palette) -> Node:
        stem = str(source.target).replace(".", "_")
        with self._net.graph.inserting_before(source):
            if isinstance(weight, Palette):
                return self._constant(f"{stem}_palettized", weight.dequantized().float())
            constants = [
                self._constant(f"{stem}_{name}", tensor)
                for name, tensor in (
                    ("int8", weight.steps),
                    ("scale", weight.scales),
                    ("zero_point", torch.zeros(len(weight.scales), dtype=torch.int64)),
                )
            ]
            numbers = (weight.axis, -weight.largest, weight.largest, torch.int8)
            return self._call(DEQUANTIZE_CHANNELS, *constants, *numbers, like=node)

    def _constant(self, name: str, tensor: Tensor) -> Node:
        while hasattr(self._net, name):
            name += "_"
        self._net.register_buffer(name, tensor)
        node = self._net.graph.get_attr(name)
        set_constant(node, tensor)
        return node

    def _call(self, target: Callable[..., Any], *inputs: Any, like: Node) -> Node:
        node = self._net.graph.call_function(target, inputs)
        node.meta[ORIGIN] = like.meta.get(ORIGIN, "")
        infer(node)
        return node


def _weight_axis(node: Node) -> int | None:
    """Return the axis of a weight's output channels; None where groups divide it."""
    if is_call(node, *TRANSPOSED):
        return 1 if arguments(node)["groups"] == 1 else None
    return 0


def constant(net: GraphModule, node: Node) -> Tensor:
    """Return the tensor that a node of a network takes from it."""
    value: Any = net
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value
