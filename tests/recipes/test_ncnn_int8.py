"""Precision int8 of target ncnn: its own writer, the options of load(), and damage that verification finds."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.errors import ExportError, ParityError
from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject
from edgevit.folding import Folded, fold
from edgevit.quantization import Simulator, calibrate
from edgevit.quantization.placement import watched
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit_runtime.ncnn_int8 import Layer, in_int8, read_layers, write_layers
from edgevit_runtime.quantized_graph import Int8Weight, int8_weights
from support.nets import Toy, image
from support.subjects import as_subject

pytestmark = pytest.mark.ncnn
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")
RECIPE: Any = load_recipe("ncnn")
PARAM, BIN = "model.ncnn.param", "model.ncnn.bin"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def compute(net: Any, x: Tensor) -> Tensor:
    """Compute maps, a residual, rows of tokens between norms, and a head."""
    x = net.stem(x).relu()
    x = x + net.narrow(net.depthwise(net.wide(x).relu()))
    rows = F.gelu(net.rows(net.norm(x.flatten(2).transpose(1, 2))))
    result: Tensor = net.head(rows.mean(1))
    return result


def network() -> nn.Module:
    torch.manual_seed(0)
    return Toy(
        compute,
        stem=nn.Conv2d(3, 8, 3, 2, 1),
        wide=nn.Conv2d(8, 12, 3, padding=1),
        depthwise=nn.Conv2d(12, 12, 3, padding=1, groups=12),
        narrow=nn.Conv2d(12, 8, 1),
        norm=nn.LayerNorm(8),
        rows=nn.Linear(8, 7),
        head=nn.Linear(7, 5),
    ).eval()


X = image(1, 3, 16, 12, seed=1, dtype=torch.float32)


def simulated(model: nn.Module, *inputs: Tensor, excluded: Sequence[str] = ()) -> Folded:
    """Return what an exact engine computes of a model in ncnn's numbers."""
    net = fold(model.eval(), inputs)
    calibration = calibrate(net, [inputs], watched(net.net.graph))
    return Simulator(net, calibration, RECIPE.dialect("int8", {})).network(excluded)


def converted(folder: Path, model: nn.Module, *inputs: Tensor) -> Path:
    """Return the payload of a network in int8 numbers."""
    names = {f"in_{i}": tensor for i, tensor in enumerate(inputs)}
    convert(model, RECIPE, folder / "net_ncnn_model", inputs=names, precision="int8")
    return folder / "net_ncnn_model"


def run(path: Path, *inputs: Tensor, **options: bool) -> np.ndarray:
    """Run a payload by the recipe's own load(), with some options changed ahead of the files."""
    session = RECIPE.load(path, threads=1)
    if options:
        for name, value in options.items():
            setattr(session._net.opt, name, value)
        session._net.clear()
        assert session._net.load_param(str(path / PARAM)) == 0
        assert session._net.load_model(str(path / BIN)) == 0
    session.feed([np.ascontiguousarray(tensor.numpy()).tobytes() for tensor in inputs], inputs[0].shape[0])
    session.run()
    return np.frombuffer(session.fetch()[0], "float32").reshape(session.outputs[0].shape)


def layers_of(path: Path) -> list[Layer]:
    return read_layers((path / PARAM).read_text())


def snr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / ((expected - actual) ** 2).sum()))


# ---- an artifact -----------------------------------------------------------------------------------------------------


def exported(folder: Path) -> Artifact:
    return export_subject(as_subject(network()), ExportRequest("ncnn", folder, "int8"))


def test_a_network_passes_in_int8_and_says_what_computes_so(tmp_path: Path) -> None:
    artifact = exported(tmp_path)
    assert [stage.name for stage in artifact.stages] == ["fold", "quantize", "convert", "store_int8", "verify"]
    assert artifact.parity is not None
    assert artifact.parity.status == "passed"
    assert "CPU int8 weights, int8 and fp32 arithmetic" in artifact.parity.how
    assert artifact.operators.int8 == {"Convolution": 4, "InnerProduct": 1}
    assert artifact.operators.counts["ConvolutionDepthWise"] == 1
    assert not {"UnaryOp", "Clip", "Gemm"} & set(artifact.operators.counts)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_file_computes_what_the_simulation_does(tmp_path: Path, batch: int) -> None:
    x = image(batch, 3, 16, 12, seed=2, dtype=torch.float32)
    simulation = simulated(network(), x)
    path = converted(tmp_path, simulation, x)
    with torch.no_grad():
        expected, plain = simulation(x).numpy(), network()(x).numpy()
    assert snr_db(expected, run(path, x)) > 70 > snr_db(plain, expected) > 20


