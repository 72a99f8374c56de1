"""Core ML's int8: numbers of the simulation arrive in the file, and each mistake in one is found at its stage."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgevit.errors import UsageError
from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.exporting.preparation import Preparation
from edgevit.folding import Folded, fold
from edgevit.quantization import Simulator, calibrate
from edgevit.quantization.placement import watched
from edgevit.quantization.simulation import QUANTIZE
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest, ParityCheck
from edgevit.verification import References, Samples, parity, verify_stages
from edgevit.verification.engine import Computed
from edgevit.verification.mil import Program, read_program
from edgevit.verification.mil.operators.packing import unpack
from edgevit_runtime.record import Reply, Stage
from support.ml_programs import evaluate
from support.nets import Toy, image
from support.subjects import as_subject

pytestmark = pytest.mark.coreml
RECIPE = load_recipe("coreml")
SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
STORED, TABLE = "constexpr_affine_dequantize", "constexpr_lut_to_dense"


@pytest.fixture(scope="module", autouse=True)
def ct() -> Any:
    torch.set_num_threads(1)
    with RECIPE._quiet():  # type: ignore[attr-defined]  # what coremltools says when it is imported
        return pytest.importorskip("coremltools")


def network() -> nn.Module:
    """Build (B, 3, H, W) -> (B, 5): plain, square, depthwise and transposed convolutions, a residual sum and a head."""

    def compute(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        x = x + net.deep(net.square(x).relu())
        result: Tensor = net.head(net.up(x).relu().mean((2, 3)))
        return result

    torch.manual_seed(0)
    layers = {"stem": nn.Conv2d(3, 24, 3, padding=1), "square": nn.Conv2d(24, 24, 1)}
    layers |= {"deep": nn.Conv2d(24, 24, 3, padding=1, groups=24)}
    return Toy(compute, **layers, up=nn.ConvTranspose2d(24, 10, 2, stride=2), head=nn.Linear(10, 5)).eval()


def exported(folder: Path, precision: str, **options: str) -> Artifact:
    request = ExportRequest("coreml", folder / "out", precision, options=options)
    return export_subject(as_subject(network()), request)


def operators(program: Program, kind: str) -> list[Any]:
    return [operation for operation in program.operations if operation.operator == kind]


def argument(program: Program, operation: Any, name: str) -> Any:
    return program.constants[operation.arguments[name][0]]


# ---- what arrives ----------------------------------------------------------------------------------------------------


def simulated(precision: str, x: Tensor) -> Folded:
    folded = fold(as_subject(network()).module, (x,))
    calibration = calibrate(folded, [(x,)], watched(folded.net.graph))
    return Simulator(folded, calibration, RECIPE.dialect(precision, {})).network()  # type: ignore[attr-defined]


@pytest.mark.parametrize("precision", ["w8", "int8"])
def test_the_numbers_of_the_simulation_arrive(tmp_path: Path, precision: str) -> None:
    x = image(1, 3, 16, 12, dtype=torch.float32)
    simulation = simulated(precision, x)
    path = tmp_path / "net.mlpackage"
    convert(simulation, RECIPE, path, inputs={"x": x}, precision=precision)
    buffers = dict(simulation.net.named_buffers())
    steps = {name.removesuffix("_int8"): tensor for name, tensor in buffers.items() if tensor.dtype == torch.int8}
    layers = 5 if precision == "w8" else 4  # A transposed convolution has no int8.
    assert len(steps) == layers
    for file, dtype in ((tmp_path / "stages/convert.mlpackage", torch.float32), (path, torch.float16)):
        program = read_program(file)
        stored = operators(program, STORED)
        assert len(stored) == layers
        for operation in stored:
            data, scale = (argument(program, operation, name) for name in ("quantized_data", "scale"))
            (stem,) = (s for s, tensor in steps.items() if tensor.shape == data.shape and torch.equal(tensor, data))
            assert data.dtype == torch.int8 and scale.dtype == dtype
            assert torch.equal(scale, buffers[f"{stem}_scale"].to(dtype))
            assert not argument(program, operation, "zero_point").any()
            axis = argument(program, operation, "axis")
            assert int(axis) == (1 if stem.startswith("up") else 0)
        quantizations = operators(program, "quantize")
        nodes = [node for node in simulation.net.graph.nodes if node.target is QUANTIZE]
        assert len(quantizations) == len(nodes) and bool(nodes) == (precision == "int8")
        assert all(spec.dtype == "int8" for operation in quantizations for spec in operation.results)
        assert all("zero_point" not in operation.arguments for operation in quantizations), "none is faster"


def test_palettes_of_the_simulation_arrive(tmp_path: Path) -> None:
    """Large weights are a table and numbers of 6 bits; small ones are as they are, with as few values."""
    x = image(1, 3, 16, 12, dtype=torch.float32)
    simulation = simulated("w6", x)
    path = tmp_path / "net.mlpackage"
    convert(simulation, RECIPE, path, inputs={"x": x}, precision="w6")
    weights = [tensor for name, tensor in simulation.net.named_buffers() if name.endswith("_palettized")]
    large = [weight for weight in weights if weight.numel() > 512]
    assert (len(weights), len(large)) == (5, 3)
    for file, dtype in ((tmp_path / "stages/convert.mlpackage", torch.float32), (path, torch.float16)):
        program = read_program(file)
        tables = operators(program, TABLE)
        assert len(tables) == len(large)
        for operation in tables:
            lut, indices, shape = (argument(program, operation, name) for name in ("lut", "indices", "shape"))
            (weight,) = (weight for weight in large if tuple(weight.shape) == tuple(shape.tolist()))
            assert len(lut) == 64 and lut.dtype == dtype
            assert len(indices) == weight.numel() * 6 // 8, "6 bits for each"
            numbers = unpack(indices.numpy(), 6, weight.numel())
            assert torch.equal(lut[torch.from_numpy(numbers).long()], weight.to(dtype).flatten())
    artifact = exported(tmp_path, "w6")
    assert artifact.parity is not None
    assert (artifact.parity.status, artifact.operators.counts[TABLE]) == ("evaluated", 3)


def test_a_weight_of_many_numbers_takes_6_bits_for_each(tmp_path: Path) -> None:
    """coremltools would count the values of this one by a sort that numpy 2.4.6 gets wrong with AVX-512."""
    x = image(1, 160, 2, 2, dtype=torch.float32)
    layers = nn.Conv2d(160, 240, 1), nn.ReLU(), nn.Conv2d(240, 40, 1)
    folded = fold(as_subject(nn.Sequential(*layers)).module, (x,))
    calibration = calibrate(folded, [(x,)], watched(folded.net.graph))
    simulator = Simulator(folded, calibration, RECIPE.dialect("w6", {}))  # type: ignore[attr-defined]
    simulation = simulator.network(simulator.layers[1:])
    path = tmp_path / "net.mlpackage"
    convert(simulation, RECIPE, path, inputs={"x": x}, precision="w6")
    program = read_program(path)
    (operation,) = operators(program, TABLE)
    assert len(argument(program, operation, "indices")) == 160 * 240 * 6 // 8
    excluded = operators(program, "conv")[1]
    assert argument(program, excluded, "weight").shape == (40, 240, 1, 1), "it is stored as it is"


@pytest.mark.parametrize("precision", ["w8", "int8"])
def test_a_network_in_int8_end_to_end(tmp_path: Path, precision: str) -> None:
    artifact = exported(tmp_path, precision)
    assert artifact.parity is not None and artifact.quantization is not None
    assert artifact.parity.status == "evaluated"
    assert [stage.name for stage in artifact.stages] == ["fold", "quantize", "convert", "precision", "verify"]
    checks = [(check.stage, check.against) for check in artifact.parity.checks]
    twice = ("simulation", "folded form")
    assert checks == [
        ("fold", "training form"),
        ("quantize", "folded form"),
        *[(stage, form) for stage in ("precision", "artifact") for form in twice],
    ]
    program = read_program(artifact.folder / artifact.payload)
    kinds = ("conv", "linear") if precision == "int8" else ("conv", "linear", "conv_transpose")
    layers = [operation for kind in kinds for operation in operators(program, kind)]
    results = {spec.name for operation in operators(program, STORED) for spec in operation.results}
    assert len(layers) == len(results) and all(operation.arguments["weight"][0] in results for operation in layers)
    last = [operation.operator for operation in program.operations if operation.operator != "cast"][-1]
    assert last == "linear", "the outputs are never int8"
    dtypes = {spec.dtype for op in program.operations if op.operator != "cast" for spec in op.results}
    assert dtypes == ({"float16"} if precision == "w8" else {"float16", "int8"})
    again = verify_artifact(artifact, model=as_subject(network()).module)
    assert (again.status, again.snr_db) == ("evaluated", artifact.parity.snr_db)


def test_floats_may_stay_in_single_precision(tmp_path: Path) -> None:
    artifact = exported(tmp_path, "w8", floats="fp32")
    assert [stage.name for stage in artifact.stages] == ["fold", "quantize", "convert", "verify"]
    program = read_program(artifact.folder / artifact.payload)
    assert {spec.dtype for operation in program.operations for spec in operation.results} == {"float32"}
    with pytest.raises(UsageError, match="floats=bf16: one of fp16, fp32"):
        exported(tmp_path, "w8", floats="bf16")


# ---- mistakes --------------------------------------------------------------------------------------------------------


class Package:
    """A saved package whose operations can be changed."""

    def __init__(self, path: Path) -> None:
        from coremltools.proto import Model_pb2

        self._path, self._model = path, Model_pb2.Model()
        self._model.ParseFromString((path / SPECIFICATION).read_bytes())
        self.weights = bytearray((path / WEIGHTS).read_bytes())
        (function,) = self._model.mlProgram.functions.values()
        (block,) = function.block_specializations.values()
        self.operations = block.operations

    def save(self) -> None:
        (self._path / SPECIFICATION).write_bytes(self._model.SerializeToString())
        (self._path / WEIGHTS).write_bytes(self.weights)

    def change(self, value: Any, change: Callable[[NDArray[Any]], Any]) -> None:
        """Change the numbers of a value, in place or in the weight file."""
        dtype = {10: "<f2", 11: "<f4", 21: "<i1", 23: "<i4", 31: "<u1"}[value.type.tensorType.dataType]
        if value.HasField("blobFileValue"):
            offset = value.blobFileValue.offset
            size, start = np.frombuffer(self.weights, "<u8", 2, offset + 8)
            changed = np.array(change(np.frombuffer(self.weights[start : start + size], dtype)), dtype)
            self.weights[start : start + size] = changed.tobytes()
            return
        tensor = value.immediateValue.tensor
        if dtype == "<f4":
            tensor.floats.values[:] = change(np.array(tensor.floats.values)).tolist()
        elif dtype == "<i4":
            tensor.ints.values[:] = change(np.array(tensor.ints.values)).tolist()
        else:
            tensor.bytes.values = np.array(change(np.frombuffer(tensor.bytes.values, dtype)), dtype).tobytes()


def of_weight(
    attribute: str, change: Callable[[NDArray[Any]], Any], shape: tuple[int, ...], kind: str = STORED
) -> Callable[..., None]:
    """Return what changes the numbers of the stored weight that has this shape."""

    def edit(package: Package) -> None:
        (operation,) = (
            op
            for op in package.operations
            if op.type == kind and [d.constant.size for d in op.outputs[0].type.tensorType.dimensions] == list(shape)
        )
        package.change(operation.attributes[attribute], change)

    return edit


SQUARE, DEEP = (24, 24, 1, 1), (24, 1, 3, 3)


def doubled(numbers: NDArray[Any]) -> NDArray[Any]:
    return numbers * 2


def one_doubled(numbers: NDArray[Any]) -> NDArray[Any]:
    """Double a value that many numbers have, and that is not small."""
    return np.where(np.arange(len(numbers)) == 3 * len(numbers) // 4, numbers * 2, numbers)


def first_doubled(numbers: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([numbers[:1] * 2, numbers[1:]])


def twice_as_coarse(package: Package) -> None:
    """Double the scale of an activation where it is quantized, and nowhere else."""
    constants = {op.outputs[0].name: op for op in package.operations if op.type == "const"}
    operation = next(op for op in package.operations if op.type == "quantize")
    package.change(constants[operation.inputs["scale"].arguments[0].name].attributes["val"], doubled)


def shifted(package: Package) -> None:
    """Give an activation another zero point where it becomes a float."""
    from coremltools.proto import MIL_pb2

    operation = [op for op in package.operations if op.type == "dequantize"][-1]
    value = MIL_pb2.Value()
    value.type.tensorType.dataType = MIL_pb2.INT8
    value.immediateValue.tensor.bytes.values = b"\x01"
    operation.inputs["zero_point"].arguments.add().value.CopyFrom(value)


def unsigned(package: Package) -> None:
    """Declare the bytes of a weight to be unsigned."""
    from coremltools.proto import MIL_pb2

    operation = next(op for op in package.operations if op.type == STORED)
    data = operation.attributes["quantized_data"]
    data.type.tensorType.dataType = MIL_pb2.UINT8
    offset = data.blobFileValue.offset
    package.weights[offset + 4 : offset + 8] = (3).to_bytes(4, "little")


MISTAKES: dict[str, Callable[[Package], None]] = {
    "one scale of a weight": of_weight("scale", first_doubled, DEEP),
    "a scale for all channels": of_weight("scale", lambda numbers: numbers * 0 + numbers[0], SQUARE),
    "scales of the other axis": of_weight("axis", lambda numbers: 1 - numbers, SQUARE),
    "the zero point of a weight": of_weight("zero_point", lambda numbers: numbers + 1, SQUARE),
    "unsigned for signed": unsigned,
}
OF_ACTIVATIONS: dict[str, Callable[[Package], None]] = {
    "the scale of an activation": twice_as_coarse,
    "the zero point of an activation": shifted,
}
OF_TABLES: dict[str, Callable[[Package], None]] = {
    "one value of a table": of_weight("lut", one_doubled, SQUARE, TABLE),
    "a table of another order": of_weight("lut", lambda numbers: numbers[::-1], SQUARE, TABLE),
    "numbers of 6 bits that begin elsewhere": of_weight("indices", lambda numbers: np.roll(numbers, 1), SQUARE, TABLE),
}
CASES = [
    *(pytest.param(precision, edit, id=f"{precision}, {name}")
      for precision in ("w8", "int8") for name, edit in MISTAKES.items()),
    *(pytest.param("int8", edit, id=f"int8, {name}") for name, edit in OF_ACTIVATIONS.items()),
    *(pytest.param("w6", edit, id=f"w6, {name}") for name, edit in OF_TABLES.items()),
]  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A network in int8, what its stages are compared with, and the stages."""

    references: References
    stages: tuple[Stage, ...]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    results, subject = {}, as_subject(network())
    prepared = Preparation(subject, ExportRequest("coreml", Path("unused"), "int8"))
    for precision in ("w8", "int8", "w6"):
        request = ExportRequest("coreml", Path("unused"), precision)
        quantized = prepared.quantized(RECIPE.dialect(precision, {}), request)  # type: ignore[attr-defined]
        payload = tmp_path_factory.mktemp(precision) / "net.mlpackage"
        stages = convert(quantized.simulation, RECIPE, payload, inputs=prepared.example, precision=precision)
        results[precision] = Made(prepared.simulated(quantized, request), stages)
    return results


