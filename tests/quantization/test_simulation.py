"""The simulation against integer arithmetic, and where its int8 numbers are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, fold
from edgevit.folding.graph import arguments, is_call
from edgevit.quantization import Dialect, Simulator, calibrate
from edgevit.quantization.placement import place, watched
from edgevit.quantization.simulation import DEQUANTIZE, DEQUANTIZE_CHANNELS, QUANTIZE
from edgevit_runtime.quantized_graph import plain_arithmetic
from support.fold_cases import chain, conv
from support.nets import Toy

UINT8 = Dialect()
DIALECTS = {
    "uint8": UINT8,
    "int8": Dialect("int8"),
    "symmetric": Dialect("int8", symmetric=True),
    "symmetric to the end": Dialect("int8", symmetric=True, lowest=-127),
    "narrow": Dialect(largest_weight=64),
}


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ready(model: nn.Module, *inputs: Tensor) -> Folded:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fold(model.eval(), inputs)


def simulator(net: Folded, *inputs: Tensor, dialect: Dialect = UINT8, **options: Any) -> Simulator:
    return Simulator(net, calibrate(net, [inputs], watched(net.net.graph)), dialect, **options)


def residual() -> nn.Module:
    return Toy(
        lambda net, x: net.head(F.max_pool2d(F.relu(net.second(y := F.relu(net.first(x)))) + y, 2).mean((2, 3))),
        first=conv(3, 8, 3, padding=1), second=conv(8, 8, 3, padding=1, groups=8), head=nn.Linear(8, 5),
    )  # fmt: skip


X = noise(2, 3, 8, 8)


class Integers:
    """Integer arithmetic on the steps of a simulation, as an engine does it: sums of products of integers, rescaled."""

    def __init__(self, simulation: Folded) -> None:
        self.net = simulation.net

    def run(self, *inputs: Tensor) -> Tensor:
        values: dict[Any, Any] = {}
        given = iter(inputs)
        for node in self.net.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given).double()
            elif node.op == "get_attr":
                values[node] = getattr(self.net, str(node.target)) if "." not in str(node.target) else None
            elif node.op == "output":
                [result] = torch.fx.map_arg(node.args[0], values.get)
                assert isinstance(result, Tensor)
                return result
            elif node.target is QUANTIZE:
                x, scale, zero_point, lowest, highest, _ = node.args
                values[node] = (torch.round(values[x] / scale) + zero_point).clamp(lowest, highest)
            elif is_call(node, DEQUANTIZE_CHANNELS):
                steps, scales, _, axis, *_ = node.args
                values[node] = (values[steps], values[scales], axis)
            elif str(node.target).startswith("quantized_decomposed.dequantize"):
                values[node] = (values[node.args[0]] - node.args[2]) * node.args[1]
            elif is_call(node, torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
                values[node] = self.layer(node, values)
            else:
                args = torch.fx.map_arg(node.args, values.get)
                values[node] = node.target(*args, **node.kwargs)
        raise AssertionError

    def layer(self, node: Any, values: dict[Any, Any]) -> Tensor:
        """Sum products of integers, then rescale."""
        named = arguments(node)
        quantized = node.args[0].args[0]
        scale, zero_point = quantized.args[1:3]
        steps, scales, axis = values[named["weight"]]
        assert axis == 0
        integers = values[quantized] - zero_point
        bias = torch.zeros(len(scales))
        if named["bias"] is not None:
            bias = self.net.get_parameter(str(named["bias"].target)).double()
        if is_call(node, torch.ops.aten.linear.default):
            product: Tensor = F.linear(integers, steps.double()) * (scale * scales.double()) + bias
            return product
        geometry = {name: named[name] for name in ("stride", "padding", "dilation", "groups")}
        rescale = (scale * scales.double()).reshape(-1, 1, 1)
        result: Tensor = F.conv2d(integers, steps.double(), None, **geometry) * rescale + bias.reshape(-1, 1, 1)
        return result


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_the_simulation_computes_what_integers_compute(dialect: Dialect) -> None:
    net = ready(residual(), X)
    simulation = simulator(net, X, dialect=dialect).network()
    with torch.no_grad():
        simulated, exact = simulation(X).double(), Integers(simulation).run(X)
        plain = net(X).double()
    # A tie is rounded by the last bit of a float32: a step of the last tensor at most.
    step = [node.args[1] for node in simulation.net.graph.nodes if node.target is QUANTIZE][-1]
    assert float((simulated - exact).abs().max()) < 1.01 * step
    assert float((simulated - exact).abs().mean()) < 0.02 * float((simulated - plain).abs().mean())
    assert 20 < 10 * torch.log10(plain.square().sum() / (simulated - plain).square().sum()) < 60


def test_excluded_layers_stay_in_float_with_their_weights() -> None:
    net = ready(residual(), X)
    simulating = simulator(net, X)
    first, second, head = simulating.layers
    simulation = simulating.network({second})
    weights = {node.name: node.args[1].op for node in simulation.net.graph.nodes if node.name in simulating.layers}
    assert weights == {first: "call_function", second: "get_attr", head: "call_function"}
    assert torch.equal(simulating.network(set(simulating.layers))(X), net(X)), "nothing is left in int8"


def test_numbers_that_are_only_moved_keep_their_grid() -> None:
    """So an engine moves int8 numbers, and rounds none of them twice."""
    model = chain(conv(3, 4), nn.MaxPool2d(2), nn.Flatten(2), nn.Flatten(1), nn.Linear(64, 5))
    net = ready(model, X)
    grids = [node.args[1:3] for node in simulator(net, X).network().net.graph.nodes if node.target is QUANTIZE]
    image, result, flat, logits = grids
    assert flat == result and len({image, result, logits}) == 3


def test_a_sum_is_in_int8_where_both_operands_are() -> None:
    net = ready(residual(), X)
    assert "add" in place(net.net.graph, Dialect()).operators.values()
    mixed = Toy(lambda net, x: net.second(F.gelu(net.first(x)) + x), first=conv(3, 3), second=conv(3, 3))
    assert "add" not in place(ready(mixed, X).net.graph, Dialect()).operators.values()
    half = Toy(lambda net, x: net.second(F.gelu(y := net.first(x)) + y), first=conv(3, 3), second=conv(3, 3))
    assert "add" not in place(ready(half, X).net.graph, Dialect()).operators.values()


def test_an_activation_that_clips_belongs_to_the_kernel() -> None:
    net = ready(chain(conv(3, 4), nn.ReLU(), conv(4, 4), nn.GELU(), conv(4, 2)), X)
    results = [str(node.target) for node in place(net.net.graph, Dialect()).results]
    assert results == ["aten.relu.default", "aten.conv2d.default", "aten.conv2d.default"]


def test_a_result_that_others_read_too_is_int8_ahead_of_the_activation() -> None:
    model = Toy(lambda net, x: net.b(F.relu(y := net.a(x))) + F.gelu(y), a=conv(3, 4), b=conv(4, 4))
    results = [str(node.target) for node in place(ready(model, X).net.graph, Dialect()).results]
    assert results == ["aten.conv2d.default"] * 2


def test_a_dialect_decides_which_layers_are_in_int8_and_whose_results_are() -> None:
    net = ready(residual(), X)
    depthwise_in_float = simulator(net, X, dialect=Dialect(operators=("convolution", "linear", "add")))
    assert len(depthwise_in_float.layers) == 2
    placement = place(net.net.graph, Dialect(requantized=("convolution",)))
    assert [str(node.target) for node in placement.results] == ["aten.relu.default"]


def test_a_dialect_tells_grouped_layers_and_those_of_signals_apart() -> None:
    grouped = chain(conv(8, 8, groups=2), nn.ReLU(), conv(8, 4), nn.ReLU(), conv(4, 8, groups=4))
    x = noise(1, 8, 6, 6)
    graph = ready(grouped, x).net.graph
    assert list(place(graph, Dialect()).operators.values()) == ["grouped", "convolution", "depthwise"]
    assert len(place(graph, Dialect(operators=("convolution",))).operators) == 1
    signals = ready(chain(nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Linear(6, 5)), noise(1, 4, 8))
    assert list(place(signals.net.graph, Dialect()).operators.values()) == ["convolution", "linear"]
    assert list(place(signals.net.graph, Dialect(maps=(2,))).operators.values()) == ["linear"]


def test_where_no_kernel_gives_int8_each_layer_rounds_what_it_reads() -> None:
    net = ready(residual(), X)
    dialect = Dialect("int8", symmetric=True, operators=("convolution", "linear"), requantized=())
    placement = place(net.net.graph, dialect)
    assert placement.results == () and len(placement.edges) == len(placement.operators) == 2
    simulation = simulator(net, X, dialect=dialect).network()
    readers = [user for node in simulation.net.graph.nodes if node.target is DEQUANTIZE for user in node.users]
    assert [str(reader.target) for reader in readers] == ["aten.conv2d.default", "aten.linear.default"]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_plain_arithmetic_computes_the_simulation_to_the_bit(dialect: Dialect) -> None:
    simulation = simulator(ready(residual(), X), X, dialect=dialect).network()
    plain = plain_arithmetic(simulation)
    assert not any("quantized" in str(node.target) for node in plain.net.graph.nodes)
    assert any("quantized" in str(node.target) for node in simulation.net.graph.nodes)
    with torch.no_grad():
        assert torch.equal(plain(X), simulation(X))


def test_weights_that_are_used_twice_are_rounded_once() -> None:
    shared = Toy(lambda net, x: net.layer(net.layer(x)), layer=conv(3, 3))
    simulation = simulator(ready(shared, X), X).network()
    assert sum(node.target is DEQUANTIZE_CHANNELS for node in simulation.net.graph.nodes) == 1


@pytest.mark.parametrize("layer", [
    nn.ConvTranspose2d(3, 4, 2), nn.Conv2d(3, 6, (1, 3), padding="same"), nn.ConvTranspose2d(3, 6, 2, groups=3),
], ids=["transposed", "same", "transposed in groups"])  # fmt: skip
def test_every_kind_of_layer_has_steps_along_its_outputs(layer: nn.Conv2d) -> None:
    net = ready(chain(layer, nn.ReLU()), X)
    simulation = simulator(net, X).network()
    with torch.no_grad():
        noise = (simulation(X) - net(X)).square().mean() / net(X).square().mean()
    assert 0 < float(noise) < 1e-3
    [dequantize] = [node for node in simulation.net.graph.nodes if node.target is DEQUANTIZE_CHANNELS]
    scales = simulation.net.get_buffer(str(dequantize.args[1].target))
    in_groups = layer.groups > 1
    assert len(scales) == (layer.in_channels if in_groups else layer.out_channels)
    assert (len(set(scales.tolist())) == 1) == in_groups


def test_a_network_in_another_precision_is_refused() -> None:
    model = chain(conv(3, 4), nn.ReLU()).double().eval()
    net = fold(model, (X.double(),))
    with pytest.raises(QuantizationError, match="float32") as refused:
        simulator(net, X.double()).network()
    assert "float64" in str(refused.value) and refused.value.fix == "model.float()"


def test_a_corrected_bias_makes_up_for_the_mean_error_of_the_weights() -> None:
    """Of inputs with a mean of 3, rounded weights shift each output; the bias takes that back."""
    inputs = X + 3
    net = ready(chain(conv(3, 16), nn.GELU(), conv(16, 8)), inputs)
    plain, corrected = (simulator(net, inputs, corrects_biases=each).network() for each in (False, True))
    with torch.no_grad():
        shifts = [float((network(inputs) - net(inputs)).mean((0, 2, 3)).abs().mean()) for network in (plain, corrected)]
    assert shifts[1] < 0.5 * shifts[0]
    untouched = simulator(net, inputs, corrects_biases=True)
    assert torch.equal(untouched.network(set(untouched.layers))(inputs), net(inputs)), "float layers keep theirs"


def test_a_network_may_end_in_float() -> None:
    """A result that leaves the network, moved or not, stays as the kernel sums it; one that is also read does not."""

    def compute(net: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner = F.relu(net.first(x))
        return inner, net.second(inner).flatten(1), net.head(inner.mean((2, 3)))

    layers = {"first": conv(3, 8, 3), "second": conv(8, 4, 1), "head": nn.Linear(8, 5)}
    net = ready(Toy(compute, **layers), X)
    simulations = [simulator(net, X, dialect=Dialect(ends_in_float=ends)).network() for ends in (False, True)]
    counts = [sum(node.target is QUANTIZE for node in simulation.net.graph.nodes) for simulation in simulations]
    # The input, the inner map, the mean, and the ends of two layers.
    assert counts == [5, 3]
    with torch.no_grad():
        inner, *ends = simulations[1](X)
        assert torch.equal(inner, simulations[0](X)[0])
        assert all(len(end.unique()) > 0.9 * end.numel() for end in ends) and len(inner.unique()) <= 256