def test_a_file_in_int8_is_opened_with_the_option_that_it_needs(tmp_path: Path) -> None:
    """ncnn takes the bytes for floats without it, and says nothing."""
    simulation = simulated(network(), X)
    path = converted(tmp_path, simulation, X)
    expected = simulation(X).detach().numpy()
    session = RECIPE.load(path, threads=1)
    assert session._net.opt.use_int8_inference
    assert snr_db(expected, run(path, X)) > 70
    assert not RECIPE.load(path.parent / "stages/convert_ncnn_model", threads=1)._net.opt.use_int8_inference
    wrong = run(path, X, use_int8_inference=False)
    assert not np.isfinite(wrong).all() or snr_db(expected, wrong) < 5


def test_sums_do_not_overflow_as_they_do_by_ncnns_own_choice_of_kernels(tmp_path: Path) -> None:
    """ncnn's Winograd of 3x3 kernels multiplies sums by 576 in 32 bits; with less it computes integers exactly."""
    inputs, outputs, side = 64, 16, 12
    steps = np.full((outputs, inputs, 3, 3), 127, "int8")
    params = {"0": str(outputs), "1": "3", "4": "1", "5": "0", "6": str(steps.size), "8": "2"}
    constants = [struct.pack("<I", 0x000D4B38) + steps.tobytes(), np.ones(outputs, "float32").tobytes()]
    constants.append(struct.pack("<f", 1.0))
    layers = [
        Layer("Input", "in0", [], ["in0"], {}),
        Layer("Convolution", "sums", ["in0"], ["out0"], params, constants),
    ]
    param, data = write_layers(layers)
    model = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    x = torch.full((1, inputs, side, side), 127.0)
    path = converted(tmp_path, simulated(model, x), x)
    (path / PARAM).write_text(param)
    (path / BIN).write_bytes(data)
    with torch.no_grad():
        exact = F.conv2d(x, torch.from_numpy(steps).float(), padding=1).numpy()
    assert np.array_equal(run(path, x), exact)
    assert np.abs(run(path, x, use_winograd43_convolution=True) - exact).max() > 1e6


def test_the_snippet_runs_an_int8_file_as_it_was_verified(tmp_path: Path) -> None:
    path = converted(tmp_path, simulated(network(), X), X)
    scope: dict[str, Any] = {}
    exec(RECIPE.snippet(str(path), RECIPE.load(path, threads=1).inputs), scope)  # noqa: S102
    options = scope["net"].opt
    assert options.use_int8_inference and not options.use_winograd43_convolution
    assert np.array_equal(scope["logits"], run(path, torch.zeros_like(X)))


# ---- the writer ------------------------------------------------------------------------------------------------------


def test_rows_are_convolved_where_ncnn_is_slow(tmp_path: Path) -> None:
    """What is computed of each number between two products stays with the maps."""
    model = Toy(lambda net, x: net.second(F.gelu(net.first(x))), first=nn.Linear(8, 12), second=nn.Linear(12, 6))
    x = image(1, 2, 5, 8, seed=3, dtype=torch.float32)
    simulation = simulated(model, x)
    path = converted(tmp_path, simulation, x)
    kinds = [layer.kind for layer in layers_of(path)]
    assert [kind for kind in kinds if kind in ("Convolution", "InnerProduct", "Gemm")] == ["Convolution"] * 2
    assert kinds.count("Permute") == 2
    assert snr_db(simulation(x).detach().numpy(), run(path, x)) > 70


def test_rows_that_others_read_too_are_rows(tmp_path: Path) -> None:
    model = Toy(lambda net, x: net.second(y := F.gelu(net.first(x))) * y, first=nn.Linear(8, 6), second=nn.Linear(6, 6))
    x = image(1, 5, 8, seed=3, dtype=torch.float32)
    simulation = simulated(model, x)
    path = converted(tmp_path, simulation, x)
    assert [layer.kind for layer in layers_of(path)].count("Permute") == 4
    assert snr_db(simulation(x).detach().numpy(), run(path, x)) > 70


