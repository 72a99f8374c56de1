"""ExecuTorch programs, run by ExecuTorch on the CPU with the XNNPACK backend.

XNNPACK takes a part of the graph as a whole, or leaves it to ExecuTorch's own kernels; at each border tensors are
copied, and a part costs seconds to convert. So the graph is spelled first in operators that XNNPACK has: attention as
two batched products around a softmax, rolls as slices and a concatenation, chunks and picks as slices and reshapes.

fp16 computes in half precision but for the softmax of attention. GELU, which XNNPACK has in float32 alone, goes to
ExecuTorch's own kernel. ExecuTorch's serializer always writes weights of convolutions in float32.

The engine's Python package takes and gives torch tensors: on this target, unlike the others, load() needs torch.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevit_runtime.dialect import QUANTIZED, Dialect
from edgevit_runtime.input_layouts import half_inside
from edgevit_runtime.quantized_graph import one_reader_each
from edgevit_runtime.record import FormRule, LayerTime, Operators, Recipe, Session, Stage, TensorSpec
from edgevit_runtime.silence_converters import quiet
from edgevit_runtime.xnnpack_spelling import respelled

RECIPE = Recipe(
    target="executorch",
    suffix=".pte",
    engine="executorch",
    precisions=("fp32", "fp16", "int8"),
    requires=("torch", "executorch"),
    extra="executorch",
    imports=("torch._dynamo",),
    native="executor_runner",
    aliases=("et", "pte"),
    fixed_batch="a program has its memory planned for one batch when it is written",
    spellings=("bilinear", "tanh_gelu"),
    # XNNPACK has no fast depthwise kernel for more taps.
    forms=(FormRule("depthwise_taps_25", above_taps=25),),
)

# A method of a program that returns the inputs' names, which the format itself does not hold.
NAMES, OUTPUT_NAMES = "input_names", "output_names"
# A method that returns, as JSON, the graph's operators and those that run in ExecuTorch's kernels.
OPERATORS = "operators"
# The first runs pack weights and fill caches, so a trace leaves them out.
_UNCOUNTED_RUNS = 3
# Events of a trace that contain other events.
_WHOLES = ("DELEGATE_CALL", "OPERATOR_CALL", "Method::execute")
_LAYERS = ("aten.conv", "aten.linear", "aten._convolution")
# Activations that XNNPACK computes by the ends of an int8 grid.
_CLIPS = ("aten.relu.default", "aten.hardtanh.default", "aten.clamp.default")
# The suffix of the stages before the lowering: graphs that torch runs.
_GRAPH = ".pt2"


class ExecuTorchSession:
    """The method `forward` of a program, with XNNPACK's thread pool of a given size."""

    def __init__(self, path: Path, threads: int) -> None:
        import importlib.metadata

        import torch  # noqa: F401, whose libraries the engine's own is linked with

        # executorch.runtime passes this module on, and takes three seconds to import the converter.
        from executorch.extension.pybindings import _C

        _C._unsafe_reset_threadpool(threads)
        used = _C._threadpool_get_thread_count()
        if used != threads:
            raise RuntimeError(f"ExecuTorch's pool has {used} threads where {threads} were asked for")
        self._program = _C._load_program(str(path))
        begin = time.perf_counter_ns()
        self._method: Any = self._program.load_method("forward")
        # XNNPACK builds its operators and packs their weights in this time.
        self.compile_ns = time.perf_counter_ns() - begin
        names, outputs = (str(self._program.load_method(kind)()[0]).splitlines() for kind in (NAMES, OUTPUT_NAMES))
        meta = self._method.method_meta()
        self.engine_version: str = importlib.metadata.version("executorch")
        self.provider = "XnnpackBackend"
        self.inputs = tuple(_spec(meta.input_tensor_meta(i), name) for i, name in enumerate(names))
        self.outputs = tuple(_spec(meta.output_tensor_meta(i), name) for i, name in enumerate(outputs))
        self._feeds: list[Any] = []
        self._results: Sequence[Any] = ()

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        self._feeds = _tensors(self.inputs, tensors, batch)

    def run(self) -> None:
        """Compute once."""
        self._results = self._method(self._feeds)

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        return tuple(result.numpy().tobytes() for result in self._results)


