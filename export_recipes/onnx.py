"""ONNX, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevit_runtime import operator_cost
from edgevit_runtime.dialect import QUANTIZED, UNSATURATED_WEIGHT, Dialect
from edgevit_runtime.input_layouts import half_inside
from edgevit_runtime.record import (
    ITEM_BYTES,
    LayerTime,
    Operators,
    ProcessorError,
    Recipe,
    Session,
    Stage,
    TensorSpec,
)
from edgevit_runtime.silence_converters import quiet
from edgevit_runtime.silicon import read as read_silicon
from edgevit_runtime.stated_numbers import StatedNumbers, stated_weight

RECIPE = Recipe(
    target="onnx",
    suffix=".onnx",
    engine="onnxruntime",
    precisions=("fp32", "fp16", "int8", "w8"),
    requires=("torch", "onnx", "onnxscript", "onnxsim"),
    extra="export",
    imports=("torch._dynamo", "torch.onnx._internal.exporter._core", "onnxscript", "onnxsim"),
    aliases=("ort", "onnxruntime"),
    # On processors for which it has no half-precision kernels, and without rounding in between.
    widens_half=True,
    spellings=("attention_of_four_axes", "average_divisor"),
    options={"processor": "that runs an int8 file: any (weights of 7 bits), vnni, arm"},
)
# Numbers of int8 files by the processors that run them. Without a dot product of bytes, x86 adds products of uint8 and
# int8 in 16 bits. ONNX Runtime has kernels for sums of int8 on ARM alone where activations are signed.
_DIALECTS = {
    "any": Dialect(largest_weight=UNSATURATED_WEIGHT),
    "vnni": Dialect(),
    "arm": Dialect(activations="int8"),
}

# The key in a file's metadata that names its largest weight in int8 steps, where that may overflow on some processors.
_LARGEST = "edgevit.largest_weight"
# ONNX Runtime's operators that multiply int8 numbers by weights.
_INT8 = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
# The suffix of a kernel's time in ONNX Runtime's profile.
_KERNEL = "_kernel_time"
_CONVOLUTIONS = ("Conv", "FusedConv")
_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")
# The first runs fill caches and the memory arena, so a profile leaves them out.
_UNCOUNTED_RUNS = 3
# The first with a Gelu operator. An Erf chain takes five nodes for each.
OPSET = 20

# ONNX Runtime's names for element types, as NumPy spells them.
_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(bool)": "bool",
}  # fmt: skip


def _options(threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


class OrtSession:
    """An ONNX Runtime session on the CPU provider, with its thread count pinned."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime as ort

        self._session = _session(path, _options(threads))
        self.engine_version: str = ort.__version__
        self.provider: str = self._session.get_providers()[0]
        self.inputs = tuple(map(_spec, self._session.get_inputs()))
        self.outputs = tuple(map(_spec, self._session.get_outputs()))
        self._names = [spec.name for spec in self.outputs]
        self._feeds: dict[str, Any] = {}
        self._results: list[Any] = []

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        import numpy as np

        specs = [spec.at_batch(batch) for spec in self.inputs]
        self._feeds = {
            spec.name: np.frombuffer(raw, dtype=spec.dtype).reshape(spec.shape)
            for spec, raw in zip(specs, tensors, strict=True)
        }

    def run(self) -> None:
        """Compute once."""
        self._results = self._session.run(self._names, self._feeds)

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        return tuple(result.tobytes() for result in self._results)


def _session(path: Path, options: Any) -> Any:
    """Open a file. Raise ProcessorError where its sums would overflow: x86 adds them in 16 bits without VNNI."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = session.get_modelmeta().custom_metadata_map.get(_LARGEST)
    if largest and platform.machine().lower() in ("x86_64", "amd64"):
        silicon = read_silicon()
        if silicon is not None and not any(name.endswith("vnni") for name in silicon.instruction_sets):
            raise ProcessorError("vnni", f"products of weights of {largest} steps overflow 16 bits on this one")
    return session


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(value.name, shape, _DTYPES[value.type])


def snippet(path: str, inputs: Sequence[TensorSpec]) -> str:
    """Run it with ONNX Runtime."""
    feeds = ", ".join(f'"{spec.name}": {spec.as_numpy()}' for spec in inputs)
    return f"""\
import numpy as np
import onnxruntime as ort

