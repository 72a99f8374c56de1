"""ncnn's param and bin files, run by ncnn on the CPU.

fp16 stores half weights. Both precisions take, compute and give float32, so that every processor runs the verified
arithmetic. By default ncnn computes in half or bfloat16 where a processor can.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.dialect import QUANTIZED, Dialect, Kind
from edgevit_runtime.input_layouts import of_planes
from edgevit_runtime.ncnn_int8 import in_int8, int8_kinds, is_int8, read_layers, write_layers
from edgevit_runtime.ncnn_spelling import respell
from edgevit_runtime.quantized_graph import Int8Weight, int8_weights, plain_arithmetic
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
    precisions=("fp32", "fp16", "int8"),
    requires=("torch", "pnnx"),
    extra="ncnn",
    imports=("torch._dynamo",),
    native="benchncnn",
    fixed_batch="pnnx writes fixed shapes",
    input_dtypes=("float32", "int32", "int64", "uint8"),
    spellings=_SPELLINGS,
)

_PARAM, _BIN, _SIDECAR = "model.ncnn.param", "model.ncnn.bin", "metadata.json"
_TIMEOUT_S = 600
_OFF = (
    "use_vulkan_compute", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed",
    "use_bf16_storage", "use_int8_inference", "use_int8_packed", "use_int8_storage", "use_int8_arithmetic",
)  # fmt: skip
_ON = (
    "lightmode", "use_packing_layout", "use_sgemm_convolution", "use_winograd_convolution",
    "use_winograd23_convolution", "use_winograd43_convolution", "use_winograd63_convolution",
)  # fmt: skip
# Of files in int8. Winograd's F(4, 3) multiplies sums by 576, which overflows 32 bits; its F(2, 3) does so by 4.
_INT8 = {"use_int8_inference": True, "use_winograd43_convolution": False, "use_winograd63_convolution": False}
# Of a layer in int8 against its float form, and of one channel: numbers in the middle between two steps go either way.
_LAYER_NOISE, _CHANNEL_NOISE = 1e-4, 1e-2
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
    """A net whose options are all pinned. Each run makes an extractor, as every call of ncnn's users does.

    keeps_blobs: results of all layers stay in memory, so that blobs() can return them.
    """

    def __init__(self, path: Path, threads: int, *, keeps_blobs: bool = False) -> None:
        import ncnn

        sidecar = from_json(Sidecar, (path / _SIDECAR).read_bytes())
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        for names, value in ((_OFF, False), (_ON, True)):
            for name in names:
                setattr(self._net.opt, name, value)
        if sidecar.precision in QUANTIZED:
            for name, value in _INT8.items():
                setattr(self._net.opt, name, value)
        self._net.opt.lightmode = not keeps_blobs
        _check(self._net.load_param(str(path / _PARAM)), f"cannot read {_PARAM}: a layer it does not know, or damage")
        _check(self._net.load_model(str(path / _BIN)), f"cannot read {_BIN}")
        self._mat = ncnn.Mat
        self.engine_version: str = ncnn.__version__
        arithmetic = "int8 and fp32" if sidecar.precision in QUANTIZED else "fp32"
        self.provider = f"CPU {sidecar.precision} weights, {arithmetic} arithmetic"
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

    def blobs(self, names: Sequence[str], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Compute inner results, in the order of the layers: from the inputs, or from inner results that are given."""
        extractor = self._net.create_extractor()
        for name, mat in (given or {f"in{i}": mat for i, mat in enumerate(self._feeds)}).items():
            _check(extractor.input(name, mat), f"does not take {name}")
        results = {}
        for name in names:
            code, results[name] = extractor.extract(name)
            _check(code, f"cannot compute {name}")
        return results

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
    sidecar = from_json(Sidecar, (Path(path) / _SIDECAR).read_bytes())
    ends = [f"batch_index={axis}" if axis >= 0 else "" for axis in sidecar.batch_axes]
    of_int8 = [f"net.opt.{name} = {value}\n" for name, value in _INT8.items() if sidecar.precision in QUANTIZED]
    feeds = "\n".join(
        f'extractor.input("in{i}", ncnn.Mat({_mat(spec)}{", " * bool(ends[i])}{ends[i]}).clone())'
        for i, spec in enumerate(inputs)
    )
    return f"""\
import ncnn
import numpy as np

net = ncnn.Net()
net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
{"".join(of_int8)}net.load_param("{path}/{_PARAM}")
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


def dialect(precision: str, options: Mapping[str, str]) -> Dialect:
    """Return the numbers of ncnn's int8 kernels, which are symmetric.

    Results stay in float, as do depthwise layers, whose int8 kernels are slower than those in float.
    """
    operators: tuple[Kind, ...] = ("convolution", "linear")
    return Dialect("int8", symmetric=True, lowest=-127, operators=operators, requantized=(), maps=(2,))


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
        weights = int8_weights(model) if precision in QUANTIZED else []
        with quiet():
            form = plain_arithmetic(model) if precision in QUANTIZED else model
        ends = _trace(*of_planes(form, inputs), outputs, trace, [weight.product for weight in weights])
        sidecar = Sidecar("fp32", _specs(inputs, _MAT_DTYPES), ends, ())
        results = [_stage("convert", trace, stages, sidecar, start)]
        if precision in QUANTIZED:
            # In float, the first stage computes the numbers of int8 already.
            results = [replace(results[0], precision=precision)]
            results.append(_store_int8(results[0], stages, weights, precision))
            _require_exact(results[0].path, results[1].path, inputs)
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


def _trace(
    model: Any, inputs: Mapping[str, Any], outputs: Sequence[str], path: Path, int8: Sequence[Any] = ()
) -> tuple[TensorSpec, ...]:
    """Save a TorchScript trace of the model with its outputs as one flat tuple, and return their specs."""
    import torch

    examples = tuple(inputs.values())
    with torch.no_grad(), quiet():
        captured = torch.export.export(model, examples).module(check_guards=False)
        respell(captured, int8)
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


def _store_int8(source: Stage, stages: Path, weights: Sequence[Int8Weight], precision: str) -> Stage:
    """Write the int8 form of a stage's files."""
    start = time.perf_counter()
    folder = stages / f"store_int8{RECIPE.suffix}"
    folder.mkdir()
    layers = read_layers((source.path / _PARAM).read_text(encoding="utf-8"), (source.path / _BIN).read_bytes())
    param, data = write_layers(in_int8(layers, weights))
    (folder / _PARAM).write_text(param, encoding="utf-8")
    (folder / _BIN).write_bytes(data)
    sidecar = from_json(Sidecar, (source.path / _SIDECAR).read_bytes())
    (folder / _SIDECAR).write_text(to_json(replace(sidecar, precision=precision), indent=1), encoding="utf-8")
    return Stage("store_int8", time.perf_counter() - start, folder, precision=precision)


