"""ncnn's param and bin files, run by ncnn on the CPU.

fp16 stores half weights. Both precisions take, compute and give float32, so that every processor runs the verified
arithmetic. By default ncnn computes in half or bfloat16 where a processor can.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.input_layouts import of_planes
from edgevit_runtime.record import Operators, Recipe, Session, Stage, TensorSpec
from edgevit_runtime.silence_converters import quiet

_SPELLINGS = (
    "average_divisor", "ceil_average", "circular_pad", "deep_transpose", "matrix_transpose", "remainder",
    "strided_slice",
)  # fmt: skip
RECIPE = Recipe(
    target="ncnn",
    suffix="_ncnn_model",
    engine="ncnn",
    precisions=("fp32", "fp16"),
    requires=("torch", "pnnx"),
    extra="ncnn",
    imports=("torch._dynamo",),
    native="benchncnn",
    fixed_batch="pnnx writes fixed shapes",
    input_dtypes=("float32", "int32", "int64", "uint8"),
    spellings=_SPELLINGS,
)

_PARAM, _BIN, _SIDECAR = "model.ncnn.param", "model.ncnn.bin", "metadata.json"
_TIMEOUT_S, _MOST_SLICES = 600, 32  # the slices that a gather may become
_MOST_AXES = 5  # of a tensor in ncnn: a batch and four
_Axis = tuple[int, int]  # size, and a number that no other axis has
_OFF = (
    "use_vulkan_compute", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed",
    "use_bf16_storage", "use_int8_inference", "use_int8_packed", "use_int8_storage", "use_int8_arithmetic",
)  # fmt: skip
_ON = (
    "lightmode", "use_packing_layout", "use_sgemm_convolution", "use_winograd_convolution",
    "use_winograd23_convolution", "use_winograd43_convolution", "use_winograd63_convolution",
)  # fmt: skip
# Types of tensors inside ncnn. A raw image (N, H, W, 3) becomes planes (N, 3, H, W) of 0.0 to 255.0.
_MAT_DTYPES = {"float32": "float32", "int32": "int32", "int64": "int32", "uint8": "float32"}


@dataclass(frozen=True)
class Sidecar:
    """Facts that the two files do not hold: the ends of the model in order, and where ncnn keeps the batch of each.

    batch_axes: of the inputs, then of the outputs; -1 where the converter found no batch.
    """

    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_axes: tuple[int, ...]
    metadata: dict[str, str] = field(default_factory=dict)


class NcnnSession:
    """A net whose options are all pinned. Each run makes an extractor, as every call of ncnn's users does."""

    def __init__(self, path: Path, threads: int) -> None:
        import ncnn

        sidecar = from_json(Sidecar, (path / _SIDECAR).read_bytes())
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        for names, value in ((_OFF, False), (_ON, True)):
            for name in names:
                setattr(self._net.opt, name, value)
        _check(self._net.load_param(str(path / _PARAM)), f"cannot read {_PARAM}: a layer it does not know, or damage")
        _check(self._net.load_model(str(path / _BIN)), f"cannot read {_BIN}")
        self._mat = ncnn.Mat
        self.engine_version: str = ncnn.__version__
        self.provider = f"CPU {sidecar.precision} weights, fp32 arithmetic"
        self.inputs, self.outputs = sidecar.inputs, sidecar.outputs
        self._input_axes = sidecar.batch_axes[: len(self.inputs)]
        self._output_axes = sidecar.batch_axes[len(self.inputs) :]
        self._feeds: list[Any] = []
        self._results: list[Any] = []

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes. The batch is fixed."""
        import numpy as np

        self._feeds = []
        for spec, raw, axis in zip(self.inputs, tensors, self._input_axes, strict=True):
            array = np.frombuffer(raw, spec.dtype).reshape(spec.shape)
            array = array.transpose(0, 3, 1, 2) if spec.dtype == "uint8" else array
            array = array.astype(_MAT_DTYPES[spec.dtype], order="C")
            mat = self._mat(array) if axis < 0 else self._mat(array, batch_index=axis)
            # A Mat does not keep the array alive that it looks into.
            self._feeds.append(mat.clone())

    def run(self) -> None:
        """Compute once."""
        extractor = self._net.create_extractor()
        for i, mat in enumerate(self._feeds):
            _check(extractor.input(f"in{i}", mat), f"does not take input {self.inputs[i].name}")
        self._results = []
        for i, spec in enumerate(self.outputs):
            code, mat = extractor.extract(f"out{i}")
            _check(code, f"cannot compute {spec.name}")
            self._results.append(mat)

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        import numpy as np

        ends = zip(self.outputs, self._results, self._output_axes, strict=True)
        arrays = [(spec, mat.numpy() if axis < 0 else mat.numpy(batch_index=axis)) for spec, mat, axis in ends]
        for spec, array in arrays:
            if array.shape != spec.shape or array.dtype != np.float32:
                raise RuntimeError(f"ncnn gave {spec.name} as {array.dtype} {array.shape}, {spec.shape} expected")
        return tuple(np.ascontiguousarray(array).tobytes() for _, array in arrays)


def _check(code: int, failure: str) -> None:
    """Raise RuntimeError for a code that is not 0. ncnn prints its reason on standard error only."""
    if code != 0:
        raise RuntimeError(f"ncnn {failure} (code {code}; its reason is on standard error)")


def snippet(path: str, inputs: Sequence[TensorSpec]) -> str:
    """Run it with ncnn, in the precision it was verified in."""
    axes = from_json(Sidecar, (Path(path) / _SIDECAR).read_bytes()).batch_axes
    ends = [f"batch_index={axis}" if axis >= 0 else "" for axis in axes]
    feeds = "\n".join(
        f'extractor.input("in{i}", ncnn.Mat({_mat(spec)}{", " * bool(ends[i])}{ends[i]}).clone())'
        for i, spec in enumerate(inputs)
    )
    return f"""\
