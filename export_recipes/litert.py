"""LiteRT models (.tflite), run by LiteRT on the CPU, with XNNPACK for the operators that it has.

fp16 stores the weights of convolutions and fully connected layers in half precision and computes in float32. Inputs
keep the model's own layout, NCHW: the converter transposes inside, and back.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevit_runtime.dialect import QUANTIZED, Dialect, Keeper
from edgevit_runtime.quantized_graph import float_weights, one_reader_each
from edgevit_runtime.record import FormRule, Operators, Recipe, Session, Stage, TensorSpec
from edgevit_runtime.silence_converters import quiet
from edgevit_runtime.stated_numbers import StatedNumbers, stated_weight

RECIPE = Recipe(
    target="litert",
    suffix=".tflite",
    engine="ai-edge-litert",
    precisions=("fp32", "fp16", "int8"),
    requires=("torch", "litert-torch", "ai-edge-quantizer"),
    extra="litert",
    imports=("torch._dynamo",),
    native="benchmark_model",
    harness="litert_benchmark",
    aliases=("tflite",),
    fixed_batch="XNNPACK plans its part of a model for one batch, and leaves the rest to slow kernels",
    spellings=("average_in_int8", "bilinear", "ceil_max", "nearest"),
    # XNNPACK has no fast depthwise kernel for more taps.
    forms=(FormRule("depthwise_taps_25", above_taps=25),),
)


# Layers, of which the types of the ends tell whether they compute in int8.
_COMPUTING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


class LiteRtSession:
    """An interpreter with its thread count pinned; XNNPACK computes the operators that it has."""

    def __init__(self, path: Path, threads: int) -> None:
        import importlib.metadata

        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self.engine_version: str = importlib.metadata.version("ai-edge-litert")
        has_delegate = fallbacks(self._interpreter) is not None
        self.provider = "XNNPACK" if has_delegate else "LiteRT's own kernels"
        (signature,) = self._interpreter._get_full_signature_list().values()
        details = {tensor["index"]: tensor for tensor in self._interpreter.get_tensor_details()}
        inputs = _in_order(signature["inputs"], self._interpreter.get_input_details())
        outputs = _in_order(signature["outputs"], self._interpreter.get_output_details())
        self.inputs = tuple(_spec(name, details[index]) for name, index in inputs.items())
        self.outputs = tuple(_spec(name, details[index]) for name, index in outputs.items())
        self._in, self._out = list(inputs.values()), list(outputs.values())

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        import numpy as np

        for index, spec, raw in zip(self._in, self.inputs, tensors, strict=True):
            self._interpreter.set_tensor(index, np.frombuffer(raw, spec.dtype).reshape(spec.at_batch(batch).shape))

    def run(self) -> None:
        """Compute once."""
        self._interpreter.invoke()

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        return tuple(self._interpreter.get_tensor(index).tobytes() for index in self._out)


def _in_order(ends: Mapping[str, int], tensors: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the ends of a signature, which is sorted by name, in the order of the model's tensors."""
    order = [tensor["index"] for tensor in tensors]
    return dict(sorted(ends.items(), key=lambda end: order.index(end[1])))