session = ort.InferenceSession("{path}", providers=["CPUExecutionProvider"])
logits = session.run(None, {{{feeds}}})[0]
print(logits.argmax(-1))
"""


def import_engine() -> None:
    """Import what load() imports first."""
    import numpy  # noqa: F401, which ONNX Runtime imports
    import onnxruntime  # noqa: F401


def load(path: Path, *, threads: int) -> Session:
    """Open an ONNX file with ONNX Runtime on the CPU, default graph optimisations."""
    return OrtSession(path, threads)


def layers(path: Path, *, threads: int, tensors: Sequence[bytes], batch: int, runs: int) -> tuple[LayerTime, ...]:
    """Return each kernel's median time from ONNX Runtime's own profile, which counts in microseconds.

    Shapes are those of its blocked layouts, where channels are padded to what a vector register holds.
    """

    session = OrtSession(path, threads)
    session.feed(tensors, batch)
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        profiled = _session(path, options)
        for _ in range(_UNCOUNTED_RUNS + runs):
            profiled.run(None, session._feeds)
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    kernels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            kernels.setdefault((event["name"], event["args"]["node_index"]), []).append(event)
    return tuple(_layer(name.removesuffix(_KERNEL), timings[-runs:]) for (name, _), timings in kernels.items())


def _layer(name: str, events: Sequence[Mapping[str, Any]]) -> LayerTime:
    kernel = events[-1]["args"]
    shapes, results = (
        [shape for tensor in kernel[f"{side}_type_shape"] for shape in tensor.values()] for side in ("input", "output")
    )
    kinds = [kind for tensor in kernel["output_type_shape"] for kind in tensor]
    item_bytes = ITEM_BYTES[_DTYPES.get(f"tensor({kinds[0]})", "float32")] if kinds else 0
    return LayerTime(
        name=name,
        operator=kernel["op_name"],
        ns=round(1000 * statistics.median(event["dur"] for event in events)),
        macs=_macs(kernel["op_name"], shapes, results),
        bytes=sum(int(kernel[f"{part}_size"]) for part in ("activation", "parameter", "output"))
        + item_bytes * _packed_weights(kernel["op_name"], shapes, results),
    )


def _macs(operator: str, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> int | None:
    """Return an operator's products; None where it consists of others, or where its weights are hidden."""
    if not inputs or not outputs:
        return None
    if operator in _CONVOLUTIONS:
        has_weights = len(inputs) > 1 and len(inputs[1]) == len(outputs[0])
        return operator_cost.convolution_macs(inputs[1], outputs[0]) if has_weights else None
    if operator in _PRODUCTS:
        return operator_cost.product_macs(inputs[0], inputs[1] if len(inputs) > 1 else (), outputs[0])
    return None if "Attention" in operator else 0