import ncnn
import numpy as np

net = ncnn.Net()
net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
net.load_param("{path}/{_PARAM}")
net.load_model("{path}/{_BIN}")
extractor = net.create_extractor()
{feeds}
logits = extractor.extract("out0")[1].numpy({ends[len(inputs)]})
print(logits.argmax(-1))
"""


def _mat(spec: TensorSpec) -> str:
    if spec.dtype == "uint8":
        return f'{spec.as_numpy()}.transpose(0, 3, 1, 2).astype("float32", order="C")'
    return replace(spec, dtype=_MAT_DTYPES[spec.dtype]).as_numpy()


def import_engine() -> None:
    """Import what load() imports first."""
    import ncnn  # noqa: F401


def load(path: Path, *, threads: int) -> Session:
    """Open a folder with a param file, a bin file and metadata.json."""
    return NcnnSession(path, threads)


# ---- the conversion ----------------------------------------------------------------------------------------------


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
    """Trace the captured graph in forms that ncnn has, and convert the trace with pnnx; fp16 does so twice.

    Raises ValueError for an open batch, RuntimeError naming the operators that ncnn has no layer for.
    """
    if dynamic_batch:
        raise ValueError(RECIPE.fixed_batch)
    stages, start = path.parent / "stages", time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgevit-ncnn-") as name:
        trace = Path(name) / "model.pt"
        sidecar = Sidecar("fp32", _specs(inputs, _MAT_DTYPES), _trace(*of_planes(model, inputs), outputs, trace), ())
        results = [_stage("convert", trace, stages, sidecar, start)]
        if precision == "fp16":
            halved = replace(sidecar, precision="fp16")
            results.append(_stage("precision", trace, stages, halved, time.perf_counter()))
    shutil.copytree(results[-1].path, path)
    return tuple(results)


def _specs(tensors: Mapping[str, Any], dtypes: Iterable[str]) -> tuple[TensorSpec, ...]:
    specs = tuple(TensorSpec(name, tuple(tensor.shape), str(tensor.dtype)[6:]) for name, tensor in tensors.items())
    for spec in specs:
        if spec.dtype not in dtypes:
            raise ValueError(f"{spec.name} is {spec.dtype}; this target has {', '.join(dtypes)} there")
    return specs


def _trace(model: Any, inputs: Mapping[str, Any], outputs: Sequence[str], path: Path) -> tuple[TensorSpec, ...]:
    """Save a TorchScript trace of the model with its outputs as one flat tuple, and return their specs."""
    import torch

    examples = tuple(inputs.values())
    with torch.no_grad(), quiet():
        captured = torch.export.export(model, examples).module(check_guards=False)
        _without_unbinds(captured)
        _with_flat_rows(captured)
        _without_gathers(captured)
        _without_deep_moves(captured)
        # Outputs become a flat tuple, however the model nests them.
        captured.graph.set_codegen(torch.fx.graph.CodeGen())
        captured.recompile()

        class Flat(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = captured

            def forward(self, *tensors: Any) -> Any:
                # A call would trace a hook of torch.export's as well.
                leaves = self.inner.forward(*tensors)
                return leaves[0] if len(leaves) == 1 else tuple(leaves)

        traced: Any = torch.jit.trace(Flat(), examples, check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(str(path))
        results = traced(*examples)
    return _specs(dict(zip(outputs, results if len(outputs) > 1 else [results], strict=True)), ("float32",))


def _stage(name: str, trace: Path, stages: Path, sidecar: Sidecar, start: float) -> Stage:
    folder = stages / f"{name}{RECIPE.suffix}"
    folder.mkdir(parents=True)
    work = trace.with_name(name)
    work.mkdir()
    _pnnx(trace, work, sidecar)
    for file in (_PARAM, _BIN):
        shutil.copyfile(work / file, folder / file)
    axes = _batch_axes((work / "model_ncnn.py").read_text(encoding="utf-8"), sidecar)
    (folder / _SIDECAR).write_text(to_json(replace(sidecar, batch_axes=axes), indent=1), encoding="utf-8")
    return Stage(name, time.perf_counter() - start, folder, precision=sidecar.precision)


def _pnnx(trace: Path, folder: Path, sidecar: Sidecar) -> None:
    """Run the converter in a folder for its dozen files. Raises RuntimeError where it does not finish its work."""
    import pnnx

    files = [f"{key}={folder / file}" for key, file in _FILES.items()]
    shapes = ",".join(map(_pnnx_shape, sidecar.inputs))
    command = [pnnx.EXEC_PATH, str(trace), *files, f"inputshape={shapes}", f"fp16={int(sidecar.precision == 'fp16')}"]
    try:
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"pnnx was not done after {_TIMEOUT_S} s") from error
    output = f"{process.stdout}\n{process.stderr}"
    if process.returncode != 0:
        raise RuntimeError(f"pnnx ended with {process.returncode}\n{output}")
    if unknown := _unknown_operators((folder / _PARAM).read_text(encoding="utf-8")):
        reasons = [line for line in output.splitlines() if line.startswith("ignore ")]
        raise RuntimeError(f"ncnn has no layer for {', '.join(unknown)}; pnnx: {'; '.join(reasons[:5])}\n{output}")


def _pnnx_shape(spec: TensorSpec) -> str:
    """Write a shape as pnnx reads it: `[1,3,224,224]f32`."""
    n, h, w, c = spec.shape if spec.dtype == "uint8" else (0, 0, 0, 0)
    shape = (n, c, h, w) if spec.dtype == "uint8" else spec.shape
    return f"[{','.join(map(str, shape))}]{_PNNX_DTYPES[spec.dtype]}"


_PNNX_DTYPES = {"float32": "f32", "int32": "i32", "int64": "i64", "uint8": "f32"}
_FILES = {
    "pnnxparam": "model.pnnx.param", "pnnxbin": "model.pnnx.bin", "pnnxpy": "model_pnnx.py",
    "pnnxonnx": "model.pnnx.onnx", "ncnnparam": _PARAM, "ncnnbin": _BIN, "ncnnpy": "model_ncnn.py",
}  # fmt: skip


def _unknown_operators(param: str) -> list[str]:
    """Return operators that pnnx did not convert: torch.index_select, aten::cumsum. No layer has such a name."""
    kinds = (line.split()[0] for line in param.splitlines()[2:] if line.strip())
    return sorted({kind for kind in kinds if not kind.isidentifier()})


def _batch_axes(script: str, sidecar: Sidecar) -> tuple[int, ...]:
    """Return the batch axis of each input and output, read from pnnx's example script; -1: none."""
    names = [f"in{i}" for i in range(len(sidecar.inputs))], [f"out{i}" for i in range(len(sidecar.outputs))]
    axes = []
    for name in (*names[0], *names[1]):
        call = re.search(rf"\b{name}\.numpy\((?:\), )?(?:batch_index=(\d+))?", script)
        if call is None:
            raise RuntimeError(f"pnnx wrote no {name}; it dropped or renamed one of the model's ends")
        axes.append(-1 if call[1] is None else int(call[1]))
    return tuple(axes)