def test_a_layer_that_is_called_twice_gets_the_scale_of_each_call(tmp_path: Path) -> None:
    model = Toy(lambda net, x: net.same(net.same(x).relu()), same=nn.Conv2d(4, 4, 1))
    nn.init.normal_(model.same.weight, std=2.0)  # type: ignore[union-attr, arg-type]
    x = image(1, 4, 5, 6, seed=4, dtype=torch.float32)
    simulation = simulated(model, x)
    path = converted(tmp_path, simulation, x)
    first, second = (layer for layer in read_stage(path) if layer.kind == "Convolution")
    assert first.constants[0] == second.constants[0]
    assert first.constants[-1] != second.constants[-1]
    assert snr_db(simulation(x).detach().numpy(), run(path, x)) > 70


def test_a_scale_of_one_is_found_too(tmp_path: Path) -> None:
    """pnnx drops a multiplication by 1, as a tensor without a range has it."""
    model = Toy(
        lambda net, x: net.second((net.first(x) - 100).relu()), first=nn.Conv2d(3, 4, 1), second=nn.Conv2d(4, 4, 1)
    )
    path = converted(tmp_path, simulated(model, X), X)
    assert read_stage(path)[-1].constants[-1] == struct.pack("<f", 1.0)
    assert run(path, X).any()


def read_stage(path: Path) -> list[Layer]:
    """Return the layers of a payload with what the bin file has of them."""
    return read_layers((path / PARAM).read_text(), (path / BIN).read_bytes())


def test_a_networks_own_roundings_stay(tmp_path: Path) -> None:
    model = Toy(lambda net, x: net.conv((x * 4.0).round().clamp(-127, 127) * 0.25 + x), conv=nn.Conv2d(3, 4, 1))
    simulation = simulated(model, X)
    path = converted(tmp_path, simulation, X)
    kinds = [layer.kind for layer in layers_of(path)]
    assert kinds.count("UnaryOp") == kinds.count("Clip") == 1
    assert snr_db(simulation(X).detach().numpy(), run(path, X)) > 70


def test_a_layer_left_in_float_stays_as_it_is(tmp_path: Path) -> None:
    simulation = simulated(network(), X, excluded=["conv2d_1"])
    path = converted(tmp_path, simulation, X)
    assert sum("8" in layer.params for layer in layers_of(path) if layer.kind == "Convolution") == 3
    assert snr_db(simulation(X).detach().numpy(), run(path, X)) > 70


@pytest.fixture(scope="module")
def float_form(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Layer], list[Int8Weight]]:
    """The layers of the first stage of a network, and its weights in int8."""
    simulation = simulated(network(), X)
    path = converted(tmp_path_factory.mktemp("int8"), simulation, X)
    return read_stage(path.parent / "stages/convert_ncnn_model"), int8_weights(simulation)


def test_layers_are_written_as_they_were_read(float_form: tuple[list[Layer], list[Int8Weight]]) -> None:
    layers, _ = float_form
    assert {"Gemm", "LayerNorm", "Convolution", "ConvolutionDepthWise"} - {"Gemm"} <= {layer.kind for layer in layers}
    param, data = write_layers(layers)
    assert read_layers(param, data) == layers
    assert len(data) == sum(len(part) for layer in layers for part in layer.constants)


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data + bytes(4), lambda data: data[:6]])
def test_a_bin_file_of_another_size_is_refused(
    float_form: tuple[list[Layer], list[Int8Weight]], change: Callable[[bytes], bytes]
) -> None:
    param, data = write_layers(float_form[0])
    with pytest.raises(RuntimeError, match="bin file"):
        read_layers(param, change(data))


def with_another_weight(layers: list[Layer], weights: list[Int8Weight]) -> tuple[list[Layer], list[Int8Weight]]:
    other = dataclasses.replace(weights[0], product=weights[0].product * 2)
    return layers, [other, *weights[1:]]


def with_a_weight_too_many(layers: list[Layer], weights: list[Int8Weight]) -> tuple[list[Layer], list[Int8Weight]]:
    return layers, [*weights, weights[0]]


