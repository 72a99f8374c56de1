"""OpenVINO's IR, run by OpenVINO on the CPU.

fp16 stores half weights and computes in float32. bf16 stores float32 and computes in bfloat16. OpenVINO computes in
bfloat16 by itself on processors that can, even for an fp32 model. So the file names the precision, and load() pins it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevit_runtime import operator_cost
from edgevit_runtime.dialect import QUANTIZED, UNSATURATED_WEIGHT, Dialect
from edgevit_runtime.quantized_graph import float_weights
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
from edgevit_runtime.stated_numbers import StatedNumbers, stated_weight

RECIPE = Recipe(
    target="openvino",
    suffix="_openvino_model",
    engine="openvino",
    precisions=("fp32", "fp16", "bf16", "int8", "w8"),
    requires=("torch", "openvino"),
    extra="openvino",
    imports=("torch._dynamo",),
    aliases=("ov",),
    harness="benchmark_app",
    processor_needs={"bf16": "bf16"},
    spellings=("average_divisor", "ceil_average", "padded_in_int8"),
    options={"processor": "that runs an int8 file: any (weights of 7 bits) or vnni"},
)
# Numbers of int8 files by the processors that run them. A zero point in a weight would mean kernels in float.
_DIALECTS = {"any": Dialect(largest_weight=UNSATURATED_WEIGHT), "vnni": Dialect()}

# Layers, of which the type of the kernel tells whether they compute in int8.
_COMPUTING = ("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul")
# The path in a model's rt_info that names the precision it computes in.
_PRECISION = ["edgevit", "computes_in"]
# The first runs fill caches, so the counters leave them out.
_UNCOUNTED_RUNS = 3
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which forks a process and sends events unless the user has opted out.

    The telemetry package is hidden from OpenVINO, which then uses a stand-in of its own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoSession:
    """A compiled model with one request."""

    def __init__(self, path: Path, threads: int, *, count: bool = False) -> None:
        ov = _openvino()
        core = ov.Core()
        model = core.read_model(_xml(path))
        hint = _HINTS[str(model.get_rt_info(_PRECISION).value)]
        pinned = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        begin = time.perf_counter_ns()
        compiled = core.compile_model(model, "CPU", pinned | ({"PERF_COUNT": True} if count else {}))
        self.compile_ns = time.perf_counter_ns() - begin
        used = _computes_in(compiled)
        if used != hint:
            raise ProcessorError(hint, f"OpenVINO computes in {used} on this one")
        self.engine_version: str = ov.__version__
        self.provider = f"CPU {hint}"
        self.inputs = tuple(map(_spec, compiled.inputs))
        self.outputs = tuple(map(_spec, compiled.outputs))
        self.compiled = compiled
        self._tensor = ov.Tensor
        self._request = compiled.create_infer_request()
        self._arrays: list[Any] = []

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        import numpy as np

        specs = [spec.at_batch(batch) for spec in self.inputs]
        # The request reads the memory of these arrays, so the session keeps them.
        self._arrays = [
            np.frombuffer(raw, dtype=spec.dtype).reshape(spec.shape).copy()
            for spec, raw in zip(specs, tensors, strict=True)
        ]
        for i, array in enumerate(self._arrays):
            self._request.set_input_tensor(i, self._tensor(array, shared_memory=True))

    def run(self) -> None:
        """Compute once."""
        self._request.infer()

    def counters(self) -> dict[str, int]:
        """Return the nanoseconds of each node in the last run of a session that counts.

        A node that took less than a microsecond has 0, like one that did not run.
        """
        return {node.node_name: round(node.real_time.total_seconds() * 1e9) for node in self._request.profiling_info}

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        return tuple(self._request.get_output_tensor(i).data.tobytes() for i in range(len(self.outputs)))


def _spec(port: Any) -> TensorSpec:
    shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), shape, str(port.get_element_type().to_dtype()))


def snippet(path: str, inputs: Sequence[TensorSpec]) -> str:
    """Run it with OpenVINO in the precision it was verified in."""
    feeds = ", ".join(f'"{spec.name}": {spec.as_numpy()}' for spec in inputs)
    return f"""\
from pathlib import Path

import numpy as np
import openvino as ov