class GraphSession:
    """A session of a stage before the lowering: torch computes its graph."""

    def __init__(self, path: Path, threads: int) -> None:
        import torch
        from torch.ao.quantization.fx import _decomposed  # noqa: F401, which registers the operators of int8

        torch.set_num_threads(threads)
        extra = {"specs": ""}
        self._module = torch.export.load(path, extra_files=extra).module()
        inputs, outputs = json.loads(extra["specs"])
        self.engine_version: str = torch.__version__
        self.provider = "torch, not lowered"
        self.inputs, self.outputs = (tuple(TensorSpec(n, tuple(s), d) for n, s, d in x) for x in (inputs, outputs))
        self._feeds: list[Any] = []
        self._results: list[Any] = []

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        self._feeds = _tensors(self.inputs, tensors, batch)

    def run(self) -> None:
        """Compute once."""
        import torch

        with torch.inference_mode():
            self._results = torch.utils._pytree.tree_leaves(self._module(*self._feeds))

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        return tuple(result.contiguous().numpy().tobytes() for result in self._results)


def _spec(meta: Any, name: str) -> TensorSpec:
    return TensorSpec(name, tuple(meta.sizes()), _DTYPES[meta.dtype()])


# ExecuTorch's numbers for element types, as NumPy spells them.
_DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool"}


def _tensors(specs: Sequence[TensorSpec], tensors: Sequence[bytes], batch: int) -> list[Any]:
    import torch

    pairs = zip((spec.at_batch(batch) for spec in specs), tensors, strict=True)
    return [torch.frombuffer(bytearray(raw), dtype=getattr(torch, s.dtype)).reshape(s.shape) for s, raw in pairs]


def snippet(path: str, inputs: Sequence[TensorSpec]) -> str:
    """Run it with ExecuTorch, whose Python package takes torch tensors."""
    feeds = ", ".join(f"torch.from_numpy({spec.as_numpy()})" for spec in inputs)
    return f"""\
import numpy as np
import torch
from executorch.runtime import Runtime

method = Runtime.get().load_program("{path}").load_method("forward")
logits = method.execute([{feeds}])[0]
print(logits.argmax(-1))
"""


def import_engine() -> None:
    """Import what load() imports first."""
    with quiet():
        import torch  # noqa: F401, whose libraries the engine's own is linked with
        from executorch.extension.pybindings import _C  # noqa: F401


def layers(path: Path, *, threads: int, tensors: Sequence[bytes], batch: int, runs: int) -> tuple[LayerTime, ...]:
    """Return the times of XNNPACK and of ExecuTorch's own kernels from its event trace (ETDump), which has no shapes.

    Reading the trace needs executorch.devtools, which is in the distribution.
    """
    session = ExecuTorchSession(path, threads)
    feeds = _tensors(session.inputs, tensors, batch)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        from executorch.devtools import Inspector
        from executorch.extension.pybindings import _C

        module = _C._load_for_executorch(str(path), enable_etdump=True)
        for _ in range(_UNCOUNTED_RUNS + runs):
            module.run_method("forward", tuple(feeds))
        module.write_etdump_result_to_file(f"{folder}/trace.etdp")
        blocks = Inspector(etdump_path=f"{folder}/trace.etdp").event_blocks
    events = [event for block in blocks if block.name == "Execute" for event in block.events]
    return tuple(
        LayerTime(event.name, event.name.split(" #")[0], round(1e6 * statistics.median(event.perf_data.raw[-runs:])))
        for event in events
        if event.name not in _WHOLES
    )


def load(path: Path, *, threads: int) -> Session:
    """Open a program, or the graph that a stage left, with torch in the process."""
    with quiet():
        return GraphSession(path, threads) if path.suffix == _GRAPH else ExecuTorchSession(path, threads)


def dialect(precision: str, options: Mapping[str, str]) -> Dialect:
    """Return the numbers of XNNPACK's kernels: signed, with a zero point for activations alone.

    It takes each concatenation of int8 numbers for one in int8, which it refuses unless all of them are on one grid.
    """
    return Dialect(activations="int8", keepers=("concatenation",), aligns=False)


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
    """Respell the graph in XNNPACK's operators, halve it if asked, and lower it.

    Raises ValueError for an open batch.
    """
    if dynamic_batch:
        raise ValueError(RECIPE.fixed_batch)
    stages = path.parent / "stages"
    stages.mkdir()
    with quiet():
        start = time.perf_counter()
        program = respelled(one_reader_each(model) if precision in QUANTIZED else model, inputs)
        # A model in int8 has its numbers already.
        first = precision if precision in QUANTIZED else "fp32"
        results = [_keep(program, inputs, outputs, stages, "respell", first, start)]
        if precision == "fp16":
            start = time.perf_counter()
            program = respelled(half_inside(model), inputs)
            results.append(_keep(program, inputs, outputs, stages, "halve", "fp16", start))
        start = time.perf_counter()
        lowered = _lowered(program, list(inputs), outputs)
    result = stages / f"lower{RECIPE.suffix}"
    for file in (path, result):
        file.write_bytes(lowered)
    return (*results, Stage("lower", time.perf_counter() - start, result, precision=precision))