def operators(path: Path) -> Operators:
    """Count the layers of the param file."""
    layers = (line.split()[0] for line in (path / _PARAM).read_text(encoding="utf-8").splitlines()[2:] if line.strip())
    return Operators(dict(sorted(Counter(kind for kind in layers if kind not in ("Input", "MemoryData")).items())))


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata into metadata.json beside the two files, which hold none."""
    file = path / _SIDECAR
    sidecar = from_json(Sidecar, file.read_bytes())
    file.write_text(to_json(replace(sidecar, metadata=dict(sorted(metadata.items()))), indent=1), encoding="utf-8")


# ---- what ncnn has not, or has slowly, as what it has -------------------------------------------------------------


def _call(graph: Any, name: Any, *inputs: Any) -> Any:
    """Add a call of an ATen operator, or of a function, with its result's shape, which later rewrites may read."""
    import torch

    function = operator.attrgetter(name)(torch.ops.aten) if isinstance(name, str) else name
    node = graph.call_function(function, inputs)
    node.meta["val"] = function(*torch.fx.map_arg(inputs, lambda source: source.meta["val"]))
    return node


def _without_unbinds(captured: Any) -> None:
    """Replace unbind by reshaped chunks of size one. For unbind pnnx writes slow reshapes to sizes known at run time.

    Those were three quarters of TurboViT's time.
    """
    import torch

    aten, graph = torch.ops.aten, captured.graph
    for node in graph.find_nodes(op="call_function", target=aten.unbind.int):
        source, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
        size = source.meta["val"].shape[axis]
        with graph.inserting_before(node):
            chunks = _call(graph, "chunk.default", source, size, axis)
        for user in list(node.users):
            with graph.inserting_before(user):
                chunk = _call(graph, operator.getitem, chunks, user.args[1])
                new = _call(graph, "reshape.default", chunk, list(user.meta["val"].shape))
            user.replace_all_uses_with(new)
            graph.erase_node(user)
        graph.erase_node(node)