core = ov.Core()
model = core.read_model(next(Path("{path}").glob("*.xml")))
computes_in = {{"fp32": "f32", "bf16": "bf16"}}[model.get_rt_info(["edgevit", "computes_in"]).value]
compiled = core.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": computes_in}})
logits = compiled({{{feeds}}})[0]
print(logits.argmax(-1))
"""


def _computes_in(compiled: Any) -> str:
    """Return the type that a compiled model computes in: the hint, or what OpenVINO took in its place."""
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())


def missing_instructions(precision: str) -> str:
    """Compile one operator in the precision and return the instruction set that the processor lacks for it, or ""."""
    ov = _openvino()
    hint = _HINTS[precision if precision in RECIPE.processor_needs else "fp32"]
    parameter = ov.opset13.parameter([1], ov.Type.f32)
    model = ov.Model([ov.opset13.relu(parameter)], [parameter])
    used = _computes_in(ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint}))
    return "" if used == hint else hint


def import_engine() -> None:
    """Import what load() imports first."""
    _openvino()


def load(path: Path, *, threads: int) -> Session:
    """Open a folder with a model and its weights, in the precision the model asks for."""
    return OpenVinoSession(path, threads)


def layers(path: Path, *, threads: int, tensors: Sequence[bytes], batch: int, runs: int) -> tuple[LayerTime, ...]:
    """Return each node's median time from OpenVINO's own counters, which count in microseconds.

    A node of 0 is left out unless it multiplies: OpenVINO does not tell a fused node from a quick one.
    """
    session = OpenVinoSession(path, threads, count=True)
    session.feed(tensors, batch)
    times: dict[str, list[int]] = {}
    for turn in range(_UNCOUNTED_RUNS + runs):
        session.run()
        if turn >= _UNCOUNTED_RUNS:
            for name, ns in session.counters().items():
                times.setdefault(name, []).append(ns)
    nodes = {op.get_friendly_name(): op for op in session.compiled.get_runtime_model().get_ops()}
    ordered = sorted(
        (_layer(nodes[name], round(statistics.median(ns))) for name, ns in times.items() if name in nodes),
        key=lambda position_and_layer: position_and_layer[0],
    )
    return tuple(layer for _, layer in ordered if layer.ns or layer.macs != 0)


def _layer(node: Any, ns: int) -> tuple[int, LayerTime]:
    """Return the position of a node in the compiled form's order of execution, and its time."""
    info = node.get_rt_info()
    operator = str(info["layerType"].value)
    shapes = [_shape(port) for port in node.inputs()]
    results = [_shape(port) for port in node.outputs()]
    macs: int | None = 0
    if operator in ("Convolution", "GroupConvolution"):
        macs = operator_cost.convolution_macs(shapes[1], results[0])
    elif operator in ("MatMul", "FullyConnected"):
        macs = operator_cost.product_macs(shapes[0], shapes[1], results[0])
    elif operator in ("ScaledDotProductAttention", "Subgraph", "MHA"):  # made of others
        macs = None
    size = ITEM_BYTES.get(str(node.output(0).get_element_type().to_dtype()), 4)
    total = operator_cost.tensors_bytes([*shapes, *results], size)
    layer = LayerTime(node.get_friendly_name(), f"{operator} {info['primitiveType'].value}", ns, macs, total)
    return int(info["execOrder"].value), layer


def _shape(port: Any) -> list[int]:
    """Return the shape of a port, with 1 for an open dimension."""
    return [1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]


def _xml(path: Path) -> Path:
    return next(iter(sorted(path.glob("*.xml"))), path)


def check(options: Mapping[str, str]) -> None:
    """Raise ValueError for a processor of no known kind."""
    if options.get("processor", "any") not in _DIALECTS:
        raise ValueError(f"processor={options['processor']}: one of {', '.join(_DIALECTS)}")


def dialect(precision: str, options: Mapping[str, str]) -> Dialect:
    """Return the int8 numbers of the processor that the options name, or those that are right on any."""
    return Dialect(activations="float") if precision == "w8" else _DIALECTS[options.get("processor", "any")]


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
    """Convert the captured graph without going through ONNX, then write the weights as asked."""
    ov = _openvino()
    name = path.name.removesuffix(RECIPE.suffix)
    stages, start = path.parent / "stages", time.perf_counter()
    converted = _convert(model, inputs, outputs, dynamic_batch)
    # A model in int8 has its numbers already.
    first = precision if precision in QUANTIZED else "fp32"
    results = [_save(converted, stages / f"convert{RECIPE.suffix}", name, first, "convert", start)]
    if precision != first:
        start = time.perf_counter()
        # The file is read again: compressing changes the model in memory.
        again = ov.Core().read_model(_xml(results[0].path))
        results.append(_save(again, stages / f"precision{RECIPE.suffix}", name, precision, "precision", start))
    again = ov.Core().read_model(_xml(results[-1].path))
    path.mkdir()
    # Weights of fp16 are in the model already.
    ov.save_model(again, str(path / f"{name}.xml"), compress_to_fp16=False)
    return tuple(results)


