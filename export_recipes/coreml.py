"""Core ML's ML programs, run by Core ML on macOS.

int8 and w8 store weights in int8 with a scale for each output channel. Unless an option asks for single precision, the
rest computes in half, which is all that the Neural Engine has.

load() has never been run, for want of a Mac. A reference evaluator computes what export() writes on any machine,
operator by operator (edgevit/verification/mil/).
"""

from __future__ import annotations

import contextlib
import io
import logging
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgevit_runtime.dialect import PALETTE, QUANTIZED, Dialect, Kind
from edgevit_runtime.hidden_packages import hidden
from edgevit_runtime.input_layouts import of_planes
from edgevit_runtime.record import Operators, Recipe, Session, Stage, TensorSpec, UnsupportedError
from edgevit_runtime.silence_converters import quiet

RECIPE = Recipe(
    target="coreml",
    suffix=".mlpackage",
    engine="coremltools",
    precisions=("fp16", "fp32", "w8", "int8", "w6"),
    requires=("torch", "coremltools"),
    extra="coreml",
    imports=("torch._dynamo",),
    aliases=("ios", "mlpackage"),
    evaluator="mil",
    needs="macOS",
    input_dtypes=("float32", "int32", "uint8"),
    options={"floats": "type of all that is not int8 in int8 and w8 files: fp16 or fp32"},
    spellings=(
        "average_divisor",
        "bilinear",
        "celu",
        "circular_pad",
        "log_sigmoid",
        "nearest",
        "rms_norm",
        "six_axes",
        "softplus",
        "tanh_gelu",
    ),
)

# The oldest systems that the files are for: iOS 17, macOS 14. `quantize` is of these.
_SYSTEMS = "iOS17"
# Core ML asks for a bound of an open batch.
_LARGEST_BATCH = 64
# The types of what is not int8. The first is what the option `floats` means where it is not given.
_FLOATS = ("fp16", "fp32")
# A smaller weight takes less space without its table.
_LEAST_PALETTIZED = 512
# The kinds that coremltools quantizes. A transposed convolution stays as it is.
_INT8: tuple[Kind, ...] = ("convolution", "depthwise", "grouped", "linear", "add")
# ArrayFeatureType's numbers in the specification.
_DTYPES = {65568: "float32", 65552: "float16", 131104: "int32"}
_SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
_DEBUG_MAP = "executorch_debug_handle_mapping.json"


class CoreMLSession:
    """A model that Core ML has compiled for the CPU, in its own threads: it takes no thread count."""

    def __init__(self, path: Path) -> None:
        import coremltools as ct

        self._model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)
        description = self._model.get_spec().description
        self.engine_version = f"macOS {platform.mac_ver()[0]}"
        self.provider = "Core ML CPU_ONLY"
        self.inputs = tuple(map(_spec, description.input))
        self.outputs = tuple(map(_spec, description.output))
        self._feeds: dict[str, Any] = {}
        self._results: dict[str, Any] = {}

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        import numpy as np

        specs = [spec.at_batch(batch) for spec in self.inputs]
        arrays = [np.frombuffer(raw, s.dtype).reshape(s.shape) for s, raw in zip(specs, tensors, strict=True)]
        self._feeds = {
            spec.name: _picture(array) if spec.dtype == "uint8" else array
            for spec, array in zip(specs, arrays, strict=True)
        }

    def run(self) -> None:
        """Compute once."""
        self._results = self._model.predict(self._feeds)

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        import numpy as np

        return tuple(np.ascontiguousarray(self._results[s.name], dtype=s.dtype).tobytes() for s in self.outputs)


def _picture(array: Any) -> Any:
    """Return a raw image (1, H, W, 3) as Core ML takes it."""
    from PIL import Image

    return Image.fromarray(array[0])


def _spec(feature: Any) -> TensorSpec:
    if feature.type.WhichOneof("Type") == "imageType":
        image = feature.type.imageType
        return TensorSpec(feature.name, (1, image.height, image.width, 3), "uint8")
    array = feature.type.multiArrayType
    shape = tuple(array.shape)
    if array.WhichOneof("ShapeFlexibility"):
        shape = (-1, *shape[1:])
    return TensorSpec(feature.name, shape, _DTYPES[array.dataType])


