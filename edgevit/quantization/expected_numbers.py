"""Numbers that a file in int8 has to state: those of the simulation that it is made of."""

from __future__ import annotations

from edgevit.folding import Folded, origin
from edgevit.quantization.simulation import DEQUANTIZE_CHANNELS, QUANTIZE, constant
from edgevit_runtime.stated_numbers import StatedNumbers, StatedWeight


def expected_numbers(simulation: Folded) -> StatedNumbers:
    """Return the weights in int8 of a simulation by the layers that read them, and the grids of its activations."""
    net, weights = simulation.net, []
    for node in net.graph.find_nodes(op="call_function", target=DEQUANTIZE_CHANNELS):
        steps, scales = (constant(net, each) for each in node.args[:2])
        rows = steps.movedim(node.args[3], 0).flatten(1)
        weights.append(StatedWeight(origin(next(iter(node.users))), rows.numpy(), scales.numpy()))
    nodes = net.graph.find_nodes(op="call_function", target=QUANTIZE)
    return StatedNumbers(tuple(weights), frozenset((float(node.args[1]), int(node.args[2])) for node in nodes))
