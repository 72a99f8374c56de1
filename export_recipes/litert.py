"""LiteRT models (.tflite), run by LiteRT on the CPU, with XNNPACK where that can.

fp16 stores the weights of convolutions and fully connected layers in half precision and computes in float32. Inputs
keep the model's own layout, NCHW: what the converter transposes inside, it transposes back.
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

from edgevit_runtime.record import Operators, Recipe, Session, Stage, TensorSpec, output_names
from edgevit_runtime.silence_converters import quiet

RECIPE = Recipe(
    target="litert",
    suffix=".tflite",
    engine="ai-edge-litert",
    precisions=("fp32", "fp16"),
    requires=("torch", "litert-torch", "ai-edge-quantizer"),
    extra="litert",
    native="benchmark_model",
    harness="litert_benchmark",
    aliases=("tflite",),
    fixed_batch="XNNPACK plans its part of a model for one batch, and leaves the rest to slow kernels",
)


class LiteRtSession:
    """An interpreter with its thread count pinned; it hands XNNPACK what that can compute."""

    def __init__(self, path: Path, threads: int) -> None:
        import importlib.metadata

        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self.engine_version: str = importlib.metadata.version("ai-edge-litert")
        left = fallbacks(self._interpreter)
        self.provider = "XNNPACK" if left is not None else "LiteRT's own kernels"
        (signature,) = self._interpreter._get_full_signature_list().values()
        told = {item["index"]: item for item in self._interpreter.get_tensor_details()}
        self.inputs = tuple(_spec(name, told[index]) for name, index in signature["inputs"].items())
        self.outputs = tuple(_spec(name, told[index]) for name, index in signature["outputs"].items())
        self._in, self._out = (list(signature[end].values()) for end in ("inputs", "outputs"))

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        import numpy as np

        for index, spec, raw in zip(self._in, self.inputs, tensors, strict=True):
            self._interpreter.set_tensor(index, np.frombuffer(raw, spec.dtype).reshape(spec.at_batch(batch).shape))

    def run(self) -> None:
        """Compute once."""
        self._interpreter.invoke()

    def fetch(self) -> tuple[bytes, ...]:
        """The last outputs, raw."""
        return tuple(self._interpreter.get_tensor(index).tobytes() for index in self._out)


def _spec(name: str, told: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    return TensorSpec(name, tuple(map(int, told["shape"])), np.dtype(told["dtype"]).name)


def fallbacks(interpreter: Any) -> dict[str, int] | None:
    """How often each operator is called outside XNNPACK; None where XNNPACK has no part in it.

    The interpreter lists the operators as they were and, after them, the parts that XNNPACK took: what such a part
    took lies between its outputs and its inputs.
    """
    listed = interpreter._get_ops_details()
    parts = [item for item in listed if item["op_name"] == "DELEGATE"]
    plain = [item for item in listed if item["op_name"] != "DELEGATE"]
    makers = {int(tensor): item for item in plain for tensor in item["outputs"]}
    taken: set[int] = set()
    for part in parts:
        known, open_ = {int(tensor) for tensor in part["inputs"]}, [int(tensor) for tensor in part["outputs"]]
        while open_:
            tensor = open_.pop()
            if tensor in known or tensor not in makers:
                continue
            known.add(tensor)
            taken.add(makers[tensor]["index"])
            open_ += [int(given) for given in makers[tensor]["inputs"]]
    left = Counter(item["op_name"] for item in plain if item["index"] not in taken)
    return dict(sorted(left.items())) if parts else None


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
    """What load() does first."""
    import ai_edge_litert.interpreter  # noqa: F401


def load(path: Path, *, threads: int) -> Session:
    """Open a model with LiteRT on the CPU."""
    return LiteRtSession(path, threads)


def export(
    model: Any,
    inputs: Mapping[str, Any],
    path: Path,
    *,
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
        _convert(model, inputs, stages / "convert.tflite")
    done = [Stage("convert", time.perf_counter() - start, stages / "convert.tflite")]
    if precision == "fp16":
        start = time.perf_counter()
        with _quiet():
            _halve(done[0].path, stages / "precision.tflite")
        done.append(Stage("precision", time.perf_counter() - start, stages / "precision.tflite", precision="fp16"))
    path.write_bytes(done[-1].path.read_bytes())
    return tuple(done)


def _convert(model: Any, inputs: Mapping[str, Any], path: Path) -> None:
    import litert_torch

    litert_torch.convert(model, tuple(inputs.values())).export(str(path))
    _rename(path, list(inputs))


def _rename(path: Path, names: Sequence[str]) -> None:
    """Give the ends of the one signature the names of the model's inputs, and of outputs as other targets have them."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    (signature,) = model.signatureDefs
    outputs = output_names(len(signature.outputs))
    for ends, new in ((signature.inputs, names), (signature.outputs, outputs)):
        for end, name in zip(ends, new, strict=True):
            end.name = name
    flatbuffer_utils.write_model(model, str(path))


def _halve(source: Path, path: Path) -> None:
    """Weights of convolutions and fully connected layers in half precision, which XNNPACK widens once, when loaded."""
    import numpy as np
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    recipe = recipe_manager.RecipeManager()
    for kind in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP"):
        recipe.add_weight_only_config(
            ".*", TFLOperationName[kind], num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    made = quantizer.Quantizer(source, recipe.get_quantization_recipe())
    with np.errstate(over="ignore"):  # of a weight too large for half precision, which verification will tell
        made.quantize(enable_progress_bar=False, enable_progress_report=False).export_model(path)


def operators(path: Path) -> Operators:
    """The model's operators, and those that XNNPACK leaves to LiteRT's own kernels on this processor."""
    from ai_edge_litert.interpreter import Interpreter

    with _quiet():
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    counts = Counter(item["op_name"] for item in interpreter._get_ops_details())
    counts.pop("DELEGATE", None)
    left = fallbacks(interpreter)
    return Operators(dict(sorted(counts.items())), counts if left is None else left)


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
    """Keep the converter's progress, which goes to all streams, to itself; where it fails, what it said comes out."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said, contextlib.redirect_stdout(io.StringIO()), quiet():
        os.dup2(said.fileno(), 2)  # its C++ writes there
        failed = True
        try:
            with contextlib.redirect_stderr(io.TextIOWrapper(said, write_through=True)) as text:
                yield
            failed = False
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            if failed:
                sys.stderr.write(said.read().decode(errors="replace"))
            text.detach()