def _convert(model: Any, inputs: Mapping[str, Any], outputs: Sequence[str], dynamic_batch: bool) -> Any:
    import torch

    ov = _openvino()

    examples = tuple(torch.cat([tensor, tensor]) if dynamic_batch else tensor for tensor in inputs.values())
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for example in examples:
        shapes[example] = {0: torch.export.Dim.AUTO} if dynamic_batch else {}
    with torch.no_grad(), quiet():
        # A weight that comes as int8 stays one where OpenVINO's frontend drops the step to float.
        model = float_weights(model) if any(each.dtype == torch.int8 for each in model.buffers()) else model
        program = torch.export.export(model, examples, dynamic_shapes=shapes)
        converted = ov.convert_model(program)
        if any(op.get_type_name() == "FakeQuantize" for op in converted.get_ops()):
            _compress(converted)
    batch = -1 if dynamic_batch else None
    for port, (name, tensor) in zip(converted.inputs, inputs.items(), strict=True):
        port.get_node().set_partial_shape(ov.PartialShape([batch or tensor.shape[0], *tensor.shape[1:]]))
        port.get_tensor().set_names({name})
    converted.validate_nodes_and_infer_types()
    for port, name in zip(converted.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    return converted


def _compress(model: Any) -> None:
    """Store weights that are quantized on the way as int8."""
    from openvino._offline_transformations import compress_quantize_weights_transformation

    compress_quantize_weights_transformation(model)


def _save(model: Any, folder: Path, name: str, precision: str, stage: str, start: float) -> Stage:
    ov = _openvino()
    folder.mkdir(parents=True)
    model.set_rt_info("bf16" if precision == "bf16" else "fp32", _PRECISION)
    if precision == "w8":
        # Beside weights in int8, OpenVINO rounds the activations of fully connected layers to int8, unless told not to.
        model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    ov.save_model(model, str(folder / f"{name}.xml"), compress_to_fp16=precision == "fp16")
    return Stage(stage, time.perf_counter() - start, folder, precision=precision)


def operators(path: Path) -> Operators:
    """Return the model's operators, and those that its compiled form leaves to reference kernels on this processor."""
    ov = _openvino()
    core = ov.Core()
    model = core.read_model(_xml(path))
    counts = Counter(op.get_type_name() for op in model.get_ops())
    pinned: dict[str, Any] = {"INFERENCE_NUM_THREADS": 1}
    pinned["INFERENCE_PRECISION_HINT"] = _HINTS[str(model.get_rt_info(_PRECISION).value)]
    running = core.compile_model(model, "CPU", pinned).get_runtime_model().get_ops()
    kernels = [(op.get_rt_info()["layerType"].value, op.get_rt_info()["primitiveType"].value) for op in running]
    slow = Counter(kind for kind, kernel in kernels if kernel.startswith("ref"))
    # The type stands at the end: brgconv_avx512_1x1_I8. `runtimePrecision` says u8 of products in float, too.
    int8 = Counter(kind for kind, kernel in kernels if kernel.endswith("_I8") and kind in _COMPUTING)
    for kind in ("Constant", "Parameter", "Result"):
        counts.pop(kind, None)
    return Operators(
        dict(sorted(counts.items())),
        dict(sorted(slow.items())),
        dict(sorted(int8.items())) if "FakeQuantize" in counts else None,
    )


def stated_numbers(path: Path) -> StatedNumbers:
    """Return the numbers of the model's weights, and of its quantizations of activations."""
    import numpy as np

    weights, grids = [], set()
    for op in _openvino().Core().read_model(_xml(path)).get_ordered_ops():
        kind = op.get_type_name()
        if kind == "Constant" and op.get_element_type().to_string() in ("i8", "u8") and _readers(op, "Convert"):
            (convert,) = _readers(op, "Convert")
            shifts, steps = _readers(convert, "Subtract"), op.get_data()
            zeros = _constant(shifts[0]) if shifts else np.zeros((1,) * steps.ndim)
            for product in _readers(shifts[0] if shifts else convert, "Multiply"):
                weights.append(stated_weight(product.get_friendly_name(), steps, zeros, _constant(product)))
        elif kind == "FakeQuantize":
            low, high = (float(op.input_value(end).get_node().get_data().flat[0]) for end in (1, 2))
            scale = (high - low) / (op.get_attributes()["levels"] - 1)
            grids.add((scale, round(-low / scale)))
    return StatedNumbers(tuple(weights), frozenset(grids))


def _readers(op: Any, kind: str) -> list[Any]:
    """Return the operators of a kind that read an operator's result."""
    readers = (port.get_node() for port in op.output(0).get_target_inputs())
    return [reader for reader in readers if reader.get_type_name() == kind]


def _constant(op: Any) -> Any:
    """Return the second operand, in float32 where it is stored in a narrower type."""
    source = op.input_value(1).get_node()
    source = source.input_value(0).get_node() if source.get_type_name() == "Convert" else source
    return source.get_data()


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata into the model's rt_info, under `metadata`; the weights stay as they are."""
    ov = _openvino()
    xml = _xml(path)
    model = ov.Core().read_model(xml)
    for key, value in sorted(metadata.items()):
        model.set_rt_info(value, ["metadata", key])
    temporary = path / "annotated.xml"
    ov.save_model(model, str(temporary), compress_to_fp16=False)
    # The model maps the weights that are replaced now.
    del model
    temporary.with_suffix(".bin").replace(xml.with_suffix(".bin"))
    temporary.replace(xml)
