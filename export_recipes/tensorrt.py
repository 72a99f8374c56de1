"""TensorRT engines, built by TensorRT or TensorRT-RTX and run on an NVIDIA GPU.

The payload is a folder: NAME.engine is what the library wrote and nothing else, NAME.onnx what it was built from,
NAME.json what it was built with and the metadata, trtexec.txt the command that builds it elsewhere. An engine is native
code for one version of the library and for some GPUs, so the ONNX file is what travels. Networks are strongly typed:
the precision is that of the ONNX file. TF32, which TensorRT takes for float32 by default, is off.

TensorRT-RTX builds without a GPU, for GPUs that are not there. TensorRT builds for the GPU of the machine. Where
neither is installed, the folder holds no engine.

Building with TensorRT-RTX is tested. Building with TensorRT and running an engine of either are not: they follow the
documentation, on machines without such a GPU. Their tests use stand-ins for the library and the driver.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgevit_runtime.dialect import Dialect
from edgevit_runtime.record import Operators, Recipe, Session, Stage, TensorSpec, UnsupportedError

RECIPE = Recipe(
    target="tensorrt",
    suffix="_tensorrt",
    engine="tensorrt",
    precisions=("fp32", "fp16", "int8"),
    requires=("torch", "onnx"),
    extra="tensorrt",
    harness="trtexec",
    aliases=("trt", "engine"),
    source="onnx",
    needs="an NVIDIA GPU",
    options={"compute_capability": "GPUs to build for, 8.6,8.9 (TensorRT-RTX); default: 8.0 and later"},
    engine_choices=("tensorrt_rtx_cu13",),
    executes_code=True,
)

# TensorRT asks for a limit of an open batch.
MAX_BATCH = 32
COMMAND = "trtexec.txt"

# TensorRT's names for element types, as NumPy spells them.
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip


class CudaDriver:
    """The calls of the CUDA driver that a session needs, on the first GPU. The driver is there wherever a GPU works.

    Raises UnsupportedError where there is no driver or no GPU, RuntimeError where a call fails.
    """

    def __init__(self) -> None:
        self._cuda = _driver()
        device, context, self.stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        # 0: the stream waits for copies. One that does not would start before its inputs are there.
        self._call("cuStreamCreate", ctypes.byref(self.stream), 0)
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), device)
        self.gpu = name.value.decode()

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._cuda, name)(*arguments):
            raise RuntimeError(f"{name}: CUDA error {code}")

    def allocate(self, nbytes: int) -> int:
        """Allocate bytes on the GPU and return their address."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nbytes))
        return address.value

    def free(self, address: int) -> None:
        """Free an allocation."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def write(self, address: int, raw: bytes) -> None:
        """Copy to the GPU."""
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), raw, ctypes.c_size_t(len(raw)))

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy from the GPU."""
        buffer = ctypes.create_string_buffer(nbytes)
        self._call("cuMemcpyDtoH_v2", buffer, ctypes.c_uint64(address), ctypes.c_size_t(nbytes))
        return buffer.raw

    def wait(self) -> None:
        """Wait until all work in the stream is done."""
        self._call("cuStreamSynchronize", self.stream)


def _driver() -> ctypes.CDLL:
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise UnsupportedError(f"needs {RECIPE.needs} and its driver: {error}") from error
    if code := cuda.cuInit(0):
        raise UnsupportedError(f"needs {RECIPE.needs}: its driver says {code} (cuInit)")
    return cuda