def snippet(path: str, inputs: Sequence[TensorSpec]) -> str:
    """Run it with Core ML, on a Mac."""
    pictures = {spec.name for spec in inputs if spec.dtype == "uint8"}
    values = {s.name: f"Image.fromarray({s.as_numpy()}[0])" if s.name in pictures else s.as_numpy() for s in inputs}
    feeds = ", ".join(f'"{name}": {value}' for name, value in values.items())
    return f"""\
import coremltools as ct
import numpy as np
{"from PIL import Image" if pictures else ""}
model = ct.models.MLModel("{path}", compute_units=ct.ComputeUnit.CPU_ONLY)
logits = next(iter(model.predict({{{feeds}}}).values()))
print(logits.argmax(-1))
"""


def load(path: Path, *, threads: int) -> Session:
    """Open a package with Core ML on the CPU alone, whose numbers vary least. Raises UnsupportedError off macOS."""
    if reason := why_unavailable("run"):
        raise UnsupportedError(reason)
    return CoreMLSession(path)


def why_unavailable(to: Literal["build", "run"]) -> str:
    """Return what this machine lacks: Core ML comes with macOS, and coremltools writes its files anywhere."""
    return "Core ML runs on macOS only" if to == "run" and platform.system() != "Darwin" else ""


def check(options: Mapping[str, str]) -> None:
    """Raise ValueError for a type that Core ML does not compute in."""
    if options.get("floats", _FLOATS[0]) not in _FLOATS:
        raise ValueError(f"floats={options['floats']}: one of {', '.join(_FLOATS)}")


def dialect(precision: str, options: Mapping[str, str]) -> Dialect:
    """Return numbers that the Neural Engine multiplies in int8 from the A17 Pro and the M4 on.

    They are those of coremltools' own linear_quantize_activations: one scale for each activation and no zero point, in
    these operators, and floats at the ends (apple.github.io/coremltools/docs-guides/source/opt-quantization-api.html).
    """
    if precision in ("w8", "w6"):
        return Dialect(activations="float", palette=PALETTE if precision == "w6" else 0)
    return Dialect(activations="int8", symmetric=True, operators=_INT8, requantized=_INT8, ends_in_float=True)


def export(
    model: Any,
    inputs: Mapping[str, Any],
    path: Path,
    *,
    outputs: Sequence[str],
    precision: str,
    dynamic_batch: bool,
    options: Mapping[str, str],
) -> tuple[Stage, ...]:
    """Convert the captured graph, once in single precision and once more in half, unless floats are to stay single.

    Both forms take and give float32. A raw image (1, H, W, 3) becomes an image of Core ML's. Raises ValueError for
    inputs of other types, and for several raw images at once.
    """
    _check(inputs, dynamic_batch)
    # A model in int8 has its numbers already.
    first = precision if precision in QUANTIZED else "fp32"
    halves = precision == "fp16" or (precision in QUANTIZED and options.get("floats", _FLOATS[0]) == "fp16")
    stages, start = path.parent / "stages", time.perf_counter()
    stages.mkdir()
    with _quiet():
        program = _capture(model, inputs, dynamic_batch)
        forms = [("convert", first, "fp32"), *([("precision", precision, "fp16")] if halves else [])]
        results = []
        for name, of_stage, floats in forms:
            file = stages / f"{name}{RECIPE.suffix}"
            _convert(program, inputs, outputs, file, floats, dynamic_batch, precision == "w6")
            results.append(Stage(name, time.perf_counter() - start, file, precision=of_stage))
            start = time.perf_counter()
    shutil.copytree(results[-1].path, path)
    return tuple(results)


def _check(inputs: Mapping[str, Any], dynamic_batch: bool) -> None:
    for name, tensor in inputs.items():
        if (kind := str(tensor.dtype).removeprefix("torch.")) not in RECIPE.input_dtypes:
            raise ValueError(f"Core ML takes float32, int32 and images, and the input {name!r} is {kind}")
        if kind == "uint8" and (dynamic_batch or tensor.shape[0] != 1):
            raise ValueError(
                f"Core ML takes one RGB image (1, H, W, 3) at a time, and {name!r} is {list(tensor.shape)}"
            )


def _capture(model: Any, inputs: Mapping[str, Any], dynamic_batch: bool) -> Any:
    import torch

    model, inputs = of_planes(model, inputs)
    # A batch of 1 would be taken for a constant.
    examples = tuple(torch.cat([tensor, tensor]) if dynamic_batch else tensor for tensor in inputs.values())
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for example in examples:
        shapes[example] = {0: torch.export.Dim.AUTO} if dynamic_batch else {}
    with torch.no_grad():
        program = torch.export.export(model, examples, dynamic_shapes=shapes)
    # Converters know the ATen dialect after functionalization.
    return program.run_decompositions({})