def _with_flat_rows(captured: Any) -> None:
    """Put the rows of products with a constant matrix in one axis, for the same reason: AFFNet took 4 times as long."""
    import torch

    graph, products = captured.graph, (torch.ops.aten.linear.default, torch.ops.aten.matmul.default)
    for node in [node for node in graph.nodes if node.target in products]:
        source, factor, shape = node.args[0], node.args[1], list(node.meta["val"].shape)
        if len(shape) < 4 or factor.meta["val"].ndim != 2:
            continue
        view = [shape[0], -1, source.meta["val"].shape[-1]]
        with graph.inserting_before(node):
            rows = _call(graph, "reshape.default", source, view)
        node.replace_input_with(source, rows)
        node.meta["val"] = node.meta["val"].reshape(*view[:-1], shape[-1])
        with graph.inserting_after(node):
            new = _call(graph, "reshape.default", node, shape)
        node.replace_all_uses_with(new, delete_user_cb=lambda user, new=new: user is not new)


def _without_deep_moves(captured: Any) -> None:
    """Split transpositions of more axes than ncnn holds into several of fewer: window attention has them."""
    import torch

    aten, graph = torch.ops.aten, captured.graph
    reshapes = (aten.reshape.default, aten.view.default)
    for node in graph.find_nodes(op="call_function", target=aten.permute.default):
        source, shape = node.args[0], list(node.args[0].meta["val"].shape)
        order = [axis % len(shape) for axis in node.args[1]]
        if len(shape) <= _MOST_AXES:
            continue
        fixed = 1 if order[0] == 0 else 0
        axes = [(shape[i], i) for i in range(len(shape))]
        moves = _block_swaps(axes[fixed:], [axes[i] for i in order[fixed:]])
        # A reshape keeps the numbers in their order.
        while source.target in reshapes:
            source = source.args[0]
        with graph.inserting_before(node):
            moved = _transposed(graph, source, shape[0] if fixed else 1, moves)
            new = _call(graph, "reshape.default", moved, list(node.meta["val"].shape))
        for user in list(node.users):
            user.replace_input_with(node, moved if user.target in reshapes else new)
    graph.eliminate_dead_code()