def with_a_float_reader(layers: list[Layer], weights: list[Int8Weight]) -> tuple[list[Layer], list[Int8Weight]]:
    """Let a layer in float read the rounded numbers of another one."""
    place = next(i for i, layer in enumerate(layers) if layer.kind == "Convolution")
    reader = layers[place]
    split = Layer("Split", "both", reader.inputs, ["one", "other"], {})
    reader = dataclasses.replace(reader, inputs=["one"])
    return [
        *layers[:place],
        split,
        reader,
        Layer("ReLU", "plain", ["other"], ["end"], {}),
        *layers[place + 1 :],
    ], weights


def with_an_end(layers: list[Layer], weights: list[Int8Weight]) -> tuple[list[Layer], list[Int8Weight]]:
    """Let the rounded numbers leave the network."""
    place = next(i for i, layer in enumerate(layers) if layer.kind == "Convolution")
    split = Layer("Split", "both", layers[place].inputs, ["one", "end"], {})
    return [*layers[:place], split, dataclasses.replace(layers[place], inputs=["one"]), *layers[place + 1 :]], weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_another_weight, "1 of 5 weights in int8 are in no layer"),
        (with_a_weight_too_many, "1 of 6 weights in int8 are in no layer"),
        (with_a_float_reader, "ReLU plain reads numbers in int8"),
        (with_an_end, "leave ncnn's network as end"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    float_form: tuple[list[Layer], list[Int8Weight]], change: Callable[..., Any], message: str
) -> None:
    layers, weights = float_form
    assert len(in_int8(layers, weights)) == len(layers) - 4 * len(weights)
    with pytest.raises(RuntimeError, match=message):
        in_int8(*change(layers, weights))


# ---- damage ----------------------------------------------------------------------------------------------------------


def twice_the_scale(layer: Layer) -> None:
    """Store a layer's scales of weights as half of what they are."""
    scales = np.frombuffer(layer.constants[-2], "float32")
    layer.constants[-2] = (scales / 2).tobytes()


def a_channel_of_zeros(layer: Layer) -> None:
    """Store no weights for an output channel."""
    channel = layer.count(6) // layer.count(0)
    layer.constants[0] = layer.constants[0][:4] + bytes(channel) + layer.constants[0][4 + channel :]


def a_wrong_scale_of_inputs(layer: Layer) -> None:
    """Store a reciprocal scale that clips a fifth of the range."""
    layer.constants[-1] = struct.pack("<f", 1.25 * struct.unpack("<f", layer.constants[-1])[0])


def weights_in_another_order(layer: Layer) -> None:
    """Store weights with the axes of rows and columns the other way round."""
    shape = layer.count(0), -1, 3, 3
    steps = np.frombuffer(layer.constants[0][4:], "int8").reshape(shape).transpose(0, 1, 3, 2)
    layer.constants[0] = layer.constants[0][:4] + np.ascontiguousarray(steps).tobytes()


@pytest.mark.parametrize(
    "damage", [twice_the_scale, a_channel_of_zeros, a_wrong_scale_of_inputs, weights_in_another_order]
)
def test_damage_to_one_layer_is_found_there_and_in_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Layer], None]
) -> None:
    def damaged(layers: Sequence[Layer], weights: Sequence[Int8Weight]) -> list[Layer]:
        stored = in_int8(layers, weights)
        damage([layer for layer in stored if layer.kind == "Convolution"][1])
        return stored

    monkeypatch.setattr(RECIPE, "in_int8", damaged)
    with pytest.raises(ExportError, match="converter refused") as refused:
        converted(tmp_path / "layer", simulated(network(), X), X)
    assert "Convolution convrelu_1 in int8 otherwise" in refused.value.why
    monkeypatch.setattr(RECIPE, "_require_exact", lambda *arguments: None)
    with pytest.raises(ParityError) as caught:
        exported(tmp_path)
    assert "stage store_int8;" in caught.value.where


def test_one_channel_of_many_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than the noise that a layer may have is missing in all."""
    model = nn.Conv2d(3, 1024, 1, bias=False)
    with torch.no_grad():
        model.weight[0] *= 0.3

    def damaged(layers: Sequence[Layer], weights: Sequence[Int8Weight]) -> list[Layer]:
        stored = in_int8(layers, weights)
        a_channel_of_zeros(stored[-1])
        return stored

    monkeypatch.setattr(RECIPE, "in_int8", damaged)
    with pytest.raises(ExportError) as refused:
        converted(tmp_path, simulated(model, X), X)
    assert "in int8 otherwise" in refused.value.why