def import_converter() -> None:
    """Import coremltools without what it reads other formats with, which takes two thirds of the time."""
    with _quiet(), hidden("executorch", "libsvm", "sklearn", "tensorflow", "torchao", "transformers", "xgboost"):
        import coremltools  # noqa: F401


def _convert(
    program: Any,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    path: Path,
    floats: str,
    dynamic_batch: bool,
    has_palettes: bool,
) -> None:
    """Write a program whose floats compute in this precision, with large weights of few values in a table."""
    import coremltools as ct
    import numpy as np

    types = []
    for name, tensor in inputs.items():
        if str(tensor.dtype) == "torch.uint8":
            shape = (1, 3, *tensor.shape[1:3])
            types.append(ct.ImageType(name, shape, color_layout=ct.colorlayout.RGB))
            continue
        batch = ct.RangeDim(1, _LARGEST_BATCH, default=1) if dynamic_batch else tensor.shape[0]
        types.append(ct.TensorType(name, (batch, *tensor.shape[1:]), np.dtype(str(tensor.dtype)[6:]).type))
    converted = ct.convert(
        program,
        inputs=types,
        outputs=[ct.TensorType(name, dtype=kind) for name, kind in zip(outputs, _output_kinds(program), strict=True)],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target[_SYSTEMS],
        compute_precision=ct.precision.FLOAT16 if floats == "fp16" else ct.precision.FLOAT32,
        skip_model_load=True,
    )
    if has_palettes:
        converted = _palettized(converted)
    converted.save(str(path))
    # The map is for ExecuTorch's debugger.
    (path / _DEBUG_MAP).unlink(missing_ok=True)


def _palettized(model: Any) -> Any:
    """Return a model whose large weights of few values are stored as a table and numbers of 6 bits; none changes."""
    from coremltools.optimize import coreml

    # Its mode for weights of few values counts them by numpy's sort of half precision, which is wrong in places.
    config = coreml.OpPalettizerConfig(mode="custom", lut_function=_table, weight_threshold=_LEAST_PALETTIZED)
    weights = coreml.get_weights_metadata(model, weight_threshold=_LEAST_PALETTIZED)
    few = {name: config for name, weight in weights.items() if len(_table(weight.val)[0]) == PALETTE}
    return coreml.palettize_weights(model, coreml.OptimizationConfig(op_name_configs=few)) if few else model


def _table(weight: Any) -> tuple[Any, Any]:
    """Return the values of a weight, at least as many as a palette has, and the number of each element's value."""
    import numpy as np

    values, numbers = np.unique(weight.astype("float32"), return_inverse=True)
    table = np.zeros(max(len(values), PALETTE), weight.dtype)
    table[: len(values)] = values
    return table, numbers.flatten().astype("uint8")


def _output_kinds(program: Any) -> list[Any]:
    import numpy as np

    (last,) = (node for node in program.graph.nodes if node.op == "output")
    tensors = {node.name: node.meta["val"] for node in last.args[0]}
    names = program.graph_signature.user_outputs
    return [np.float32 if tensors[name].is_floating_point() else np.int32 for name in names]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and the remarks of coremltools 9.0; errors are raised, not printed."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def operators(path: Path) -> Operators:
    """Count the program's operators. Only Core ML knows which of them run on which processor."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((path / _SPECIFICATION).read_bytes())
    blocks = [block for f in model.mlProgram.functions.values() for block in f.block_specializations.values()]
    counts = Counter(op.type for block in blocks for op in block.operations if op.type != "const")
    return Operators(dict(sorted(counts.items())))


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata as user-defined, and where Core ML has fields of its own; the weights stay as they are."""
    from coremltools.proto import Model_pb2

    file = path / _SPECIFICATION
    model = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    fields = model.description.metadata
    fields.shortDescription = metadata.get("description", "")
    fields.author = metadata.get("author", "")
    fields.license = metadata.get("license", "")
    fields.versionString = metadata.get("version", "")
    fields.userDefined.update(metadata)
    fields.userDefined["edgevit.minimum_deployment_target"] = _SYSTEMS
    file.write_bytes(model.SerializeToString(deterministic=True))