@pytest.fixture
def computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the reference evaluator in this process."""

    def compute(target: str, payload: Path, samples: Samples, **options: Any) -> Computed:
        results = [tuple(evaluate(payload, *map(torch.from_numpy, arrays))) for arrays in samples.sets]
        return Computed(Reply("ok"), results, by_reference=True)

    monkeypatch.setattr(parity, "compute", compute)


def judged(made: Made, folder: Path, edit: Callable[[Package], None], *names: str) -> list[ParityCheck]:
    """Return the checks of a conversion whose stages of these names were changed."""
    stages = []
    for stage in made.stages:
        path = folder / stage.path.name
        shutil.copytree(stage.path, path)
        if stage.name in names:
            package = Package(path)
            edit(package)
            package.save()
        stages.append(dataclasses.replace(stage, path=path))
    return verify_stages("coreml", stages, made.references)


@pytest.mark.usefixtures("computed_here")
@pytest.mark.parametrize(("precision", "edit"), CASES)
def test_a_mistake_in_a_number_is_found_at_its_stage(
    tmp_path: Path, made: dict[str, Made], precision: str, edit: Callable[[Package], None]
) -> None:
    checks = judged(made[precision], tmp_path, edit, "convert", "precision")
    assert {check.stage for check in checks if not check.passed} == {"convert"}
    assert checks[-1].stage == "convert", "what is made of something wrong is not judged"


@pytest.mark.usefixtures("computed_here")
@pytest.mark.parametrize(("precision", "edit"), CASES)
def test_a_mistake_of_half_precision_alone_is_found_there(
    tmp_path: Path, made: dict[str, Made], precision: str, edit: Callable[[Package], None]
) -> None:
    failed = [check for check in judged(made[precision], tmp_path, edit, "precision") if not check.passed]
    assert {check.stage for check in failed} == {"precision"}


@pytest.mark.usefixtures("computed_here")
@pytest.mark.parametrize("precision", ["w8", "int8", "w6"])
def test_left_alone_the_stages_pass(tmp_path: Path, made: dict[str, Made], precision: str) -> None:
    checks = judged(made[precision], tmp_path, lambda package: None, "convert", "precision")
    assert all(check.passed for check in checks)