def _without_gathers(captured: Any) -> None:
    """Replace index_select with a constant index by transpositions of blocks or a few slices; ncnn has no gather.

    Any other one stays, and an error names it when pnnx does not convert it.
    """
    import torch

    aten, graph = torch.ops.aten, captured.graph
    for node in graph.find_nodes(op="call_function", target=aten.index_select.default):
        source, axis, index = node.args
        if index.op != "get_attr":
            continue
        shape = list(source.meta["val"].shape)
        axis %= len(shape)
        indices = operator.attrgetter(index.target)(captured).tolist()
        digits = _digits(indices) if len(indices) == shape[axis] else None
        runs = list(_runs(indices))
        with graph.inserting_before(node):
            if digits is not None:
                new = _reordered(graph, source, shape, axis, digits)
            elif len(runs) <= _MOST_SLICES:
                parts = [_call(graph, "slice.Tensor", source, axis, *run) for run in runs]
                new = _call(graph, "cat.default", parts, axis)
            else:
                continue
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _reordered(graph: Any, source: Any, shape: list[int], axis: int, digits: list[_Axis]) -> Any:
    batch = shape[0] if axis else 1
    # Strides of 0 and -1 distinguish these two from every digit.
    before = (math.prod(shape[:axis]) // batch, 0)
    after = (math.prod(shape[axis + 1 :]), -1)
    now = sorted(digits, key=lambda digit: -digit[1])
    moved = _transposed(graph, source, batch, _block_swaps([before, *now, after], [before, *digits, after]))
    return _call(graph, "reshape.default", moved, shape)


def _transposed(graph: Any, value: Any, batch: int, moves: list[tuple[int, ...]]) -> Any:
    """Apply each move to a tensor of a batch and four axes, the most that ncnn holds."""
    for outer, *sizes in moves:
        view = [batch, *sizes] if outer == 1 else [batch, outer, *sizes]
        value = _call(graph, "reshape.default", value, view)
        value = _call(graph, "transpose.int", value, -3, -2)
    return value


def _block_swaps(now: list[_Axis], goal: list[_Axis]) -> list[tuple[int, ...]]:
    """Turn one order of axes into another by swaps of neighbouring blocks.

    Each swap is (left, a, b, right), sizes of merged axes whose two in the middle change places.
    """
    moves = []
    for i in range(len(goal)):
        start = end = now.index(goal[i])
        if start == i:
            continue
        while end < len(now) and now[end] == goal[i + end - start]:
            end += 1
        blocks = now[:i], now[i:start], now[start:end], now[end:]
        moves.append(tuple(math.prod(size for size, _ in block) for block in blocks))
        now = [*blocks[0], *blocks[2], *blocks[1], *blocks[3]]
    return moves


def _digits(indices: Sequence[int]) -> list[_Axis] | None:
    """Return sizes and strides, slowest first, so that an index is the sum of digit times stride; None if impossible.

    The strides must be those of a dense tensor, in any order.
    """
    digits: list[_Axis] = []
    starts = list(indices)
    while len(starts) > 1:
        stride, size = starts[1] - starts[0], 1
        while size < len(starts) and starts[size] == starts[0] + size * stride:
            size += 1
        heads = starts[::size]
        if starts != [head + k * stride for head in heads for k in range(size)]:
            return None
        digits.append((size, stride))
        starts = heads
    ascending = sorted(digits, key=lambda digit: digit[1])
    dense = itertools.accumulate((size for size, _ in ascending), operator.mul, initial=1)
    is_dense = all(stride == expected for (_, stride), expected in zip(ascending, dense, strict=False))
    return digits[::-1] if is_dense and starts == [0] else None


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the index as ranges of consecutive numbers, each as (start, end)."""
    start = 0
    for i in range(1, len(indices) + 1):
        if i == len(indices) or indices[i] != indices[i - 1] + 1:
            yield indices[start], indices[i - 1] + 1
            start = i