class TensorRtSession:
    """An engine on the GPU. Tensors are copied by feed() and fetch(); run() is what the GPU computes, to its end."""

    def __init__(self, trt: Any, engine_file: Path, built: Mapping[str, Any]) -> None:
        self._driver = CudaDriver()
        self._errors: list[str] = []
        # The logger must outlive the engine.
        self._logger = _logger(trt, self._errors)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine_file.read_bytes())
        if self._engine is None:
            raise UnsupportedError(f"this GPU ({self._driver.gpu}) cannot run the engine: {_joined(self._errors)}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeError(f"no execution context: {_joined(self._errors)}")
        self.engine_version: str = trt.__version__
        self.provider: str = self._driver.gpu
        self.inputs = tuple(map(self._spec, built["inputs"]))
        self.outputs = tuple(map(self._spec, built["outputs"]))
        self._buffers: dict[TensorSpec, int] = {}
        self._results: tuple[TensorSpec, ...] = ()

    def _spec(self, name: str) -> TensorSpec:
        shape, dtype = tuple(self._engine.get_tensor_shape(name)), self._engine.get_tensor_dtype(name).name
        return TensorSpec(name, shape, _DTYPES[dtype])

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Copy the inputs to the GPU, and make room for the outputs of this batch."""
        fed = tuple(spec.at_batch(batch) for spec in self.inputs)
        self._results = tuple(spec.at_batch(batch) for spec in self.outputs)
        self._make_room((*fed, *self._results))
        for spec, raw in zip(fed, tensors, strict=True):
            if not self._context.set_input_shape(spec.name, spec.shape):
                raise RuntimeError(f"the engine takes no {spec.name} of {spec.shape}: {_joined(self._errors)}")
            self._driver.write(self._buffers[spec], raw)

    def _make_room(self, specs: Sequence[TensorSpec]) -> None:
        for unused in set(self._buffers) - set(specs):
            self._driver.free(self._buffers.pop(unused))
        for spec in specs:
            if spec not in self._buffers:
                self._buffers[spec] = self._driver.allocate(spec.nbytes)
                if not self._context.set_tensor_address(spec.name, self._buffers[spec]):
                    raise RuntimeError(f"the engine has no tensor {spec.name}: {_joined(self._errors)}")

    def run(self) -> None:
        """Compute once, and wait for the GPU."""
        if not self._context.execute_async_v3(self._driver.stream.value):
            raise RuntimeError(f"the engine did not start: {_joined(self._errors)}")
        self._driver.wait()

    def fetch(self) -> tuple[bytes, ...]:
        """Return the last outputs as raw bytes."""
        return tuple(self._driver.read(self._buffers[spec], spec.nbytes) for spec in self._results)


def snippet(path: str, inputs: Sequence[TensorSpec]) -> str:
    """Run the engine on the first GPU, with tensors of torch. Without an engine, its build command comes first."""
    sidecar = _sidecar(Path(path))
    engine = sidecar.with_suffix(".engine")
    command = sidecar.with_name(COMMAND).read_text(encoding="utf-8").strip()
    library = json.loads(sidecar.read_text(encoding="utf-8"))["library"]
    first = "" if library else f"# first, in {path}: {command}\n"
    feeds = ", ".join(f'"{spec.name}": torch.from_numpy({spec.as_numpy()}).cuda()' for spec in inputs)
    return f"""\
{first}import numpy as np
import {library or "tensorrt"} as trt
import torch

tensors = {{{feeds}}}
engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(open("{engine}", "rb").read())
context = engine.create_execution_context()
for name, tensor in tensors.items():
    context.set_input_shape(name, tuple(tensor.shape))
outputs = [name for name in engine if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
tensors |= {{name: torch.empty(tuple(context.get_tensor_shape(name)), device="cuda") for name in outputs}}
for name, tensor in tensors.items():
    context.set_tensor_address(name, tensor.data_ptr())
context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
print(tensors[outputs[0]].argmax(-1))
"""


def load(path: Path, *, threads: int) -> Session:
    """Open a folder with an engine on the first GPU, in a process of its own. `threads` has no effect there.

    Raises UnsupportedError where the folder holds no engine, this library is not the one that built it, or there is no
    GPU that can run it.
    """
    built = json.loads(_sidecar(path).read_text(encoding="utf-8"))
    if not built["library"]:
        raise UnsupportedError(
            f"the artifact holds no engine, because no TensorRT was there to build it; see {COMMAND}"
        )
    trt = _import(built["library"])
    if trt.__version__ != built["version"]:
        installed = f"{built['library']} {trt.__version__}"
        raise UnsupportedError(f"needs {built['library']} {built['version']}, which built the engine, not {installed}")
    return TensorRtSession(trt, _sidecar(path).with_suffix(".engine"), built)


def why_unavailable(to: Literal["build", "run"]) -> str:
    """Return why there is no GPU to run on, or to build on. TensorRT needs one for both, TensorRT-RTX only to run."""
    if to == "build" and importlib.util.find_spec("tensorrt") is None:
        return ""
    try:
        _driver()
    except UnsupportedError as error:
        return str(error)
    return ""


def _sidecar(path: Path) -> Path:
    return next(path.glob("*.json"))


def _import(library: str) -> Any:
    if library == "tensorrt":
        import tensorrt

        return tensorrt
    import tensorrt_rtx

    return tensorrt_rtx


def _installed() -> Any:
    """Import TensorRT if it is installed, else TensorRT-RTX, else return None."""
    for library in ("tensorrt", "tensorrt_rtx"):
        try:
            return _import(library)
        except ModuleNotFoundError as error:
            # A library that is installed and broken is an error.
            if error.name != library:
                raise
    return None


def check(options: Mapping[str, str]) -> None:
    """Check the options before anything is converted. Raises ValueError for an unknown compute capability."""
    if (capabilities := options.get("compute_capability")) is not None:
        _capabilities(_installed(), capabilities)


def dialect(precision: str, options: Mapping[str, str]) -> Dialect:
    """Return the symmetric numbers that TensorRT has; it takes a uint8 without a zero point for an int8, in silence."""
    return Dialect(activations="int8", symmetric=True)


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
    """Build an engine of the ONNX file `model`, which has the precision already, and keep that file beside it.

    Raises RuntimeError with the nodes that TensorRT cannot take, ValueError for an unknown compute capability.
    """
    check(options)
    trt, start = _installed(), time.perf_counter()
    name = path.name.removesuffix(RECIPE.suffix)
    stage = path.parent / "stages" / f"build{RECIPE.suffix}"
    stage.mkdir(parents=True)
    shutil.copyfile(model, stage / f"{name}.onnx")
    shapes = _shapes(inputs) if dynamic_batch else {}
    (stage / COMMAND).write_text(_command(name, shapes), encoding="utf-8")
    capabilities = options.get("compute_capability")
    built = _build(trt, stage / name, shapes, capabilities) if trt else {"library": "", "version": ""}
    (stage / f"{name}.json").write_text(json.dumps(built, indent=1) + "\n", encoding="utf-8")
    shutil.copytree(stage, path)
    return (Stage("build", time.perf_counter() - start, stage, precision=precision),) if trt else ()


def _shapes(inputs: Mapping[str, Any]) -> dict[str, list[tuple[int, ...]]]:
    """Return the smallest, the usual and the largest shape of each input with an open batch."""
    batches = {name: (1, tensor.shape[0], max(tensor.shape[0], MAX_BATCH)) for name, tensor in inputs.items()}
    return {name: [(batch, *inputs[name].shape[1:]) for batch in sizes] for name, sizes in batches.items()}


def _command(name: str, shapes: Mapping[str, Sequence[tuple[int, ...]]]) -> str:
    words = ["trtexec", f"--onnx={name}.onnx", f"--saveEngine={name}.engine", "--stronglyTyped", "--noTF32"]
    for i, kind in enumerate(("min", "opt", "max") if shapes else ()):
        listed = (f"{tensor}:{'x'.join(map(str, sizes[i]))}" for tensor, sizes in shapes.items())
        words.append(f"--{kind}Shapes={','.join(listed)}")
    return " ".join(words) + "\n"


def _build(trt: Any, stem: Path, shapes: Mapping[str, Sequence[Any]], capabilities: str | None) -> dict[str, Any]:
    """Write the engine of stem.onnx as stem.engine; return the library, and its tensors in the model's order."""
    errors: list[str] = []
    logger = _logger(trt, errors)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    _choose_gpus(trt, config, capabilities)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(stem.with_name(f"{stem.name}.onnx"))):
        raise RuntimeError(_joined([_complaint(parser.get_error(i)) for i in range(parser.num_errors)] or errors))
    if shapes:
        profile = builder.create_optimization_profile()
        for name, sizes in shapes.items():
            profile.set_shape(name, *sizes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError(f"no engine could be built: {_joined(errors)}")
    stem.with_name(f"{stem.name}.engine").write_bytes(engine)
    return {
        "library": trt.__name__,
        "version": trt.__version__,
        "compute_capability": capabilities or "",
        "max_batch": MAX_BATCH if shapes else None,
        "inputs": [network.get_input(i).name for i in range(network.num_inputs)],
        "outputs": [network.get_output(i).name for i in range(network.num_outputs)],
    }


def _choose_gpus(trt: Any, config: Any, capabilities: str | None) -> None:
    """Set the compute capabilities to build for. By default TensorRT-RTX builds for 8.0 and later.

    Of older ones it has 7.5, for which it refuses products of float32 matrices.
    """
    if capabilities is None:
        return
    members = _capabilities(trt, capabilities)
    config.num_compute_capabilities = len(members)
    for i, member in enumerate(members):
        config.set_compute_capability(member, i)


def _capabilities(trt: Any, text: str) -> list[Any]:
    """Return the library's members for "8.6,8.9". Raises ValueError for unknown ones."""
    if trt is None:
        raise ValueError("compute_capability is for TensorRT-RTX, which is not installed")
    if not hasattr(trt, "ComputeCapability"):
        raise ValueError("TensorRT builds for the GPU of the machine: compute_capability is for TensorRT-RTX")
    members = trt.ComputeCapability.__members__.items()
    offered = {f"{name[2:-1]}.{name[-1]}": member for name, member in members if name.startswith("SM")}
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in offered]:
        raise ValueError(f"no compute capability {', '.join(map(repr, unknown))}; known: {', '.join(offered)}")
    return [offered[name] for name in names]


def _complaint(error: Any) -> str:
    return f"node {error.node_name() or error.node()} ({error.node_operator()}): {error.desc()}"


def _joined(errors: Sequence[str]) -> str:
    """Join the library's first errors in one line."""
    return "; ".join(" ".join(text.split()) for text in errors[:3]) or "it gave no reason"


def _logger(trt: Any, errors: list[str]) -> Any:
    """Return a logger that appends errors to a list and drops the rest."""

    class Collect(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                errors.append(msg)

    return Collect()


def operators(path: Path) -> Operators:
    """Count the operators of the ONNX file in the folder. The engine's own are known only where it runs."""
    import onnx

    (file,) = path.glob("*.onnx")
    nodes = onnx.load(str(file), load_external_data=False).graph.node
    return Operators(dict(sorted(Counter(node.op_type for node in nodes).items())))


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata into the sidecar: an engine is its library's bytes, with no header of ours."""
    sidecar = _sidecar(path)
    built = json.loads(sidecar.read_text(encoding="utf-8"))
    built["metadata"] = dict(sorted(metadata.items()))
    sidecar.write_text(json.dumps(built, indent=1) + "\n", encoding="utf-8")