def _require_exact(float_form: Path, int8_form: Path, inputs: Mapping[str, Any]) -> None:
    """Raise RuntimeError unless each int8 layer gives what its float form does, on what that form makes of noise.

    The outputs of a deep network do not tell a wrong channel in one layer from the noise of int8.
    """
    import numpy as np

    rng = np.random.default_rng(0)

    def noise(tensor: Any) -> Any:
        if str(tensor.dtype) == "torch.uint8":
            return rng.integers(0, 256, tensor.shape, np.uint8)
        # Numbers of words stay as they are.
        return rng.normal(size=tensor.shape).astype("float32") if tensor.is_floating_point() else tensor.numpy()

    reference, stored = (NcnnSession(path, 1, keeps_blobs=True) for path in (float_form, int8_form))
    reference.feed([noise(tensor).tobytes() for tensor in inputs.values()], 1)
    layers = [layer for layer in read_layers((int8_form / _PARAM).read_text(encoding="utf-8")) if is_int8(layer)]
    expected = reference.blobs([blob for layer in layers for blob in (*layer.inputs, *layer.outputs)])
    for layer in layers:
        (source,), (result,) = layer.inputs, layer.outputs
        right = np.array(expected[result]).astype(np.float64)
        wrong = np.array(stored.blobs([result], {source: expected[source]})[result]) - right
        noise_of, energy_of = (np.square(each).reshape(len(each), -1).sum(1) for each in (wrong, right))
        channels = noise_of <= _CHANNEL_NOISE * np.maximum(energy_of, energy_of.mean())
        if not (channels.all() and noise_of.sum() <= _LAYER_NOISE * energy_of.sum()):
            raise RuntimeError(f"ncnn computes {layer.kind} {layer.name} in int8 otherwise than in float")


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
    """Count the layers of the param file, and those that compute in int8."""
    layers = read_layers((path / _PARAM).read_text(encoding="utf-8"))
    counts = Counter(layer.kind for layer in layers if layer.kind not in ("Input", "MemoryData"))
    return Operators(dict(sorted(counts.items())), int8=int8_kinds(layers) or None)


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata into metadata.json beside the two files, which hold none."""
    file = path / _SIDECAR
    sidecar = from_json(Sidecar, file.read_bytes())
    file.write_text(to_json(replace(sidecar, metadata=dict(sorted(metadata.items()))), indent=1), encoding="utf-8")