def _packed_weights(operator: str, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> int:
    """Return the number of a product's weights where ONNX Runtime has packed them and left them out of its shapes."""
    hidden = operator in _PRODUCTS and inputs and outputs and not any(len(shape) > 1 for shape in inputs[1:])
    return inputs[0][-1] * outputs[0][-1] if hidden else 0


def check(options: Mapping[str, str]) -> None:
    """Raise ValueError for a processor of no known kind."""
    if options.get("processor", "any") not in _DIALECTS:
        raise ValueError(f"processor={options['processor']}: one of {', '.join(_DIALECTS)}")


def dialect(precision: str, options: Mapping[str, str]) -> Dialect:
    """Return the int8 numbers of the processor that the options name, or those that are right on any."""
    if precision == "w8":
        return Dialect(activations="float")
    return _DIALECTS[options.get("processor", "any")]


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
    """Convert with torch's dynamo exporter, simplify with onnxsim; fp16 goes through both again with half weights.

    The half-precision form takes and gives float32, so that the same call serves every precision.
    """
    stages = path.parent / "stages"
    stages.mkdir()
    with _quiet():
        results = [
            _timed("convert", stages / "convert.onnx", _convert, model, inputs, outputs, dynamic_batch),
            _timed("simplify", stages / "simplify.onnx", _simplify_single, stages / "convert.onnx"),
        ]
        if precision in QUANTIZED:
            # The model has its int8 numbers already.
            results = [dataclasses.replace(stage, precision=precision) for stage in results]
        if precision == "fp16":
            halved = _timed("precision", stages / "precision.onnx", _halve, model, inputs, outputs, dynamic_batch)
            results.append(dataclasses.replace(halved, precision="fp16"))
    shutil.copyfile(stages / f"{results[-1].name}.onnx", path)
    return tuple(results)


def _timed(name: str, path: Path, step: Callable[..., None], *arguments: Any) -> Stage:
    start = time.perf_counter()
    step(path, *arguments)
    return Stage(name, time.perf_counter() - start, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress of torch's exporter, which goes to standard output even without `verbose`."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield


def _convert(path: Path, model: Any, inputs: Mapping[str, Any], outputs: Sequence[str], dynamic_batch: bool) -> None:
    import torch

    # A batch of 1 would be taken for a constant by the exporter.
    examples = tuple(torch.cat([tensor, tensor]) if dynamic_batch else tensor for tensor in inputs.values())
    program = torch.onnx.export(
        model,
        examples,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        dynamic_shapes=_open_batch(model, examples) if dynamic_batch else None,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    for value, name in zip(program.model.graph.outputs, outputs, strict=True):
        value.name = name
    largest = max((int(each.abs().max()) for each in model.buffers() if each.dtype == torch.int8), default=0)
    if largest > UNSATURATED_WEIGHT and any(node.op_type == "QuantizeLinear" for node in program.model.graph):
        program.model.metadata_props[_LARGEST] = str(largest)
    program.save(str(path))


def _open_batch(model: Any, examples: Sequence[Any]) -> dict[str, Any]:
    """Open the first dimension of every input, by the names of forward's arguments; `*inputs` is one name for all."""
    bound = inspect.signature(model.forward).bind(*examples).arguments
    batch = {0: "batch"}
    return {name: tuple(batch for _ in value) if isinstance(value, tuple) else batch for name, value in bound.items()}


def _simplified(source: Path) -> Any:
    """Return a file's model, simplified. Verification compares it; onnxsim's own comparison is off by default."""
    import onnx
    import onnxsim

    simplified, valid = onnxsim.simplify(onnx.load(str(source)))
    if not valid:
        raise RuntimeError("onnxsim left a graph that is not valid")
    return simplified


def _simplify_single(path: Path, source: Path) -> None:
    """Simplify a file in single precision, and spell a sum that only norms read as Sum instead of Add.

    Both mean the same. ONNX Runtime 1.31 fuses Add and LayerNormalization into one kernel that is slower than the two:
    1.0 ms instead of 0.1 for 3136 tokens of 64, 3% of TurboViT (benchmarks/hiera_forms.py). In half precision it has no
    Sum on the CPU.
    """
    import onnx

    model = _simplified(source)
    readers: dict[str, set[str]] = {value.name: {"output"} for value in model.graph.output}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    for node in model.graph.node:
        if node.op_type == "Add" and readers.get(node.output[0]) == {"LayerNormalization"}:
            node.op_type = "Sum"
    onnx.save(model, str(path))


def _halve(path: Path, model: Any, inputs: Mapping[str, Any], outputs: Sequence[str], dynamic_batch: bool) -> None:
    import onnx

    converted = path.with_name("half.onnx")
    _convert(converted, half_inside(model), inputs, outputs, dynamic_batch)
    onnx.save(_simplified(converted), str(path))
    converted.unlink()


def operators(path: Path) -> Operators:
    """Count the graph's nodes by operator, all of which run on the one provider, and those that compute in int8."""
    counts = _counts(path)
    return Operators(counts, int8=_int8_kernels(path) if "DequantizeLinear" in counts else None)


def _counts(path: Path) -> dict[str, int]:
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return dict(sorted(Counter(node.op_type for node in nodes).items()))


def stated_numbers(path: Path) -> StatedNumbers:
    """Return the numbers of the file's quantizations."""
    import numpy as np
    import onnx

    graph = onnx.load(str(path)).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    arrays |= {
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    weights, grids = [], set()
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scales = arrays[node.input[1]]
        zeros = arrays[node.input[2]] if len(node.input) > 2 else np.zeros_like(scales, np.int8)
        if node.input[0] not in arrays:
            grids.add((float(scales.flat[0]), int(zeros.flat[0])))
            continue
        steps = arrays[node.input[0]]
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        shape = [-1 if dim == axis and scales.size > 1 else 1 for dim in range(steps.ndim)]
        weights.append(stated_weight(node.output[0], steps, zeros.reshape(shape), scales.reshape(shape)))
    return StatedNumbers(tuple(weights), frozenset(grids))


def _int8_kernels(path: Path) -> dict[str, int]:
    """Count the layers on int8 numbers in the form that ONNX Runtime makes of a file on this processor."""
    with tempfile.TemporaryDirectory() as folder:
        options = _options(1)
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        _session(path, options)
        counts = _counts(Path(options.optimized_model_filepath))
    return {name: count for name, count in counts.items() if name in _INT8}


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write metadata_props, sorted by key."""
    import onnx

    model = onnx.load(str(path))
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key == _LARGEST}
    onnx.helper.set_model_props(model, dict(sorted({**metadata, **kept}.items())))
    onnx.save(model, str(path))