# ---- stages --------------------------------------------------------------------------------------------------------


def _keep(
    program: Any,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    folder: Path,
    name: str,
    precision: str,
    start: float,
) -> Stage:
    """Save a graph with the names, shapes and dtypes of its ends."""
    import torch

    nodes = next(iter(reversed(program.graph.nodes))).args[0]
    ends = (inputs.items(), zip(outputs, (node.meta["val"] for node in nodes), strict=True))
    specs = [
        [[name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in end] for end in ends
    ]
    path = folder / f"{name}{_GRAPH}"
    torch.export.save(program, path, extra_files={"specs": json.dumps(specs)})
    return Stage(name, time.perf_counter() - start, path, precision=precision)


def _lowered(program: Any, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Lower a program and return its bytes. Its methods give the ends' names and the operators outside XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, EdgeProgramManager, to_edge_transform_and_lower

    # Verification judges the result.
    checks = EdgeCompileConfig(_check_ir_validity=False)
    # Lowering empties the graph.
    counts, int8 = _operators(program.graph), _int8(program.graph)
    with _without_patterns():
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], compile_config=checks)
    edge_program = edge.exported_program()
    methods = {
        NAMES: "\n".join(inputs),
        OUTPUT_NAMES: "\n".join(outputs),
        OPERATORS: json.dumps([counts, _operators(edge_program.graph), int8]),
    }
    final = EdgeProgramManager(edge_program, constant_methods=methods, compile_config=checks)
    return bytes(final.to_executorch().buffer)


@contextlib.contextmanager
def _without_patterns() -> Iterator[None]:
    """Skip patterns of XNNPACK's passes that no graph here has; tracing them takes a quarter of the time.

    They are attention with a mask of two axes in torch's own decomposition, and resizing decomposed by hand.
    """
    from unittest import mock

    from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa

    with mock.patch.object(bilinear_2d, "get_graphs_dict", dict), mock.patch.object(sdpa, "get_graphs", list):
        yield


def _operators(graph: Any) -> dict[str, int]:
    """Count the calls of each operator; in a lowered graph those outside the delegate."""
    import torch

    calls = (node.target for node in graph.nodes if node.op == "call_function")
    # An operator of a lowered graph stands for one of torch's.
    named = (
        str(target if isinstance(target, torch._ops.OpOverload) else getattr(target, "_op", target)) for target in calls
    )
    return dict(sorted(Counter(name for name in named if name.startswith(("aten.", "dim_order_ops."))).items()))


def _int8(graph: Any) -> dict[str, int]:
    """Count the layers between quantizations, which XNNPACK computes in int8; it leaves no such pattern behind."""

    def is_called(node: Any, name: str) -> bool:
        return node.op == "call_function" and str(node.target).startswith(f"quantized_decomposed.{name}")

    computed = (
        str(node.target)
        for node in graph.nodes
        if node.op == "call_function"
        and node.all_input_nodes
        and is_called(node.all_input_nodes[0], "dequantize_per_tensor")
        and all(_ends_in_int8(user, is_called) for user in node.users)
    )
    return dict(sorted(Counter(name for name in computed if name.startswith(_LAYERS)).items()))


def _ends_in_int8(user: Any, is_called: Any) -> bool:
    """Return whether a result is quantized at once, or behind an activation that clips."""
    return is_called(user, "quantize_per_tensor") or (
        str(user.target) in _CLIPS and all(is_called(each, "quantize_per_tensor") for each in user.users)
    )


def operators(path: Path) -> Operators:
    """Return the graph's operators as XNNPACK received them, and those that it left to ExecuTorch's own kernels."""
    import torch  # noqa: F401, whose libraries the engine's own is linked with
    from executorch.extension.pybindings import _C

    counts, outside, int8 = json.loads(_C._load_program(str(path)).load_method(OPERATORS)()[0])
    return Operators(counts, outside, int8 or None)


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata beside the program, which has no place for what is known only once it is verified.

    Programs of one network with another preprocessing or other labels are the same bytes. Their artifacts must not be.
    """
    beside = path.with_name(f"{path.name}.json")
    beside.write_text(json.dumps(dict(sorted(metadata.items())), indent=1) + "\n", encoding="utf-8")