def _spec(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    return TensorSpec(name, tuple(map(int, detail["shape"])), np.dtype(detail["dtype"]).name)


def fallbacks(interpreter: Any) -> dict[str, int] | None:
    """Count the operators that run outside XNNPACK; None where XNNPACK runs no part of the model.

    The interpreter lists the original operators and, after them, XNNPACK's parts. The operators of a part lie between
    its outputs and its inputs.
    """
    listed = interpreter._get_ops_details()
    parts = [op for op in listed if op["op_name"] == "DELEGATE"]
    plain = [op for op in listed if op["op_name"] != "DELEGATE"]
    producers = {int(tensor): op for op in plain for tensor in op["outputs"]}
    delegated: set[int] = set()
    for part in parts:
        visited, pending = {int(tensor) for tensor in part["inputs"]}, [int(tensor) for tensor in part["outputs"]]
        while pending:
            tensor = pending.pop()
            if tensor in visited or tensor not in producers:
                continue
            visited.add(tensor)
            delegated.add(producers[tensor]["index"])
            pending += [int(source) for source in producers[tensor]["inputs"]]
    outside = Counter(op["op_name"] for op in plain if op["index"] not in delegated)
    return dict(sorted(outside.items())) if parts else None


def snippet(path: str, inputs: Sequence[TensorSpec]) -> str:
    """Run it with LiteRT."""
    feeds = ", ".join(f"{spec.name}={spec.as_numpy()}" for spec in inputs)
    return f"""\
import numpy as np
from ai_edge_litert.interpreter import Interpreter

model = Interpreter("{path}").get_signature_runner()
logits = next(iter(model({feeds}).values()))
print(logits.argmax(-1))
"""


def import_engine() -> None:
    """Import what load() imports first."""
    import ai_edge_litert.interpreter  # noqa: F401


def load(path: Path, *, threads: int) -> Session:
    """Open a model with LiteRT on the CPU."""
    return LiteRtSession(path, threads)


def dialect(precision: str, options: Mapping[str, str]) -> Dialect:
    """Return LiteRT's own numbers: signed, with a zero point for activations alone.

    Its converter puts each pool, clip, concatenation and resizing beside int8 numbers into int8, and takes the grid of
    one of their tensors for all of them. The kernel of pools rounds half a step away from zero, always.
    """
    keepers: tuple[Keeper, ...] = ("uneven_average", "clip", "concatenation", "resize")
    return Dialect(activations="int8", keepers=keepers, softmax=(1 / 256, -128))


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
    """Convert the captured graph without going through ONNX, then store the weights as asked.

    Raises ValueError for an open batch.
    """
    if dynamic_batch:
        raise ValueError(RECIPE.fixed_batch)
    stages = path.parent / "stages"
    stages.mkdir()
    start = time.perf_counter()
    with _quiet():
        _convert(model, inputs, outputs, stages / "convert.tflite")
    # A model in int8 has its numbers already.
    first = precision if precision in QUANTIZED else "fp32"
    results = [Stage("convert", time.perf_counter() - start, stages / "convert.tflite", precision=first)]
    if precision == "fp16":
        start = time.perf_counter()
        with _quiet():
            _halve(results[0].path, stages / "precision.tflite")
        results.append(Stage("precision", time.perf_counter() - start, stages / "precision.tflite", precision="fp16"))
    path.write_bytes(results[-1].path.read_bytes())
    return tuple(results)


def _convert(model: Any, inputs: Mapping[str, Any], outputs: Sequence[str], path: Path) -> None:
    import litert_torch
    import torch

    config = None
    if any(each.dtype == torch.int8 for each in model.buffers()):
        # Its converter has no weight that comes as int8.
        model, config = one_reader_each(float_weights(model)), _quantized_config()
    litert_torch.convert(model, tuple(inputs.values()), quant_config=config).export(str(path))
    _rename(path, list(inputs), outputs)
    if config is not None:
        _open_ends(path)


def _open_ends(path: Path) -> None:
    """Give a model whose ends the converter left in int8 ends in float, as a call has them in every precision."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    (signature,) = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    ends = (
        (graph.inputs, signature.inputs, schema.BuiltinOperator.QUANTIZE, schema.QuantizeOptionsT()),
        (graph.outputs, signature.outputs, schema.BuiltinOperator.DEQUANTIZE, schema.DequantizeOptionsT()),
    )
    for tensors, named, kind, options in ends:
        for position, number in enumerate(map(int, tensors)):
            inner = graph.tensors[number]
            if inner.type != schema.TensorType.INT8:
                continue
            outer, operator = schema.TensorT(), schema.OperatorT()
            outer.name, outer.shape, outer.shapeSignature = inner.name + b"_float", inner.shape, inner.shapeSignature
            outer.type, outer.buffer = schema.TensorType.FLOAT32, 0
            graph.tensors.append(outer)
            outside = len(graph.tensors) - 1
            is_input = kind == schema.BuiltinOperator.QUANTIZE
            operator.inputs, operator.outputs = ([outside], [number]) if is_input else ([number], [outside])
            operator.opcodeIndex = _opcode(model, kind)
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            graph.operators.insert(0 if is_input else len(graph.operators), operator)
            tensors[position] = outside
            for part in named:
                part.tensorIndex = outside if part.tensorIndex == number else part.tensorIndex
    flatbuffer_utils.write_model(model, str(path))


def _opcode(model: Any, kind: int) -> int:
    """Return the index of an operator's code in a model, which gets it where it has none."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 2  # the first for int8
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _quantized_config() -> Any:
    """Return the setting by which the converter makes int8 operators of quantizations that are in a graph already."""
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    return QuantConfig(
        pt2e_quantizer=PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    )


def _rename(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the ends of the one signature the names of the model's inputs and outputs."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    (signature,) = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    ends = ((signature.inputs, graph.inputs, inputs), (signature.outputs, graph.outputs, outputs))
    for parts, tensors, names in ends:
        order = [int(tensor) for tensor in tensors]
        for part, name in zip(sorted(parts, key=lambda part: order.index(part.tensorIndex)), names, strict=True):
            part.name = name
    flatbuffer_utils.write_model(model, str(path))


def _halve(source: Path, path: Path) -> None:
    """Store weights of convolutions and fully connected layers in half precision; XNNPACK widens them when loaded."""
    import numpy as np
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    recipe = recipe_manager.RecipeManager()
    for kind in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP"):
        recipe.add_weight_only_config(
            ".*", TFLOperationName[kind], num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    converter = quantizer.Quantizer(source, recipe.get_quantization_recipe())
    # A weight too large for half precision overflows here, and verification reports it.
    with np.errstate(over="ignore"):
        converter.quantize(enable_progress_bar=False, enable_progress_report=False).export_model(path)


def operators(path: Path) -> Operators:
    """Return the model's operators, and those that XNNPACK leaves to LiteRT's own kernels on this processor."""
    from ai_edge_litert.interpreter import Interpreter

    with _quiet():
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    counts = Counter(op["op_name"] for op in interpreter._get_ops_details())
    counts.pop("DELEGATE", None)
    outside, int8 = fallbacks(interpreter), _int8(interpreter)
    return Operators(dict(sorted(counts.items())), counts if outside is None else outside, int8 or None)


def _int8(interpreter: Any) -> dict[str, int]:
    """Count the layers that compute int8 numbers from int8 numbers."""
    import numpy as np

    dtypes = {tensor["index"]: np.dtype(tensor["dtype"]) for tensor in interpreter.get_tensor_details()}

    def is_int8(op: Mapping[str, Any]) -> bool:
        return all(dtypes.get(int(end)) == np.int8 for end in (op["inputs"][0], op["outputs"][0]))

    listed = (op for op in interpreter._get_ops_details() if op["op_name"] in _COMPUTING)
    computed = (op["op_name"] for op in listed if is_int8(op))
    return dict(sorted(Counter(computed).items()))


def stated_numbers(path: Path) -> StatedNumbers:
    """Return the numbers of the model's layers, and of its activations."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name in _COMPUTING}
    weights, grids = [], set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            has_data = model.buffers[tensor.buffer].data is not None
            if tensor.type == schema.TensorType.INT8 and not has_data and tensor.quantization is not None:
                grids.add((float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])))
        for operator in graph.operators:
            kind = names.get(model.operatorCodes[operator.opcodeIndex].builtinCode, "")
            weight = graph.tensors[operator.inputs[1]] if kind else None
            if weight is None or weight.type != schema.TensorType.INT8:
                continue
            steps = np.frombuffer(bytes(model.buffers[weight.buffer].data), np.int8).reshape(weight.shape)
            # Channels are last; outputs are first, but for depthwise layers.
            order = {"DEPTHWISE_CONV_2D": (3, 0, 1, 2)}.get(kind, (0, 3, 1, 2))
            steps = steps.transpose(order) if steps.ndim == len(order) else steps
            ends = (weight.quantization.scale, weight.quantization.zeroPoint)
            scales, zeros = (np.array(end).reshape(-1, *[1] * (steps.ndim - 1)) for end in ends)
            weights.append(stated_weight(weight.name.decode(), steps, zeros, scales))
    return StatedNumbers(tuple(weights), frozenset(grids))


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata into the model's own table."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    for key, value in sorted(metadata.items()):
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(value.encode())
        entry.name, entry.buffer = key, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    flatbuffer_utils.write_model(model, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the converter's progress, which goes to all streams; print it if the converter fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as log, contextlib.redirect_stdout(io.StringIO()), quiet():
        # Its C++ code writes to the file descriptor.
        os.dup2(log.fileno(), 2)
        failed = True
        try:
            with contextlib.redirect_stderr(io.TextIOWrapper(log, write_through=True)) as text:
                yield
            failed = False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            if failed:
                sys.stderr.write(log.read().decode(errors="replace"))
            text.detach()
